"""What frames come from, whatever it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol


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

    def name(self, index: int) -> str:
        """What files about a frame are called: the stem of its image, otherwise its number in five digits."""
        return f"{index:05d}"

    def find(self, name: str) -> int | None:
        """The index of the frame of that name; None where no frame can have it."""
        return int(name) if name.isdecimal() and self.name(int(name)) == name else None
