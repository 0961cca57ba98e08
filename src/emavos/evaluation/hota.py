"""HOTA: how well objects are found, and how well each keeps its identity.

Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2021.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emavos.evaluation.assignment import assign

_ALPHAS = np.arange(0.05, 0.99, 0.05)  # thresholds of intersection over union
_EPS = np.finfo(np.float64).eps


@dataclass(frozen=True)
class FrameMatch:
    """The objects of one frame.

    truth, pred: (N,) and (M,), numbers of the true and the predicted tracks in the frame.
    iou: (N, M), intersection over union.
    """

    truth: NDArray[np.int64]
    pred: NDArray[np.int64]
    iou: NDArray[np.float64]


@dataclass(frozen=True)
class HotaCounts:
    """Counts of one or more videos. Each array has one value per threshold."""

    hits: NDArray[np.float64]
    misses: NDArray[np.float64]
    alarms: NDArray[np.float64]
    association: NDArray[np.float64]  # sum over hits of the association score A

    def __add__(self, other: HotaCounts) -> HotaCounts:
        return HotaCounts(
            self.hits + other.hits,
            self.misses + other.misses,
            self.alarms + other.alarms,
            self.association + other.association,
        )

    @property
    def detection(self) -> float:
        """DetA, the mean over thresholds."""
        return float(self._detection().mean())

    @property
    def value(self) -> float:
        """HOTA, the mean over thresholds."""
        return float(np.sqrt(self._detection() * self.association / np.maximum(self.hits, 1)).mean())

    def _detection(self) -> NDArray[np.float64]:
        return self.hits / np.maximum(self.hits + self.misses + self.alarms, 1)


def count_hota(frames: Sequence[FrameMatch]) -> HotaCounts:
    """The counts of one video."""
    rows, columns = (
        1 + max((int(side.max()) for side in sides if side.size), default=-1) for sides in _sides(frames)
    )
    together = np.zeros((rows, columns))  # how often tracks may be each other
    true_frames, pred_frames = np.zeros(rows), np.zeros(columns)
    for frame in frames:
        total = frame.iou.sum(1, keepdims=True) + frame.iou.sum(0, keepdims=True) - frame.iou
        together[np.ix_(frame.truth, frame.pred)] += np.divide(
            frame.iou, total, out=np.zeros_like(frame.iou), where=total > _EPS
        )
        true_frames[frame.truth] += 1
        pred_frames[frame.pred] += 1
    either = true_frames[:, None] + pred_frames[None]
    alignment = together / np.maximum(either - together, _EPS)
    hits = np.zeros((len(_ALPHAS), rows, columns))  # by threshold and pair of tracks
    misses, alarms = np.zeros(len(_ALPHAS)), np.zeros(len(_ALPHAS))
    for frame in frames:
        pairs = np.array(assign(alignment[np.ix_(frame.truth, frame.pred)] * frame.iou), np.int64).reshape(
            -1, 2
        )
        similar = frame.iou[pairs[:, 0], pairs[:, 1]]
        for place, alpha in enumerate(_ALPHAS):
            matched = pairs[similar >= alpha - _EPS]
            hits[place, frame.truth[matched[:, 0]], frame.pred[matched[:, 1]]] += 1
            misses[place] += len(frame.truth) - len(matched)
            alarms[place] += len(frame.pred) - len(matched)
    association = hits * hits / np.maximum(either[None] - hits, 1)
    return HotaCounts(hits.sum((1, 2)), misses, alarms, association.sum((1, 2)))


def _sides(frames: Sequence[FrameMatch]) -> Iterable[list[NDArray[np.int64]]]:
    yield [frame.truth for frame in frames]
    yield [frame.pred for frame in frames]
