"""Plans of mixed samples as a few tensors, small enough to send from a process to a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from emavos.data.mixed_drawing import Plan
from emavos.data.transforms import Colour, Motion, View


class Views(NamedTuple):
    """T views of each of n pictures."""

    centre: Tensor  # (n, 2), in pixels of the picture
    half: Tensor  # (n, 2), negative in x if the view is mirrored
    matrix: Tensor  # (n, T, 2, 3)
    warp: Tensor  # (n, T, 2, 4, 4)
    reductions: list[int]  # n, see `View.reduction`


class Layer(NamedTuple):
    """One pasted object in each of n clips of a batch."""

    clips: list[int]  # n indices of clips
    stills: list[int | None]  # n, see `Paste` for the rest
    source_ids: list[int]
    ids: list[int]
    under: list[bool]
    soft: list[bool]
    views: Views


class StackedPlans(NamedTuple):
    """Plans of B samples of T frames and O objects."""

    objects: int
    real: list[int]  # indices of the clips of real video
    real_places: list[tuple[int, int]]  # T for each of them
    real_views: Views  # of each place one view
    still: list[int]  # indices of the other clips
    still_places: list[tuple[int, int]]
    still_views: Views
    jitters: Tensor  # (clips of stills, T, 6), see `colour_row`
    numbers: Tensor  # (B, 256) uint8, the id in the sample of each id in the picture
    layers: list[Layer]
    blurred: list[int]  # m indices of frames, of B * T
    kernels: Tensor  # (m, n, n)
    colours: Tensor  # (B, 1, 6)


def stack_plans(plans: Sequence[Plan], size: int) -> StackedPlans:
    """Plans with equal numbers of frames and objects, for `draw_plans`.

    plans: plans of a batch.
    size: side of the samples in pixels.
    """
    scenes = [plan.scene for plan in plans]
    real = [i for i, scene in enumerate(scenes) if scene.real]
    still = [i for i, scene in enumerate(scenes) if not scene.real]
    # the frames of a clip are different pictures; a still image is one picture, moved
    each = [(scenes[i].view, [motion]) for i in real for motion in scenes[i].motions]
    moved = [(scenes[i].view, scenes[i].motions) for i in still]
    blurs = [blur for plan in plans for blur in plan.blurs]
    kernels = [blur.kernel for blur in blurs if blur is not None]
    return StackedPlans(
        plans[0].objects,
        real,
        [place for i in real for place in scenes[i].places],
        _views(each, size),
        still,
        [scenes[i].places[0] for i in still],
        _views(moved, size),
        _tensor([[colour_row(jitter) for jitter in scenes[i].jitters] for i in still]),
        torch.stack([_numbers(plan.chosen) for plan in plans]),
        [_layer(plans, level, size) for level in range(max(len(plan.pastes) for plan in plans))],
        [i for i, blur in enumerate(blurs) if blur is not None],
        torch.stack(kernels) if kernels else _tensor([]),
        _tensor([[colour_row(plan.colour)] for plan in plans]),
    )


def colour_row(colour: Colour) -> list[float]:
    """A change of colours as numbers: brightness, contrast, saturation, and a cast of three."""
    return [colour.brightness, colour.contrast, colour.saturation, *colour.cast.flatten().tolist()]


def _views(views: Sequence[tuple[View, Sequence[Motion]]], size: int) -> Views:
    return Views(
        _tensor([view.centre for view, _ in views]),
        _tensor([(-view.half[0] if view.mirrored else view.half[0], view.half[1]) for view, _ in views]),
        _stack([motion.matrix for _, motions in views for motion in motions], len(views)),
        _stack([motion.warp for _, motions in views for motion in motions], len(views)),
        [view.reduction(size) for view, _ in views],
    )


def _layer(plans: Sequence[Plan], level: int, size: int) -> Layer:
    """The object number `level` of each plan with so many objects to paste."""
    clips = [i for i, plan in enumerate(plans) if len(plan.pastes) > level]
    pastes = [plans[i].pastes[level] for i in clips]
    return Layer(
        clips,
        [paste.still for paste in pastes],
        [paste.source_id for paste in pastes],
        [paste.id for paste in pastes],
        [paste.under for paste in pastes],
        [paste.soft for paste in pastes],
        _views([(paste.view, paste.motions) for paste in pastes], size),
    )


def _numbers(chosen: Sequence[int]) -> Tensor:
    """The new number (256,) of each id: 1, 2, ... for the chosen ids, 0 for others."""
    numbers = torch.zeros(256, dtype=torch.uint8, device="cpu")
    for number, id in enumerate(chosen, 1):
        numbers[id] = number
    return numbers


def _stack(parts: Sequence[Tensor], count: int) -> Tensor:
    """Tensors (...) as one tensor (count, T, ...)."""
    return torch.stack(list(parts)).unflatten(0, (count, -1)) if parts else _tensor([])


def _tensor(rows: Sequence[object]) -> Tensor:
    return torch.from_numpy(np.asarray(rows, dtype=np.float32))
