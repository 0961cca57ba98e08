"""The two DAVIS metrics J and F, and the statistics DAVIS reports for each.

J and F are from Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation", CVPR 2016. F compares outlines as Martin, Fowlkes and Malik did in "Learning to Detect Natural
Image Boundaries", PAMI 2004, but with a tolerance instead of a matching of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

BoolMask: TypeAlias = NDArray[np.bool_]  # (H, W)


def region_similarity(pred: BoolMask, truth: BoolMask, void: BoolMask | None = None) -> float:
    """J of DAVIS: intersection over union of two masks, in [0, 1]; J = 1 if both masks are empty.

    pred: bool (H, W), the predicted mask.
    truth: bool (H, W), the ground truth.
    void: bool (H, W), pixels to ignore.
    """
    pred, truth = _without_void(pred, truth, void)
    union = np.count_nonzero(pred | truth)
    return float(np.count_nonzero(pred & truth) / union) if union else 1.0


def smoothed_similarity(pred: BoolMask, truth: BoolMask) -> float:
    """J of MOSEv2: intersection over union with one pixel added to both, in [0, 1].

    pred: bool (H, W), the predicted mask.
    truth: bool (H, W), the ground truth.
    """
    pred, truth = _without_void(pred, truth, None)
    return float((np.count_nonzero(pred & truth) + 1) / (np.count_nonzero(pred | truth) + 1))


def adaptive_tolerance(truth: BoolMask) -> float:
    """The tolerance of F in MOSEv2, in pixels: a tenth of the side of a square as large as the object.

    truth: bool (H, W), the ground truth.

    At least one pixel, and at most 0.8 % of the image diagonal, the tolerance of DAVIS. An absent object has
    that of DAVIS.
    """
    largest = max(0.008 * math.hypot(*truth.shape), 1.0)
    area = np.count_nonzero(truth)
    return min(largest, math.ceil(0.1 * math.sqrt(area))) if area else largest


def boundary_accuracy(
    pred: BoolMask, truth: BoolMask, tolerance: float = 0.008, void: BoolMask | None = None
) -> float:
    """F of DAVIS: how well the outlines of two masks agree, in [0, 1]; F = 1 if neither mask has an outline.

    An outline pixel is correct if the other outline passes within the tolerance. F is the harmonic mean of
    precision (the correct share of `pred`) and recall (the correct share of `truth`). The border of the frame
    is not an outline, so neither an empty nor a full mask has one.

    pred: bool (H, W), the predicted mask.
    truth: bool (H, W), the ground truth.
    tolerance: below 1, a fraction of the image diagonal, rounded up to whole pixels; from 1, a number of
        pixels.
    void: bool (H, W), pixels to remove from both masks.
    """
    pred, truth = _without_void(pred, truth, void)
    radius = _radius(tolerance, truth.shape)
    box = _box_with_outlines(pred | truth)
    pred_edge, truth_edge = boundary(pred[box]), boundary(truth[box])
    pred_pixels, truth_pixels = np.count_nonzero(pred_edge), np.count_nonzero(truth_edge)
    if not pred_pixels or not truth_pixels:
        return float(pred_pixels == truth_pixels)
    precision = np.count_nonzero(pred_edge & dilate(truth_edge, radius)) / pred_pixels
    recall = np.count_nonzero(truth_edge & dilate(pred_edge, radius)) / truth_pixels
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


@dataclass(frozen=True)
class Statistics:
    """The statistics DAVIS reports for J and for F."""

    mean: float
    recall: float  # fraction of the frames above 0.5
    decay: float  # mean of the first quarter minus mean of the last: the loss over time


def statistics(series: Sequence[float] | NDArray[np.float64]) -> Statistics:
    """Mean, recall and decay of one object's J or F over time.

    series: one value per frame. NaN marks a frame without a score: the frame keeps its place in time but is
        not counted.

    The quarters of the decay share their border frame, so a single frame is enough and has decay 0. The
    statistics are NaN if no frame counts, as in an empty series.

    The official code numbers frames in 8 bits, so its decay is NaN from 256 frames on; this function has no
    such limit.
    """
    values = np.asarray(series, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"series has shape {values.shape}; pass the values of one object, one per frame")
    last = len(values) - 1
    first_end, last_start = (last + 2) // 4, (3 * last + 2) // 4  # 1/4 and 3/4 of the way, rounded
    scored = values[~np.isnan(values)]
    return Statistics(
        mean=_mean(scored),
        recall=_mean(scored > 0.5),
        decay=_mean(values[: first_end + 1]) - _mean(values[last_start:]),
    )


def boundary(mask: BoolMask) -> BoolMask:
    """The pixels of a mask (H, W) that differ from their right, lower or lower right neighbour."""
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    edge[:-1] |= mask[:-1] ^ mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def dilate(mask: BoolMask, radius: float) -> BoolMask:
    """The pixels within `radius` of any set pixel of a mask (H, W)."""
    height, width = mask.shape
    gap = math.floor(radius)
    stride = width + gap  # empty space after each line, so that the shifts below never reach the next line
    source = np.pad(mask, ((0, 0), (0, gap))).ravel()
    grown = np.zeros_like(source)
    # A disk is a stack of chords. Each set pixel becomes a chord that widens from the disk's pole to its
    # middle.
    chord, reach = source.copy(), 0
    for dy in range(min(gap, height - 1), -1, -1):
        while (reach + 1) ** 2 + dy**2 <= radius**2:
            reach += 1
            chord[reach:] |= source[:-reach]
            chord[:-reach] |= source[reach:]
        shift = dy * stride
        grown[shift:] |= chord[: chord.size - shift]
        grown[: chord.size - shift] |= chord[shift:]
    return grown.reshape(height, stride)[:, :width]


def _without_void(pred: BoolMask, truth: BoolMask, void: BoolMask | None) -> tuple[BoolMask, BoolMask]:
    masks = {"truth": truth, "pred": pred} | ({} if void is None else {"void": void})
    for name, mask in masks.items():
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            kind = getattr(mask, "dtype", type(mask).__name__)
            raise ValueError(f"{name} is {kind}; pass a boolean numpy array, such as `ids == 1`")
        if mask.ndim != 2:
            raise ValueError(f"{name} has shape {mask.shape}; pass one mask (H, W)")
        if mask.shape != truth.shape:
            have, want = ("{}x{}".format(*shape) for shape in (mask.shape, truth.shape))
            raise ValueError(f"{name} is {have} but truth is {want}; resize one of them")
    return (pred, truth) if void is None else (pred & ~void, truth & ~void)


def _radius(tolerance: float, shape: tuple[int, ...]) -> float:
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance}; pass a share of the diagonal (below 1) or pixels")
    height, width = shape
    return tolerance if tolerance >= 1 else math.ceil(tolerance * math.sqrt(height**2 + width**2))


def _box_with_outlines(mask: BoolMask) -> tuple[slice, slice]:
    """The bounding box of a mask plus one pixel on each side, wide enough to keep all outlines."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return slice(0), slice(0)
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _mean(values: NDArray[np.float64] | BoolMask) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else math.nan
