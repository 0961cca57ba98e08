"""Probabilities where the masks of some objects are given, or objects are removed."""

from __future__ import annotations

import torch
from torch import Tensor


def overwrite(prob: Tensor, ids: tuple[int, ...], known: tuple[int, ...], planes: Tensor) -> Tensor:
    """prob (1 + O, H, W) with the known objects as their planes (G, H, W), taken from the others.

    ids: of all objects, in order. Those that are new come last and have no plane in prob.
    """
    followed = ids[: len(prob) - 1]
    if corrected := [1 + followed.index(id) for id in known if id in followed]:
        prob = _divided_among_the_rest(prob, corrected)
    free = 1 - planes.sum(dim=0)
    objects = dict(zip(ids, prob[1:] * free, strict=False)) | dict(zip(known, planes, strict=True))
    stacked = torch.stack([objects[id] for id in ids])
    return torch.cat([prob[:1] * free, stacked])  # nobody but the known changes outside their planes


def without(prob: Tensor, left: list[int]) -> Tensor:
    """prob (1 + O, H, W) of the objects that are left, by their places; what the others had is background."""
    objects = prob[1:][left]
    background = (1 - objects.sum(dim=0, keepdim=True)).clamp(min=0)  # sums are rounded
    return torch.cat([background, objects])


def _divided_among_the_rest(prob: Tensor, planes: list[int]) -> Tensor:
    """prob (1 + O, H, W) with nothing in these planes; the others keep their proportion at every pixel."""
    prob = prob.clone()
    prob[planes] = 0
    prob[0] += prob.sum(dim=0) < 1e-6
    return prob / prob.sum(dim=0)
