"""Training samples: short clips with up to two objects, each made from its number alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from emavos.data.clips import Clips
from emavos.data.places import draw_places
from emavos.data.static import StaticImages
from emavos.data.transforms import Blur, Colour, Motion, View, draw_object_view, draw_view
from emavos.frames.masks import one_hot
from emavos.frames.preprocess import normalize

_TRIES = 20  # before a clip whose objects are too small is taken as it is
_LEAST = 0.004  # of the first frame that each object covers


class Sample(NamedTuple):
    """A clip of T frames and O objects; batches have a leading B."""

    frames: Tensor  # (T, 3, S, S), normalised
    masks: Tensor  # (T, O, S, S), 0 and 1
    valid: Tensor  # (O,), 1 where there is such an object, 0 where the plane only fills the batch


@dataclass(frozen=True)
class ClipSamples(Dataset[Sample]):
    """Endless samples: half from still images, which are moved, half from real clips.

    Sample i is drawn from a generator seeded with (seed, i), so the order of a run depends on neither workers
    nor on where the run was stopped and resumed.
    """

    static: StaticImages
    clips: Clips
    count: int  # how many samples there are
    batch: int  # samples of one batch have the same number of objects
    size: int = 224
    frames: int = 3
    max_gap: int = 12  # frames between two neighbours of a sample
    real: float = 0.5  # share of samples that are real video
    two_objects: float = 0.35  # share of batches with two objects: one more is pasted in
    occluder: float = 0.3  # share of single-object clips with something pasted in that is not an object
    lookalike: float = 0.0  # share of these where it is a copy of the object itself
    blur: float = 0.0  # share of clips that are smeared as by a moving camera, each frame by itself
    zoom: tuple[float, float] = (0.45, 1.0)  # side of the view over the short side of the picture
    seed: int = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        objects = 1 + int(
            np.random.default_rng((self.seed, 1, index // self.batch)).random() < self.two_objects
        )
        rng = np.random.default_rng((self.seed, 0, index))
        for _ in range(_TRIES):
            frames, ids = self._draw(rng, objects)
            masks = torch.stack([one_hot(frame, range(1, objects + 1)) for frame in ids])
            if bool((masks[0].mean(dim=(1, 2)) >= _LEAST).all()):
                break
        return Sample(normalize(torch.stack(frames)), masks, masks.new_ones(objects))

    def _draw(self, rng: np.random.Generator, objects: int) -> tuple[list[Tensor], list[Tensor]]:
        """Frames (3, S, S) in [0, 1] and ids (S, S)."""
        clip = self._real(rng) if rng.random() < self.real else self._still(rng)
        if objects == 2:
            clip = self._paste(clip, rng, self._one_object(rng), id=2)
        elif rng.random() < self.occluder:
            copied = self.lookalike > 0 and rng.random() < self.lookalike
            clip = self._paste(clip, rng, object_of(*clip[0]) if copied else self._one_object(rng), id=0)
        if self.blur > 0 and rng.random() < self.blur:
            clip = [(Blur.draw(rng)(frame) if rng.random() < 0.7 else frame, ids) for frame, ids in clip]
        colour = Colour.draw(rng)
        return [colour(frame) for frame, _ in clip], [ids for _, ids in clip]

    def _still(self, rng: np.random.Generator) -> list[tuple[Tensor, Tensor]]:
        image, mask = self._one_object(rng)
        view = draw_view(mask > 0, rng, self.zoom)
        motions = [Motion.still()] + [Motion.draw(rng) for _ in range(self.frames - 1)]
        clip = [view.sample(image, mask, motion, self.size) for motion in motions]
        return [(Colour.draw(rng, 0.25)(frame), ids) for frame, ids in clip]

    def _real(self, rng: np.random.Generator) -> list[tuple[Tensor, Tensor]]:
        sequence = int(rng.integers(len(self.clips)))
        places = draw_places(rng, self.clips.length(sequence), self.frames, self.max_gap)
        pairs = [self.clips.load(sequence, place) for place in places]
        view = draw_view(pairs[0][1] > 0, rng, self.zoom)
        motion = Motion.draw(rng, 0.3)  # one for the clip: the motion between its frames is real
        return [view.sample(image, (mask > 0).to(torch.uint8), motion, self.size) for image, mask in pairs]

    def _one_object(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A still image and one of its objects, as id 1."""
        image, mask = self.static[int(rng.integers(len(self.static)))]
        ids = mask.unique()
        ids = ids[ids > 0]
        chosen = ids[rng.integers(len(ids))] if len(ids) else 1
        return image, (mask == chosen).to(torch.uint8)

    def _paste(
        self,
        clip: list[tuple[Tensor, Tensor]],
        rng: np.random.Generator,
        thing: tuple[Tensor, Tensor],
        id: int,
    ) -> list[tuple[Tensor, Tensor]]:
        """A thing, the picture and mask of it, on top of a clip, in motion, with this id."""
        image, mask = thing
        if not mask.any():
            return clip
        view: View = draw_object_view(mask > 0, rng)
        strength = rng.uniform(0.3, 1.2)
        pasted = []
        for i, (frame, ids) in enumerate(clip):
            motion = Motion.draw(rng, strength) if i else Motion.still()
            seen, place = view.sample(image, mask, motion, self.size)
            on_top = place > 0
            pasted.append((torch.where(on_top, seen, frame), torch.where(on_top, id, ids).to(torch.uint8)))
        return pasted


def object_of(frame: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The object of a frame (3, S, S) in [0, 1] with ids (S, S), as a picture of bytes and its mask."""
    return (frame * 255).to(torch.uint8), (ids == 1).to(torch.uint8)
