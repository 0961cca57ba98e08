"""Compare boxes, and assign rows to columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def assign(gain: NDArray[np.float64]) -> list[tuple[int, int]]:
    """The pairs (row, column) with the largest sum of gains, each row and column used at most once.

    gain: (N, M), at least 0.

    Uses the Hungarian method with potentials, O(N^2 M) for N <= M.
    """
    if gain.shape[0] > gain.shape[1]:
        return sorted((row, column) for column, row in assign(gain.T))
    rows, columns = gain.shape
    cost = np.zeros((rows + 1, columns + 1))
    cost[1:, 1:] = -gain
    u, v = np.zeros(rows + 1), np.zeros(columns + 1)  # potentials of rows and columns
    row_of, way = np.zeros(columns + 1, np.int64), np.zeros(columns + 1, np.int64)  # 0: none
    for row in range(1, rows + 1):
        row_of[0], column = row, 0
        least, done = np.full(columns + 1, np.inf), np.zeros(columns + 1, bool)
        while row_of[column]:
            done[column] = True
            here = row_of[column]
            reduced = cost[here] - u[here] - v
            better = ~done & (reduced < least)
            better[0] = False
            least[better], way[better] = reduced[better], column
            open_ = np.where(done, np.inf, least)
            open_[0] = np.inf
            nearest = int(open_.argmin())
            step = open_[nearest]
            np.add.at(u, row_of[done], step)
            v[done] -= step
            least[~done] -= step
            column = nearest
        while column:
            row_of[column] = row_of[way[column]]
            column = int(way[column])
    return sorted((int(row_of[column]) - 1, column - 1) for column in range(1, columns + 1) if row_of[column])


def iou_of_boxes(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union of boxes (N, 4) and (M, 4) of x, y, x, y: (N, M)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = (high - low).clip(min=0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    iou: NDArray[np.float64] = both / (areas[0][:, None] + areas[1][None] - both)
    return iou
