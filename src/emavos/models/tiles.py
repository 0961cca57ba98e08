"""Rectangles that cover the cells to compute, so that the other cells of a map can be skipped."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType

import numpy as np
import numpy.typing as npt

_EDGE = 3  # about how many cells the halo adds to the height and to the width of a rectangle
_START = 64  # fixed cost of one more rectangle, about this many cells; less in a large network


@dataclass(frozen=True)
class Tile:
    """A rectangle of a map, in any unit."""

    top: int
    bottom: int
    left: int
    right: int

    def scaled(self, factor: int) -> Tile:
        """The same rectangle in units that are `factor` times smaller."""
        return Tile(self.top * factor, self.bottom * factor, self.left * factor, self.right * factor)

    def grown(self, margin: int, height: int, width: int) -> Tile:
        """The rectangle with `margin` more on each side, clipped to a map of `height` x `width`."""
        return Tile(
            max(self.top - margin, 0),
            min(self.bottom + margin, height),
            max(self.left - margin, 0),
            min(self.right + margin, width),
        )

    def moved(self, down: int, right: int) -> Tile:
        return Tile(self.top + down, self.bottom + down, self.left + right, self.right + right)

    def within(self, other: Tile) -> Tile:
        """The position of this rectangle in the crop made by `other`."""
        return self.moved(-other.top, -other.left)

    @property
    def index(self) -> tuple[EllipsisType, slice, slice]:
        """`x[tile.index]` is the rectangle of a map (..., h, w)."""
        return ..., slice(self.top, self.bottom), slice(self.left, self.right)


def tiles_over(cells: npt.NDArray[np.bool_]) -> list[Tile]:
    """Disjoint rectangles that cover all true cells (h, w), few if more would not be cheaper.

    The bounding rectangle is cut in two at the cheapest line if both parts together cost less to compute,
    halos included. Each part is cut again in the same way.
    """
    bounds = _bounds(cells)
    if bounds is None:
        return []
    best, cut = _cost(bounds), None
    part = cells[bounds.index]
    for axis, lines in enumerate((part, part.T)):
        before, after = _costs_of_beginnings(lines), _costs_of_beginnings(lines[::-1])[::-1]
        costs = before[:-1] + after[1:]  # the cost of a cut after each line except the last
        if costs.size and costs.min() < best:
            best, cut = int(costs.min()), (axis, int(costs.argmin()) + 1)
    if cut is None:
        return [bounds]
    axis, place = cut
    halves = (part[:place], part[place:]) if axis == 0 else (part[:, :place], part[:, place:])
    first, second = (tiles_over(half) for half in halves)
    down, right = (place, 0) if axis == 0 else (0, place)
    moved = [tile.moved(down, right) for tile in second]
    return [tile.moved(bounds.top, bounds.left) for tile in first + moved]


def _bounds(cells: npt.NDArray[np.bool_]) -> Tile | None:
    rows, columns = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    if not len(rows):
        return None
    return Tile(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def _cost(tile: Tile) -> int:
    return (tile.bottom - tile.top + _EDGE) * (tile.right - tile.left + _EDGE) + _START


def _costs_of_beginnings(lines: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Costs of the rectangle around the true cells of the first line, the first two lines, and so on."""
    count, width = lines.shape
    some = lines.any(axis=1)
    index = np.arange(count)
    top = int(some.argmax())
    bottom = np.maximum.accumulate(np.where(some, index, -1))
    left = np.minimum.accumulate(np.where(some, lines.argmax(axis=1), width))
    right = np.maximum.accumulate(np.where(some, width - 1 - lines[:, ::-1].argmax(axis=1), -1))
    costs = (bottom - top + 1 + _EDGE) * (right - left + 1 + _EDGE) + _START
    return np.where(bottom < 0, 0, costs)
