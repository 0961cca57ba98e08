"""Removes specks from masks: small islands of objects, and small holes in objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


def clean_mask(mask: NDArray[Any], area: int) -> NDArray[Any]:
    """The mask (H, W) of ids without islands and holes smaller than `area`.

    An island is a part of an object that touches no other part of the object, not even at a corner. Small
    islands become background, but the largest part of each object always stays. A hole is a part of the
    background enclosed by a single object. Small holes become part of the object.

    mask: (H, W) of integer ids, 0 for the background.
    area: in pixels. Parts with at least this area stay.

    Raises ValueError unless the mask is (H, W) of integers and area is an integer of at least 0.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "iu":
        raise ValueError(f"a mask is (H, W) of integers, not {mask.shape} of {mask.dtype}")
    if isinstance(area, bool) or not isinstance(area, (int, np.integer)) or area < 0:
        raise ValueError(f"area is a whole number of pixels from 0, not {area!r:.40}")
    if area < 2 or not mask.size:
        return mask.copy()
    parts = _parts_of(mask)
    largest: dict[int, int] = {}
    for part, (value, size) in enumerate(zip(parts.values.tolist(), parts.areas.tolist(), strict=True)):
        if value and size > parts.areas[largest.setdefault(value, part)]:
            largest[value] = part
    small = (parts.areas < area) & (parts.values != 0)
    small[[*largest.values()]] = False
    cleaned = np.where(small[parts.labels], 0, mask).astype(mask.dtype)
    return _filled(cleaned, area)


def _filled(mask: NDArray[Any], area: int) -> NDArray[Any]:
    """The mask with small holes filled."""
    parts = _parts_of(mask)
    hole = (parts.areas < area) & (parts.values == 0)
    edges = (parts.labels[0], parts.labels[-1], parts.labels[:, 0], parts.labels[:, -1])
    hole[np.concatenate(edges)] = False
    if not hole.any():
        return mask
    low = np.full(len(hole), np.iinfo(np.int64).max)
    high = np.full(len(hole), np.iinfo(np.int64).min)
    for place, beside in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[:-1], np.s_[1:]),
        (np.s_[1:], np.s_[:-1]),
    ):
        labels, others = parts.labels[place], parts.labels[beside]
        at = hole[labels] & (labels != others)
        np.minimum.at(low, labels[at], mask[beside][at].astype(np.int64))
        np.maximum.at(high, labels[at], mask[beside][at].astype(np.int64))
    filled = np.where(hole & (low == high), low, 0)[parts.labels]
    return np.where(filled != 0, filled, mask).astype(mask.dtype)


@dataclass(frozen=True)
class _Parts:
    """Connected parts of equal id: the label (H, W) of each pixel, and id and area of each label."""

    labels: NDArray[np.int64]
    values: NDArray[Any]
    areas: NDArray[np.int64]


def _parts_of(mask: NDArray[Any]) -> _Parts:
    """Connected parts of a mask. Parts of objects also connect at corners; parts of the background do not.

    Runs of equal ids in a row are joined with the touching runs of the row above.
    """
    height, width = mask.shape
    begins = np.ones(mask.shape, bool)
    begins[:, 1:] = mask[:, 1:] != mask[:, :-1]
    starts = np.flatnonzero(begins.ravel())
    ends = np.append(starts[1:], mask.size)
    values = mask.ravel()[starts]
    left, right = (starts % width).tolist(), ((ends - 1) % width + 1).tolist()
    ids, first = values.tolist(), np.searchsorted(starts, np.arange(height + 1) * width).tolist()
    parents = list(range(len(starts)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    def join(one: int, other: int) -> None:
        one, other = root(one), root(other)
        parents[max(one, other)] = min(one, other)

    for row in range(1, height):
        above, below = first[row - 1], first[row]
        while above < first[row] and below < first[row + 1]:
            if ids[above] == ids[below]:
                corner = 1 if ids[above] else 0
                if left[above] < right[below] + corner and left[below] < right[above] + corner:
                    join(above, below)
            if right[above] < right[below]:
                above += 1
            elif right[above] > right[below]:
                below += 1
            else:  # both end here, and the next run of either row touches the other's by a corner
                for one, other in ((above + 1, below), (above, below + 1)):
                    if one < first[row] and other < first[row + 1] and ids[one] == ids[other] != 0:
                        join(one, other)
                above, below = above + 1, below + 1
    roots, labels = np.unique([root(run) for run in range(len(starts))], return_inverse=True)
    lengths = ends - starts
    areas = np.bincount(labels, weights=lengths).astype(np.int64)
    return _Parts(np.repeat(labels, lengths).reshape(mask.shape), values[roots], areas)
