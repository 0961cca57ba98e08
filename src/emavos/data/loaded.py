"""A set of videos in memory."""

from __future__ import annotations

import math
from itertools import accumulate

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from emavos.data.videos import Videos

_Pair = tuple[Tensor, Tensor]


class Loaded:
    """A set of videos, decoded into the memory of one device: bytes, four for each pixel.

    videos: set of videos to load, on the CPU.
    workers: number of processes that decode files; 0 for none.
    room: largest size in bytes.

    Raises ValueError if the pictures take more than `room` bytes.
    """

    def __init__(self, videos: Videos, workers: int = 0, room: float = math.inf) -> None:
        places = _Places(videos)
        self._lengths, self._step = places.lengths, [videos.step(i) for i in range(len(videos))]
        self._firsts = [0, *accumulate(places.lengths)]  # number of each video's first picture
        self._shapes: list[torch.Size] = []
        pictures: list[Tensor] = []
        size = 0
        for image, mask in DataLoader(places, batch_size=None, num_workers=workers):
            pictures.append(torch.cat([image, mask[None]]).flatten())
            self._shapes.append(mask.shape)
            size += pictures[-1].numel()
            if size > room:
                raise ValueError(
                    f"{len(pictures)} of {len(places)} pictures take {size:,} bytes, but only {room:,.0f} "
                    "are free; make the pictures smaller (docs/measure/quality/pack.py), or leave out "
                    "--samples-on-device"
                )
        self._starts = [0, *accumulate(map(len, pictures))]
        self._planes = _joined(pictures)  # one tensor, which processes share

    def to(self, device: torch.device) -> Loaded:
        """The same videos in the memory of another device."""
        moved = Loaded.__new__(Loaded)
        moved.__dict__ |= self.__dict__ | {"_planes": self._planes.to(device)}
        return moved

    @property
    def nbytes(self) -> int:
        """The size of all pictures in bytes."""
        return self._planes.numel()

    def __len__(self) -> int:
        return len(self._lengths)

    def length(self, video: int) -> int:
        return self._lengths[video]

    def step(self, video: int) -> int:
        return self._step[video]

    def load(self, video: int, frame: int) -> _Pair:
        number = self._firsts[video] + frame
        height, width = self._shapes[number]
        picture = self._planes[self._starts[number] : self._starts[number + 1]].view(4, height, width)
        return picture[:3], picture[3]


class _Places(Dataset[_Pair]):
    """All pictures of a set of videos, in order."""

    def __init__(self, videos: Videos) -> None:
        self.lengths = [videos.length(video) for video in range(len(videos))]
        self._videos = videos
        self._places = [(video, i) for video, length in enumerate(self.lengths) for i in range(length)]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> _Pair:
        return self._videos.load(*self._places[index])


def _joined(pictures: list[Tensor]) -> Tensor:
    """The pictures in one tensor. The list is emptied on the way, so memory holds few pictures twice."""
    planes = torch.empty(sum(map(len, pictures)), dtype=torch.uint8, device="cpu")
    at = len(planes)
    while pictures:
        picture = pictures.pop()
        at -= len(picture)
        planes[at : at + len(picture)] = picture
    return planes
