"""Confidence of a mask, estimated from its own probabilities and from the object's last position.

The network returns a probability per pixel and object. If the probabilities are high inside the mask and low
outside, the mask is mostly right; if they blur into each other, the mask is mostly wrong. A logistic
regression with the weights in `emavos.confidence.calibration` turns the agreement into the expected J of the
mask.

An object without a mask has probably left if it was last seen at the border of the frame. Otherwise, or if
the network still sees a trace of the object, the tracker has probably lost it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from emavos.confidence.calibration import ABSENT, PRESENT

_FADES = 0.9  # per frame: decay of the memory that an object touched the border


@dataclass(frozen=True)
class ObjectState:
    """State of one object in a result.

    present: whether the object has any pixel of the mask.
    confidence: in [0, 1], the expected J (intersection over union) of the mask. For an absent object, the
        probability that the object is really absent. 1 on frames with a user's mask of the object.
    area: pixels of the object in the mask.
    """

    present: bool
    confidence: float
    area: int


class Sureness(NamedTuple):
    """How sure the masks of a frame are.

    confidences: in the order of the ids.
    edges: {id: share of the outline last seen at the frame's border}.
    """

    confidences: tuple[float, ...] = ()
    edges: Mapping[int, float] = MappingProxyType({})


def observe(prob: Tensor, ids: Sequence[int], given: Collection[int], edges: Mapping[int, float]) -> Sureness:
    """How sure the masks of a frame are.

    prob: (1 + O, H, W), background first, then in the order of ids.
    ids: of the objects.
    given: ids of the objects with a user's mask on this frame.
    edges: {id: share of the outline}, as returned for the previous frame.
    """
    if not ids:
        return Sureness()
    winner = prob.max(dim=0).indices  # argmax takes twenty times as long
    signs = [signs_of(prob[plane], winner == plane) for plane in range(1, 1 + len(ids))]
    confidences, seen = [], {}
    for id, (area, agreement, edge, trace) in zip(ids, torch.stack(signs).tolist(), strict=True):  # one sync
        before = edges.get(id, 0.0)
        if id in given:
            # objects that the user marks as absent count as having left across the border
            seen[id] = edge if area else 1.0
            confidences.append(1.0)
            continue
        seen[id] = max(edge, _FADES * before) if area else before
        weights = PRESENT if area else ABSENT
        own = present_signs(agreement) if area else absent_signs(before, trace)
        confidences.append(_sigmoid(sum(w * x for w, x in zip(weights, own, strict=True))))
    return Sureness(tuple(confidences), seen)


def signs(prob: Tensor, ids: Sequence[int], edges: Mapping[int, float]) -> dict[int, tuple[float, ...]]:
    """The features behind the confidence of each object without a user's mask: {id: features}.

    Takes the arguments of `observe`. `emavos.confidence.calibration` has one weight per feature.
    """
    if not ids:
        return {}
    winner = prob.max(dim=0).indices
    rows = torch.stack([signs_of(prob[plane], winner == plane) for plane in range(1, 1 + len(ids))]).tolist()
    return {
        id: present_signs(agreement) if area else absent_signs(edges.get(id, 0.0), trace)
        for id, (area, agreement, _, trace) in zip(ids, rows, strict=True)
    }


def present_signs(agreement: float) -> tuple[float, float]:
    """Features of a visible mask. Log-odds, because 0.9 and 0.99 differ as much as 0.5 and 0.9."""
    return 1.0, _logit(agreement)


def absent_signs(edge: float, trace: float) -> tuple[float, float, float]:
    """Features of an absent object. Both arguments saturate at a tenth.

    edge: share of the outline at the border, as `observe` returned it for the previous frame.
    trace: the highest probability of the object.
    """
    return 1.0, min(10 * edge, 1.0), min(10 * trace, 1.0)


def signs_of(prob: Tensor, mask: Tensor) -> Tensor:
    """Four features of one object: area, agreement, share of outline at the border, top probability. (4,)

    The agreement is the intersection over union of the mask and the probability. The union counts the mask in
    full, plus the probability outside the mask.

    prob: (H, W), the probability of the object.
    mask: bool (H, W).
    """
    plane = mask.to(prob.dtype)  # summing floats takes a tenth of the time of summing bool
    area = plane.sum()
    inside = torch.dot(prob.flatten(), plane.flatten())
    agreement = inside / (area + prob.sum() - inside).clamp(min=1e-6)
    inner = plane.diff(dim=0).abs().sum() + plane.diff(dim=1).abs().sum()
    border = plane[0].sum() + plane[-1].sum() + plane[:, 0].sum() + plane[:, -1].sum()
    edge = border / (inner + border).clamp(min=1)
    return torch.stack([area, agreement, edge, prob.max()])


def _logit(p: float) -> float:
    p = min(max(p, 1e-3), 1 - 1e-3)
    return math.log(p / (1 - p))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
