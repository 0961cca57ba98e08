"""Match the detections of a frame with tracked objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emavos.annotations.outlines import box_of
from emavos.bridges.first import planes_of
from emavos.evaluation.assignment import assign, iou_of_boxes
from emavos.io import IdMask


@dataclass(frozen=True)
class Matches:
    """Matched detections and objects of a frame.

    pairs: {number of a detection, from 0: id of its object}.
    iou: intersection over union of each pair, by the number of the detection.
    new: detections without an object.
    lost: ids of visible objects without a detection.
    """

    pairs: dict[int, int]
    iou: dict[int, float]
    new: tuple[int, ...]
    lost: tuple[int, ...]


def match(result: Any, detections: Any, least: float = 0.5) -> Matches:
    """Match the detections of a frame with its tracked objects.

    result: a `Result`, or a mask (H, W) of ids.
    detections: as for `first_mask`: binary masks (N, H, W), supervision's `Detections`, runs or polygons; or
        boxes (N, 4) of x, y, x, y in pixels, compared with the boxes of the objects.
    least: smallest intersection over union for a match, in (0, 1].

    Each detection matches at most one object, so that the sum of intersections over unions is largest. Raises
    ValueError if detections have another form or size, or `least` is out of range.
    """
    if not isinstance(least, (int, float)) or not 0 < least <= 1:
        raise ValueError(f"least is an intersection over union in (0, 1], not {least!r:.40}")
    mask: IdMask = np.asarray(result.mask if hasattr(result, "mask") else result)
    if mask.ndim != 2 or mask.dtype.kind not in "iu":
        raise ValueError(f"a mask is (H, W) of integers, not {mask.shape} of {mask.dtype}")
    ids = [int(id) for id in np.unique(mask) if id]
    boxes = _boxes(detections)
    if getattr(detections, "mask", None) is not None:  # of supervision
        detections = detections.mask
    if boxes is not None:
        iou = iou_of_boxes(boxes, np.array([box_of(mask == id) for id in ids]).reshape(-1, 4))
    else:
        iou = _iou_of_planes(planes_of(detections, (mask.shape[0], mask.shape[1])), mask, ids)
    pairs = {
        row: column for row, column in assign(np.where(iou >= least, iou, 0)) if iou[row, column] >= least
    }
    return Matches(
        {row: ids[column] for row, column in pairs.items()},
        {row: float(iou[row, column]) for row, column in pairs.items()},
        tuple(row for row in range(len(iou)) if row not in pairs),
        tuple(id for column, id in enumerate(ids) if column not in {*pairs.values()}),
    )


def _iou_of_planes(
    planes: Sequence[NDArray[np.bool_]], mask: IdMask, ids: Sequence[int]
) -> NDArray[np.float64]:
    areas = np.array([(mask == id).sum() for id in ids], dtype=np.float64)
    iou = np.zeros((len(planes), len(ids)))
    for row, plane in enumerate(planes):
        inside = mask[plane]
        both = np.array([(inside == id).sum() for id in ids], dtype=np.float64)
        iou[row] = both / (areas + plane.sum() - both)
    return iou


def _boxes(detections: Any) -> NDArray[np.float64] | None:
    """Boxes (N, 4), if the detections are boxes without masks; otherwise None."""
    if hasattr(detections, "xyxy"):  # of supervision
        if getattr(detections, "mask", None) is not None:
            return None
        detections = detections.xyxy
    array = detections.detach().cpu().numpy() if hasattr(detections, "detach") else detections
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind == "b":
        return None
    boxes = array.astype(np.float64)
    if not np.isfinite(boxes).all() or (boxes[:, 2:] <= boxes[:, :2]).any():
        raise ValueError("boxes are (N, 4) of x, y, x, y, the second corner right of and below the first")
    return boxes
