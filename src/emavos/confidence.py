"""How sure a mask is: what can be told of it from its own probabilities, and how it changed since one was given.

The network says for each pixel how probable an object is there. Where those inside the mask are high and those
outside are low the mask is mostly right; where they blur into each other it is mostly not. A small logistic
regression, whose weights are in `emavos.calibration`, makes of this the J that the mask can be expected to have.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emavos.calibration import ABSENT, PRESENT


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


@dataclass(frozen=True)
class Trace:
    """What is remembered of an object from frame to frame; areas are in pixels at working size."""

    given: float  # the area of its last given mask
    edge: float  # the share of its outline that was the border of the frame when it was last seen


def observe(
    prob: Tensor, ids: Sequence[int], given: Collection[int], traces: Mapping[int, Trace]
) -> tuple[tuple[float, ...], dict[int, Trace]]:
    """Of each object its confidence, and its trace with this frame in it.

    prob: (1 + O, H, W), background first, then in the order of ids. given: the objects whose masks on this
    frame were given. traces: of the frames before.
    """
    if not ids:
        return (), {}
    winner = prob.argmax(dim=0)
    confidences, left = [], {}
    for plane, id in enumerate(ids, 1):
        area, agreement, highest, edge = signs_of(prob[plane], winner == plane)
        trace = traces.get(id)
        if id in given or trace is None:
            # an object that was said to be absent is as surely gone as one that left across the border
            left[id] = Trace(area, edge if area else 1.0)
            confidences.append(1.0)
            continue
        left[id] = Trace(trace.given, edge) if area else trace
        signs = present_signs(agreement, area, trace.given) if area else absent_signs(highest, trace.edge)
        weights = PRESENT if area else ABSENT
        confidences.append(_sigmoid(sum(w * x for w, x in zip(weights, signs, strict=True))))
    return tuple(confidences), left


def present_signs(agreement: float, area: float, given: float) -> tuple[float, float, float]:
    """What the confidence of a mask is made of.

    agreement: the log-odds of it count, so that 0.9 and 0.99 differ as 0.5 and 0.9 do. area, given: a mask that
    has shrunk or grown since one was given is less sure.
    """
    ratio = math.log((area + 1) / (given + 1))
    return 1.0, _logit(agreement), min(abs(ratio), 3.0)


def absent_signs(highest: float, edge: float) -> tuple[float, float, float]:
    """What the confidence of an absence is made of: an object that fades amid the frame is rather lost than gone.

    highest: the probability where the object is most probable. edge: see `Trace`.
    """
    return 1.0, _logit(highest), edge


def signs_of(prob: Tensor, mask: Tensor) -> tuple[float, float, float, float]:
    """Of an object: its area, agreement, highest probability and share of the border.

    prob: (H, W), its own. mask: bool (H, W). The agreement is the intersection over union of the mask and the
    probability, where the union counts the mask whole and the probability outside it.
    """
    area = mask.sum()
    inside = (prob * mask).sum()
    agreement = inside / (area + prob.sum() - inside).clamp(min=1e-6)
    inner = (mask[1:] ^ mask[:-1]).sum() + (mask[:, 1:] ^ mask[:, :-1]).sum()
    border = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    edge = border / (inner + border).clamp(min=1)
    values: list[float] = torch.stack([area, agreement, prob.max(), edge]).tolist()  # one wait for the device
    return values[0], values[1], values[2], values[3]


def _logit(p: float) -> float:
    p = min(max(p, 1e-3), 1 - 1e-3)
    return math.log(p / (1 - p))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
