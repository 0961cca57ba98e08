"""Samples of several objects from clips and still images, with more objects pasted over or under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from emavos.data.places import draw_places
from emavos.data.samples import Sample
from emavos.data.transforms import Blur, Colour, Motion, draw_object_view, draw_view
from emavos.data.videos import Videos
from emavos.frames import normalize
from emavos.frames.preprocess import one_hot

_TRIES = 20  # then a clip is used although its objects are too small
_LEAST = 0.003  # least fraction of the first frame covered by each object
_Clip = list[tuple[Tensor, Tensor]]  # frames (3, S, S) in [0, 1] and ids (S, S) uint8


@dataclass(frozen=True)
class MixedSamples(Dataset[Sample]):
    """Endless samples. Objects of the picture come first; pasted objects fill up to the number of the batch.

    Sample i is drawn from a generator seeded with (seed, i). Samples therefore depend neither on the number
    of workers nor on stopping and resuming a run.
    """

    stills: Videos  # source of pasted objects
    clips: Videos
    count: int  # number of samples
    batch: int  # batch size; all samples of a batch have the same number of objects
    size: int = 256
    frames: int = 4
    max_gap: int = 12  # largest distance between two neighbours of a sample, in frames
    real: float = 0.5  # fraction of samples from real video
    objects: Sequence[float] = (0.55, 0.3, 0.15)  # relative shares of batches with one, two, ... objects
    occluder: float = 0.4  # fraction of samples with a pasted occluder, which counts as background
    lookalike: float = 0.35  # fraction of pasted objects copied from the sample itself
    under: float = 0.35  # fraction of pasted objects placed under the sample's objects
    blur: float = 0.2  # fraction of samples with motion blur, drawn for each frame
    zoom: tuple[float, float] = (0.4, 1.0)  # range of the view's side over the picture's short side
    seed: int = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        shares = np.asarray(self.objects, dtype=np.float64)
        batch = np.random.default_rng((self.seed, 1, index // self.batch))
        objects = 1 + int(batch.choice(len(shares), p=shares / shares.sum()))
        rng = np.random.default_rng((self.seed, 0, index))
        for _ in range(_TRIES):
            clip = self._draw(rng, objects)
            masks = torch.stack([one_hot(ids, range(1, objects + 1)) for _, ids in clip])
            if bool((masks[0].mean(dim=(1, 2)) >= _LEAST).all()):
                break
        frames = torch.stack([frame for frame, _ in clip])
        return Sample(normalize(frames), masks, masks.new_ones(objects))

    def _draw(self, rng: np.random.Generator, objects: int) -> _Clip:
        clip = self._real(rng) if rng.random() < self.real else self._still(rng)
        shown = _large_ids(clip[0][1])
        chosen = rng.permutation(shown)[:objects].tolist()
        clip = [(frame, _renumbered(ids, chosen)) for frame, ids in clip]
        pasted = list(range(len(chosen) + 1, objects + 1))
        if rng.random() < self.occluder:
            # drawn in this order, so the occluder may hide earlier pasted objects
            pasted.insert(int(rng.integers(len(pasted) + 1)), 0)
        for id in pasted:
            clip = self._paste(clip, rng, id)
        if self.blur > 0 and rng.random() < self.blur:
            clip = [(Blur.draw(rng)(frame) if rng.random() < 0.7 else frame, ids) for frame, ids in clip]
        colour = Colour.draw(rng)
        return [(colour(frame), ids) for frame, ids in clip]

    def _still(self, rng: np.random.Generator) -> _Clip:
        image, mask = self.stills.load(int(rng.integers(len(self.stills))), 0)
        view = draw_view(_one_of(mask, rng), rng, self.zoom)
        motions = [Motion.still()] + [Motion.draw(rng) for _ in range(self.frames - 1)]
        clip = [view.sample(image, mask, motion, self.size) for motion in motions]
        return [(Colour.draw(rng, 0.25)(frame), ids) for frame, ids in clip]

    def _real(self, rng: np.random.Generator) -> _Clip:
        video = int(rng.integers(len(self.clips)))
        places = draw_places(rng, self.clips.length(video), self.frames, self.max_gap)
        pairs = [self.clips.load(video, place) for place in places]
        view = draw_view(_one_of(pairs[0][1], rng), rng, self.zoom)
        motion = Motion.draw(rng, 0.3)  # one for the whole clip, as the motion between frames is real
        return [view.sample(image, mask, motion, self.size) for image, mask in pairs]

    def _thing(self, clip: _Clip, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """An object to paste: picture (3, H, W) uint8 and mask (H, W) of bool."""
        frame, ids = clip[0]
        there = _large_ids(ids)
        if there and rng.random() < self.lookalike:
            return (frame * 255).to(torch.uint8), ids == int(rng.choice(there))
        image, mask = self.stills.load(int(rng.integers(len(self.stills))), 0)
        return image, _one_of(mask, rng)

    def _paste(self, clip: _Clip, rng: np.random.Generator, id: int) -> _Clip:
        """Paste a moving object with the given id over or under the objects of a clip."""
        image, thing = self._thing(clip, rng)
        if not thing.any():
            return clip
        view = draw_object_view(thing, rng)
        strength, under = rng.uniform(0.3, 1.2), rng.random() < self.under
        soft = bool(rng.random() < 0.7)
        pasted = []
        for i, (frame, ids) in enumerate(clip):
            motion = Motion.draw(rng, strength) if i else Motion.still()
            seen, place = view.sample(image, thing.to(torch.uint8), motion, self.size)
            shown = (place > 0) & (ids == 0) if under else place > 0
            alpha = _softened(shown) if soft else shown.float()
            ids = torch.where(shown, id, ids).to(torch.uint8)
            pasted.append((torch.lerp(frame, seen, alpha), ids))
        return pasted


def _large_ids(ids: Tensor) -> list[int]:
    """The ids of a mask (S, S) whose objects are large enough to track."""
    present, areas = ids.unique(return_counts=True)
    return [int(i) for i, area in zip(present, areas, strict=True) if i and area >= _LEAST * ids.numel()]


def _renumbered(ids: Tensor, chosen: Sequence[int]) -> Tensor:
    """The chosen ids renumbered 1, 2, ...; all other ids become background."""
    out = torch.zeros_like(ids)
    for number, id in enumerate(chosen, 1):
        out[ids == id] = number
    return out


def _one_of(mask: Tensor, rng: np.random.Generator) -> Tensor:
    """A random object of a mask (H, W) of ids, as (H, W) of bool; all False if there is none."""
    ids = mask.unique()
    ids = ids[ids > 0]
    return mask == (ids[rng.integers(len(ids))] if len(ids) else 1)


def _softened(shown: Tensor) -> Tensor:
    """A mask (S, S) of bool with a soft edge three pixels wide, as in camera pictures: (S, S) in [0, 1]."""
    return functional.avg_pool2d(shown[None].float(), 3, stride=1, padding=1, count_include_pad=False)[0]
