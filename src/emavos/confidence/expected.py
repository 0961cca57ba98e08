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
from dataclasses import dataclass

from torch import Tensor

from emavos.confidence.calibration import ABSENT, PRESENT


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


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the masks of a frame show, for their confidences.

    Each step measures the evidence. The confidences are computed when you read them, because a GPU has to be
    waited for.

    signs: (O, 4) of each object: area, agreement of mask and probability, share of the outline at the border
        of the frame, and highest probability. See `emavos.session.frame.signs_of`.
    edges_before: (O,), the share of each outline that was last seen at the border before this frame.
    given: whether each object has a user's mask on this frame.
    """

    signs: Tensor
    edges_before: Tensor
    given: tuple[bool, ...]

    def confidences(self) -> tuple[float, ...]:
        """Expected J of each mask; 1 for a user's mask."""
        confidences = []
        rows = zip(self.signs.tolist(), self.edges_before.tolist(), self.given, strict=True)
        for signs, edge, given in rows:
            area, agreement, _, trace = signs
            weights = PRESENT if area else ABSENT
            features = present_features(agreement) if area else absent_features(edge, trace)
            expected = _sigmoid(sum(w * x for w, x in zip(weights, features, strict=True)))
            confidences.append(1.0 if given else expected)
        return tuple(confidences)


def present_features(agreement: float) -> tuple[float, float]:
    """Features of a visible mask. Log-odds, because 0.9 and 0.99 differ as much as 0.5 and 0.9."""
    return 1.0, _logit(agreement)


def absent_features(edge: float, trace: float) -> tuple[float, float, float]:
    """Features of an absent object. Both arguments saturate at a tenth.

    edge: share of the outline that was last seen at the border.
    trace: the highest probability of the object.
    """
    return 1.0, min(10 * edge, 1.0), min(10 * trace, 1.0)


def _logit(p: float) -> float:
    p = min(max(p, 1e-3), 1 - 1e-3)
    return math.log(p / (1 - p))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
