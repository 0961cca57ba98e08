"""What samples are drawn from: videos with masks of some frames, whatever folder they are in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

from torch import Tensor


class Videos(Protocol):
    """Videos by number; of each, the frames that have a mask, by number. A still image is a video of one."""

    def __len__(self) -> int:
        """How many videos there are."""

    def length(self, video: int) -> int:
        """How many of its frames have a mask; at least 1."""

    def step(self, video: int) -> int:
        """How many frames of the video lie from one frame with a mask to the next."""

    def load(self, video: int, frame: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) uint8 and mask (H, W) uint8 of ids."""


class Joined:
    """Several sets as one; each counts as often as its number of repeats says."""

    def __init__(self, parts: Sequence[Videos], repeats: Sequence[int] | None = None) -> None:
        repeats = [1] * len(parts) if repeats is None else repeats
        self._parts = [part for part, n in zip(parts, repeats, strict=True) for _ in range(n)]
        self._ends = list(accumulate(map(len, self._parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def length(self, video: int) -> int:
        part, number = self._place(video)
        return part.length(number)

    def step(self, video: int) -> int:
        part, number = self._place(video)
        return part.step(number)

    def load(self, video: int, frame: int) -> tuple[Tensor, Tensor]:
        part, number = self._place(video)
        return part.load(number, frame)

    def _place(self, video: int) -> tuple[Videos, int]:
        i = bisect_right(self._ends, video)
        return self._parts[i], video - (self._ends[i - 1] if i else 0)
