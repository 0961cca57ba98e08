"""Samples of several objects from clips and still images, with more objects pasted over or under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from emavos.data.mixed_drawing import Paste, Plan, Scene, draw_plan, pasted_ids, renumbered, shown_pixels
from emavos.data.places import draw_places
from emavos.data.samples import Sample
from emavos.data.transforms import Blur, Colour, Motion, draw_object_view, draw_view
from emavos.data.videos import Videos
from emavos.frames.preprocess import one_hot

_TRIES = 20  # then a clip is used although its objects are too small
_LEAST = 0.003  # least fraction of the first frame covered by each object


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
        return draw_plan(self.plan(index), self.stills, self.clips, self.size)

    def plan(self, index: int) -> Plan:
        """All random choices of sample `index`. They depend on masks, but on no colours."""
        shares = np.asarray(self.objects, dtype=np.float64)
        batch = np.random.default_rng((self.seed, 1, index // self.batch))
        objects = 1 + int(batch.choice(len(shares), p=shares / shares.sum()))
        rng = np.random.default_rng((self.seed, 0, index))
        for _ in range(_TRIES):
            plan, first = self._plan(rng, objects)
            areas = one_hot(first, range(1, objects + 1)).mean(dim=(1, 2))  # (O,)
            if bool((areas >= _LEAST).all()):
                break
        return plan

    def _plan(self, rng: np.random.Generator, objects: int) -> tuple[Plan, Tensor]:
        """A plan, and the ids (S, S) of its first frame."""
        scene, first = self._real(rng) if rng.random() < self.real else self._still(rng)
        chosen = rng.permutation(_large_ids(first))[:objects].tolist()
        first = renumbered(first, chosen)
        pasted = list(range(len(chosen) + 1, objects + 1))
        if rng.random() < self.occluder:
            # drawn in this order, so the occluder may hide earlier pasted objects
            pasted.insert(int(rng.integers(len(pasted) + 1)), 0)
        pastes = []
        for id in pasted:
            paste, first = self._paste(rng, first, id)
            pastes += [] if paste is None else [paste]
        blurs = self._blurs(rng)
        return Plan(objects, scene, chosen, pastes, blurs, Colour.draw(rng)), first

    def _still(self, rng: np.random.Generator) -> tuple[Scene, Tensor]:
        place = (int(rng.integers(len(self.stills))), 0)
        mask = self.stills.load(*place)[1]
        view = draw_view(mask == _one_of(mask, rng), rng, self.zoom)
        motions = self._motions(rng, strength=1.0)
        jitters = [Colour.draw(rng, 0.25) for _ in range(self.frames)]
        scene = Scene(False, [place] * self.frames, view, motions, jitters)
        return scene, view.sample_ids(mask, motions[0], self.size)

    def _real(self, rng: np.random.Generator) -> tuple[Scene, Tensor]:
        video = int(rng.integers(len(self.clips)))
        places = draw_places(rng, self.clips.length(video), self.frames, self.max_gap)
        mask = self.clips.load(video, places[0])[1]
        view = draw_view(mask == _one_of(mask, rng), rng, self.zoom)
        motion = Motion.draw(rng, 0.3)  # one for the whole clip, as the motion between frames is real
        scene = Scene(True, [(video, place) for place in places], view, [motion] * self.frames, [])
        return scene, view.sample_ids(mask, motion, self.size)

    def _paste(self, rng: np.random.Generator, first: Tensor, id: int) -> tuple[Paste | None, Tensor]:
        """An object to paste with the given id, and the ids (S, S) of the first frame with the object.

        None instead of an object if the still image has none.
        """
        still, mask, source_id = self._thing(rng, first)
        thing = mask == source_id
        if not thing.any():
            return None, first
        view = draw_object_view(thing, rng)
        strength, under = rng.uniform(0.3, 1.2), bool(rng.random() < self.under)
        soft = bool(rng.random() < 0.7)
        motions = self._motions(rng, strength)
        place = view.sample_ids(thing, motions[0], self.size)
        shown = shown_pixels(place, first, under)
        return Paste(still, source_id, id, view, motions, under, soft), pasted_ids(first, shown, id)

    def _thing(self, rng: np.random.Generator, first: Tensor) -> tuple[int | None, Tensor, int]:
        """An object to paste: its still image, or None for the first frame; the mask there; its id there."""
        there = _large_ids(first)
        if there and rng.random() < self.lookalike:
            return None, first, int(rng.choice(there))
        still = int(rng.integers(len(self.stills)))
        mask = self.stills.load(still, 0)[1]
        return still, mask, _one_of(mask, rng)

    def _motions(self, rng: np.random.Generator, strength: float) -> list[Motion]:
        """A motion for each frame; the first frame stays."""
        return [Motion.still(), *(Motion.draw(rng, strength) for _ in range(self.frames - 1))]

    def _blurs(self, rng: np.random.Generator) -> list[Blur | None]:
        """A motion blur for most frames of some samples."""
        blurred = self.blur > 0 and rng.random() < self.blur
        return [Blur.draw(rng) if blurred and rng.random() < 0.7 else None for _ in range(self.frames)]


def _large_ids(ids: Tensor) -> list[int]:
    """The ids of a mask (S, S) whose objects are large enough to track."""
    areas = ids.flatten().bincount().tolist()
    return [id for id, area in enumerate(areas) if id and area >= _LEAST * ids.numel()]


def _one_of(mask: Tensor, rng: np.random.Generator) -> int:
    """The id of a random object of a mask (H, W); 1 if there is none."""
    ids = [id for id in mask.flatten().bincount().nonzero()[:, 0].tolist() if id]
    return ids[rng.integers(len(ids))] if ids else 1
