"""The interface between samples and data sets: videos with masks for some frames."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

from torch import Tensor


class Videos(Protocol):
    """Videos by number, each with the frames that have a mask. A still image is a video of one frame."""

    def __len__(self) -> int:
        """The number of videos."""

    def length(self, video: int) -> int:
        """The number of frames with a mask; at least 1."""

    def step(self, video: int) -> int:
        """The distance between two frames with a mask, in frames of the video."""

    def load(self, video: int, frame: int) -> tuple[Tensor, Tensor]:
        """Returns an image (3, H, W) uint8 and its mask (H, W) uint8 of ids."""


class Joined:
    """Several sets of videos as one; each set is repeated the given number of times."""

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


class Remembered:
    """A set of videos with a cache of the pictures loaded last, so that repeated pictures are decoded once.

    videos: set of videos to cache.
    nbytes: largest size of the cache in bytes, in each loading process.
    """

    def __init__(self, videos: Videos, nbytes: int = 3 << 30) -> None:
        self._videos, self._room = videos, nbytes
        self._kept: OrderedDict[tuple[int, int], tuple[Tensor, Tensor]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._videos)

    def length(self, video: int) -> int:
        return self._videos.length(video)

    def step(self, video: int) -> int:
        return self._videos.step(video)

    def load(self, video: int, frame: int) -> tuple[Tensor, Tensor]:
        place = (video, frame)
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        pair = self._videos.load(video, frame)
        self._kept[place] = pair
        self._room -= sum(x.nbytes for x in pair)
        while self._room < 0:
            _, old = self._kept.popitem(last=False)
            self._room += sum(x.nbytes for x in old)
        return pair
