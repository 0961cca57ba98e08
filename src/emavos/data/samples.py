"""Training samples: short clips with one or two objects, each determined by its index."""

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
from emavos.frames.preprocess import normalize, one_hot

_TRIES = 20  # then a clip is used although its objects are too small
_LEAST = 0.004  # least fraction of the first frame covered by each object


class Sample(NamedTuple):
    """A clip of T frames and O objects. In a batch, each tensor has a leading dimension B."""

    frames: Tensor  # (T, 3, S, S), normalised with the statistics of ImageNet
    masks: Tensor  # (T, O, S, S), 0 and 1
    valid: Tensor  # (O,), 1 for objects, 0 for empty planes that pad the batch


@dataclass(frozen=True)
class ClipSamples(Dataset[Sample]):
    """Endless samples from still images in artificial motion and from real clips.

    Sample i is drawn from a generator seeded with (seed, i). Samples therefore depend neither on the number
    of workers nor on stopping and resuming a run.
    """

    static: StaticImages
    clips: Clips
    count: int  # number of samples
    batch: int  # batch size; all samples of a batch have the same number of objects
    size: int = 224
    frames: int = 3
    max_gap: int = 12  # largest distance between two neighbours of a sample, in frames
    real: float = 0.5  # fraction of samples from real video
    two_objects: float = 0.35  # fraction of batches with two objects; the second object is pasted in
    occluder: float = 0.3  # fraction of single-object clips with a pasted occluder (background)
    lookalike: float = 0.0  # fraction of occluders copied from the object itself
    blur: float = 0.0  # fraction of clips with motion blur, drawn for each frame
    zoom: tuple[float, float] = (0.45, 1.0)  # range of the view's side over the picture's short side
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
        """Returns the frames (3, S, S) in [0, 1] and the ids (S, S) of a clip."""
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
        motion = Motion.draw(rng, 0.3)  # one for the whole clip, as the motion between frames is real
        return [view.sample(image, (mask > 0).to(torch.uint8), motion, self.size) for image, mask in pairs]

    def _one_object(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A still image with a mask of one of its objects, with id 1."""
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
        """Paste an object (picture and mask) over a clip, in motion and with the given id."""
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
    """The object with id 1 of a frame (3, S, S) in [0, 1], as a picture of bytes and a mask."""
    return (frame * 255).to(torch.uint8), (ids == 1).to(torch.uint8)
