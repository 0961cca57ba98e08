"""Sources of frames, read in order or in any order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, Protocol

from emavos.io.sound import Sound
from emavos.io.spool import Spool


class Reel(Protocol):
    """Frames by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class FrameSource:
    """Frames in video order with their names; only one frame is in memory at a time.

    count: number of frames, if known before reading. For videos, the number declared by the container.
    exact: whether `count` is exact; a container's number may be only a hint.
    fps: frames per second, if the source has a frame rate.
    stored: whether frames are stored in files, so that they can be prefetched.
    holds: whether a good frame may stand in for a damaged one, see `stands_in`.
    live: whether frames come from a camera or a stream: they have no end, and a loop begins at the present.
    sound: the sound track that belongs to the frames, if they are of a video file.
    """

    stored = False
    holds = False
    live = False
    count: int | None = None
    exact = True
    fps: float | None = None
    sound: Sound | None = None

    @property
    def pixel_aspect(self) -> Fraction | None:
        """Width of a pixel over its height as players show it; None if pixels are square, as of images."""
        return None

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError

    def size(self) -> tuple[int, int] | None:
        """The (H, W) of the frames, if known before reading; otherwise None."""
        return None

    def reel(self) -> Reel | None:
        """The frames by index, if the source allows access in any order; otherwise None."""
        return None

    @property
    def damaged(self) -> bool:
        """Whether damage was met so far."""
        return False

    def is_damaged(self, index: int) -> bool:
        """Whether a frame that was read is damaged, so that a good frame stands in for it."""
        return False

    def tell_damage(self) -> None:
        """List the damaged frames that were read in an `InputWarning`, unless the last one listed them.

        Called by itself when all frames were read.
        """

    def stands_in(self, index: int) -> bool:
        """Whether a frame that was read repeats the frame before it, because it is damaged."""
        return index > 0 and self.is_damaged(index)

    @property
    def whole(self) -> FrameSource:
        """The source with all frames, if this source has only some of them; otherwise this source."""
        return self

    def place(self, number: int) -> int | None:
        """The index in this source for an index in `whole`; None if the frame is left out."""
        return number

    def name(self, index: int) -> str:
        """The stem of files about a frame: the stem of its image, or its number in five digits."""
        return f"{index:05d}"

    def find(self, name: str) -> int | None:
        """The index of the frame with this name; None if no frame can have the name."""
        return int(name) if name.isdecimal() and self.name(int(name)) == name else None


class Peeked(FrameSource):
    """A live source that is opened once: a loop that follows another one begins with the first frame again.

    So you can look at the first frame, and then track from it.
    """

    live = True

    def __init__(self, source: FrameSource) -> None:
        self._source, self._frames = source, iter(source)
        self._first: Any = None
        self.fps = source.fps

    def __iter__(self) -> Iterator[Any]:
        if self._first is None:
            self._first = next(self._frames)
        yield self._first
        yield from self._frames

    def name(self, index: int) -> str:
        return self._source.name(index)

    def find(self, name: str) -> int | None:
        return self._source.find(name)


@contextmanager
def open_reel(source: FrameSource) -> Iterator[Reel]:
    """Context with the frames of a source by index, in any order.

    Frames of a folder or a sequence are read directly. A video file is decoded once into a lossless temporary
    file, about half the size of its 8-bit RGB frames at 3 bytes per pixel.

    Raises ValueError for a camera or another stream, as its frames come only once.
    """
    reel = source.reel()
    if reel is None and source.stored:
        with Spool() as spool:
            for frame in source:
                spool.append(frame)
            yield spool
        return
    if reel is None:
        raise ValueError(
            "the frames are a stream, which can be read only once and in order; to track backward, pass a "
            "folder, a video file or a list"
        )
    yield reel
