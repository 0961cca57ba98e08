"""What frames come from, whatever it is: in turn, or in any order."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from emavos.io.spool import Spool


class InputWarning(UserWarning):
    """A warning about input read in a way you may not intend: files skipped, dark or in an odd order."""


@contextmanager
def noting(most: int = 20) -> Iterator[list[str]]:
    """Within, collect the texts of each `InputWarning` instead of showing it: once each, `most` at most.

    Like all of `warnings`, this holds for the whole process, and so for the threads that read ahead too.
    """
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        others = warnings.showwarning

        def note(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if not issubclass(category, InputWarning):
                others(message, category, *rest, **more)
            elif str(message) not in notes and len(notes) < most:
                notes.append(str(message))

        warnings.showwarning = note
        yield notes


class Reel(Protocol):
    """Frames by their index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class FrameSource:
    """Frames in the order of the video, one in memory at a time, and their names.

    count: how many, where that is known before they are read; a video says what its container declares.
    exact: whether the count is one; what a container declares may be a hint.
    fps: frames per second, where there is such a thing.
    stored: whether they lie in files, so that they can be read before they are wanted.
    """

    stored = False
    count: int | None = None
    exact = True
    fps: float | None = None

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError

    def size(self) -> tuple[int, int] | None:
        """(H, W) of the frames, where that is known before they are read."""
        return None

    def reel(self) -> Reel | None:
        """The frames by index, where they can be had in any order as they are."""
        return None

    @property
    def whole(self) -> FrameSource:
        """The source with all frames, if this source has only some of them; otherwise this source."""
        return self

    def place(self, number: int) -> int | None:
        """The index in this source for an index in `whole`; None if the frame is left out."""
        return number

    def name(self, index: int) -> str:
        """What files about a frame are called: the stem of its image, otherwise its number in five digits."""
        return f"{index:05d}"

    def find(self, name: str) -> int | None:
        """The index of the frame of that name; None where no frame can have it."""
        return int(name) if name.isdecimal() and self.name(int(name)) == name else None


@contextmanager
def open_reel(source: FrameSource) -> Iterator[Reel]:
    """The frames of a source in any order, while the block runs.

    Those of a folder or a sequence are read where they are. A video file is decoded once into a temporary
    file, without loss: half its size in 8-bit RGB or so, which is 3 bytes a pixel.

    Raises ValueError for a camera and any other stream, whose frames come once.
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
            "the frames are a stream, which comes once and in its order; going backward takes a folder, a "
            "video file or a list"
        )
    yield reel
