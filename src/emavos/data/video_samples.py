"""Samples of videos as in STCN: up to two objects, each with a validity flag."""

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
from emavos.frames.preprocess import normalize, one_hot

_TRIES = 20  # then a clip is used although its first frame has no object
_LEAST = 0.001  # least fraction of the first frame covered by an object


@dataclass(frozen=True)
class VideoSamples(Dataset[Sample]):
    """Endless samples from a set of videos; still images become clips by artificial motion.

    Sample i is drawn from a generator seeded with (seed, i). Samples therefore depend neither on the number
    of workers nor on stopping and resuming a run.
    """

    videos: Videos
    count: int  # number of samples
    size: int = 384
    frames: int = 3
    objects: int = 2  # planes per sample; planes without an object are empty and not valid
    gaps: Gaps = ((0.0, 25),)  # largest gap in frames, by fraction of the run
    still: float = 0.0  # fraction of samples of longer videos made from a single frame
    zoom: tuple[float, float] = (0.6, 1.0)  # range of the view's side over the picture's short side
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
        """Returns the frames (3, S, S) in [0, 1] and the ids (S, S) of a clip."""
        video = int(rng.integers(len(self.videos)))
        length = self.videos.length(video)
        if length == 1 or rng.random() < self.still:
            pairs = [self.videos.load(video, int(rng.integers(length)))] * self.frames
            strength, jitter = 1.0, 0.25
        else:
            places = draw_places(rng, length, self.frames, max(gap // self.videos.step(video), 1))
            pairs = [self.videos.load(video, place) for place in places]
            strength, jitter = 0.3, 0.05  # weaker, as the motion between frames is real
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
        """The ids to track in the first frame (S, S): up to `objects` ids, chosen at random."""
        ids, areas = first.unique(return_counts=True)
        there = [
            i
            for i, area in zip(ids.tolist(), areas.tolist(), strict=True)
            if i and area >= _LEAST * first.numel()
        ]
        return [int(i) for i in rng.permutation(there)[: self.objects]]
