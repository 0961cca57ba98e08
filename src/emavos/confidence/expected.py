"""How sure a mask is: what can be told of it from its own probabilities, and from where it was last seen.

The network says for each pixel how probable an object is there. Where those inside the mask are high and
those outside are low the mask is mostly right; where they blur into each other it is mostly not. A logistic
regression, whose weights are in `emavos.confidence.calibration`, makes of this the J that the mask can be
expected to have. An object without a mask is rather gone where it was last seen at the border of the frame,
and rather lost where it was not, or where the network still sees a trace of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emavos.confidence.calibration import ABSENT, PRESENT

_FADES = 0.9  # per frame: how much of having been at the border counts a frame later


@dataclass(frozen=True)
class ObjectState:
    """What a result says of an object.

    present: whether the object has any pixel of the mask.
    confidence: in [0, 1], the J (intersection over union) that its mask can be expected to have; of an object
        that is absent, how sure that is. 1 on frames where its mask was given.
    area: its pixels in the mask.
    """

    present: bool
    confidence: float
    area: int


def observe(
    prob: Tensor, ids: Sequence[int], given: Collection[int], edges: Mapping[int, float]
) -> tuple[tuple[float, ...], dict[int, float]]:
    """Of each object its confidence, and how much of it was last seen at the border of the frame.

    prob: (1 + O, H, W), background first, then in the order of ids. given: the objects whose masks on this
    frame were given. edges: what this returned for the frame before, {id: share of the outline}.
    """
    if not ids:
        return (), {}
    winner = prob.max(dim=0).indices  # argmax takes twenty times as long
    signs = [signs_of(prob[plane], winner == plane) for plane in range(1, 1 + len(ids))]
    confidences, seen = [], {}
    for id, (area, agreement, edge, trace) in zip(ids, torch.stack(signs).tolist(), strict=True):  # one wait
        before = edges.get(id, 0.0)
        if id in given:
            # an object that was said to be absent is as surely gone as one that left across the border
            seen[id] = edge if area else 1.0
            confidences.append(1.0)
            continue
        seen[id] = max(edge, _FADES * before) if area else before
        weights = PRESENT if area else ABSENT
        own = present_signs(agreement) if area else absent_signs(before, trace)
        confidences.append(_sigmoid(sum(w * x for w, x in zip(weights, own, strict=True))))
    return tuple(confidences), seen


def signs(prob: Tensor, ids: Sequence[int], edges: Mapping[int, float]) -> dict[int, tuple[float, ...]]:
    """What the confidence of each object is computed from when its mask is not given: {id: signs}.

    Arguments as for `observe`. These are the signs that `emavos.confidence.calibration` has weights for.
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
    """What the confidence of a mask is made of: log-odds, in which 0.9 and 0.99 differ as 0.5 and 0.9 do."""
    return 1.0, _logit(agreement)


def absent_signs(edge: float, trace: float) -> tuple[float, float, float]:
    """What the confidence of an absence is made of; a tenth of either counts in full.

    edge: what `observe` returned for the frame before. trace: the highest probability of the object.
    """
    return 1.0, min(10 * edge, 1.0), min(10 * trace, 1.0)


def signs_of(prob: Tensor, mask: Tensor) -> Tensor:
    """Of an object: area, agreement, share of its outline at the frame's border, highest probability. (4,)

    prob: (H, W), its own. mask: bool (H, W). The agreement is the intersection over union of the mask and the
    probability, where the union counts the mask whole and the probability outside it.
    """
    plane = mask.to(prob.dtype)  # sums of numbers take a tenth of what those of bool take
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
