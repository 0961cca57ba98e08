"""Samples of videos as they are, in the way of STCN: up to two objects, each with a flag of validity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from emavos.data.places import Gaps, draw_places, gap_at
from emavos.data.samples import Sample
from emavos.data.transforms import Colour, Motion, draw_view
from emavos.data.videos import Videos
from emavos.frames.masks import one_hot
from emavos.frames.preprocess import normalize

_TRIES = 20  # before a clip without an object in its first frame is taken as it is
_LEAST = 0.001  # of the first frame that an object covers


@dataclass(frozen=True)
class VideoSamples(Dataset[Sample]):
    """Endless samples of a set of videos; still images among them are moved into clips.

    Sample i is drawn from a generator seeded with (seed, i), so the order of a run depends neither on workers
    nor on where the run was stopped and resumed.
    """

    videos: Videos
    count: int  # how many samples there are
    size: int = 384
    frames: int = 3
    objects: int = 2  # at most; planes without one are empty and not valid
    gaps: Gaps = ((0.0, 25),)  # frames of the video between two neighbours, by the fraction of the run
    still: float = 0.0  # share of samples made of one frame, where a video has more
    zoom: tuple[float, float] = (0.6, 1.0)  # side of the view over the short side of the picture
    seed: int = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, 0, index))
        gap = gap_at(self.gaps, index / self.count)
        for _ in range(_TRIES):
            frames, ids = self._draw(rng, gap)
            chosen = self._choose(ids[0], rng)
            if chosen:
                break
        planes = range(self.objects)
        masks = frames[0].new_zeros(self.frames, self.objects, self.size, self.size)
        masks[:, : len(chosen)] = torch.stack([one_hot(frame, chosen) for frame in ids])
        valid = masks.new_tensor([float(i < len(chosen)) for i in planes])
        return Sample(normalize(torch.stack(frames)), masks, valid)

    def _draw(self, rng: np.random.Generator, gap: int) -> tuple[list[Tensor], list[Tensor]]:
        """Frames (3, S, S) in [0, 1] and ids (S, S)."""
        video = int(rng.integers(len(self.videos)))
        length = self.videos.length(video)
        if length == 1 or rng.random() < self.still:
            pairs = [self.videos.load(video, int(rng.integers(length)))] * self.frames
            strength, jitter = 1.0, 0.25
        else:
            places = draw_places(rng, length, self.frames, max(gap // self.videos.step(video), 1))
            pairs = [self.videos.load(video, place) for place in places]
            strength, jitter = 0.3, 0.05  # the motion between its frames is real
        view = draw_view(pairs[0][1] > 0, rng, self.zoom)
        motions = [Motion.still()] + [
            Motion.draw(rng, strength, thin_plate=True) for _ in range(self.frames - 1)
        ]
        clip = [
            view.sample(image, mask, motion, self.size)
            for (image, mask), motion in zip(pairs, motions, strict=True)
        ]
        colour = Colour.draw(rng)
        return [colour(Colour.draw(rng, jitter)(frame)) for frame, _ in clip], [ids for _, ids in clip]

    def _choose(self, first: Tensor, rng: np.random.Generator) -> list[int]:
        """Ids of the first frame (S, S) to be followed: as many as there is room for, at random."""
        ids, areas = first.unique(return_counts=True)
        there = [
            i
            for i, area in zip(ids.tolist(), areas.tolist(), strict=True)
            if i and area >= _LEAST * first.numel()
        ]
        return [int(i) for i in rng.permutation(there)[: self.objects]]
