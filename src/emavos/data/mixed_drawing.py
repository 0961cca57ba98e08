"""Draw a mixed sample from its plan. This is the definition; `device_samples` draws whole batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from emavos.data.samples import Sample
from emavos.data.transforms import Blur, Colour, Motion, View
from emavos.data.videos import Videos
from emavos.frames.preprocess import normalize, one_hot

Clip = list[tuple[Tensor, Tensor]]  # frames (3, S, S) in [0, 1] and ids (S, S) uint8


@dataclass(frozen=True)
class Paste:
    """An object pasted into all frames of a clip."""

    still: int | None  # the still image that shows the object; None: the clip's first frame does
    source_id: int  # the object's id there
    id: int  # the object's id in the sample; 0 for an occluder
    view: View
    motions: Sequence[Motion]  # T
    under: bool  # whether the other objects hide the pasted one
    soft: bool  # whether its edge is soft


@dataclass(frozen=True)
class Scene:
    """The pictures of T frames and how they are moved, before anything is pasted."""

    real: bool  # whether the pictures are frames of a clip; otherwise one still image is moved
    places: Sequence[tuple[int, int]]  # T pairs: video of `clips` or of `stills`, and frame
    view: View
    motions: Sequence[Motion]  # T
    jitters: Sequence[Colour]  # T changes of a still image's colours; none for a real clip


@dataclass(frozen=True)
class Plan:
    """All random choices of a sample of T frames."""

    objects: int
    scene: Scene
    chosen: Sequence[int]  # the ids of the pictures that become 1, 2, ...; others become 0
    pastes: Sequence[Paste]
    blurs: Sequence[Blur | None]  # T
    colour: Colour


def draw_plan(plan: Plan, stills: Videos, clips: Videos, size: int) -> Sample:
    """The sample of a plan.

    plan: choices of the sample.
    stills, clips: sets of videos that the plan's numbers refer to.
    size: side of the sample in pixels.
    """
    clip = _moved(plan.scene, clips if plan.scene.real else stills, size)
    clip = [(frame, renumbered(ids, plan.chosen)) for frame, ids in clip]
    for paste in plan.pastes:
        clip = _pasted(clip, paste, stills, size)
    frames = [
        frame if blur is None else blur(frame) for blur, (frame, _) in zip(plan.blurs, clip, strict=True)
    ]
    masks = torch.stack([one_hot(ids, range(1, plan.objects + 1)) for _, ids in clip])
    frames = [plan.colour(frame) for frame in frames]
    return Sample(normalize(torch.stack(frames)), masks, masks.new_ones(plan.objects))


def _moved(scene: Scene, videos: Videos, size: int) -> Clip:
    """The frames before anything is pasted."""
    pairs = {place: videos.load(*place) for place in scene.places}  # each loaded once
    clip = [
        scene.view.sample(*pairs[place], motion, size)
        for place, motion in zip(scene.places, scene.motions, strict=True)
    ]
    if not scene.jitters:
        return clip
    return [(jitter(frame), ids) for jitter, (frame, ids) in zip(scene.jitters, clip, strict=True)]


def _pasted(clip: Clip, paste: Paste, stills: Videos, size: int) -> Clip:
    if paste.still is None:
        image, mask = (clip[0][0] * 255).to(torch.uint8), clip[0][1]
    else:
        image, mask = stills.load(paste.still, 0)
    thing = (mask == paste.source_id).to(torch.uint8)
    pasted = []
    for (frame, ids), motion in zip(clip, paste.motions, strict=True):
        seen, place = paste.view.sample(image, thing, motion, size)
        shown = shown_pixels(place, ids, paste.under)
        alpha = _softened(shown) if paste.soft else shown.float()
        pasted.append((torch.lerp(frame, seen, alpha), pasted_ids(ids, shown, paste.id)))
    return pasted


def renumbered(ids: Tensor, chosen: Sequence[int]) -> Tensor:
    """The chosen ids of a mask (S, S) renumbered 1, 2, ...; all other ids become background."""
    out = torch.zeros_like(ids)
    for number, id in enumerate(chosen, 1):
        out[ids == id] = number
    return out


def shown_pixels(place: Tensor, ids: Tensor, under: bool) -> Tensor:
    """The pixels (S, S) of bool that a pasted object covers.

    place: (S, S), 0 outside the object.
    ids: (S, S), the other objects.
    under: whether the other objects hide it.
    """
    return (place > 0) & (ids == 0) if under else place > 0


def pasted_ids(ids: Tensor, shown: Tensor, id: int) -> Tensor:
    """ids (S, S) uint8 with `id` at the shown pixels."""
    return torch.where(shown, id, ids).to(torch.uint8)


def _softened(shown: Tensor) -> Tensor:
    """A mask (S, S) of bool with a soft edge three pixels wide, as in camera pictures: (S, S) in [0, 1]."""
    return functional.avg_pool2d(shown[None].float(), 3, stride=1, padding=1, count_include_pad=False)[0]
