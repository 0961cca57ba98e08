"""Boxes and polygons of binary masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Polygon = NDArray[np.float64]  # (P, 2), x and y of pixel centres


def box_of(plane: NDArray[Any]) -> tuple[int, int, int, int]:
    """The box x, y, x, y of a binary mask (H, W): its first pixel, and the pixel after its last."""
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    if not len(rows):
        raise ValueError("a plane without a pixel has no box")
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def outlines(plane: NDArray[Any], tolerance: float = 0.0) -> list[Polygon]:
    """The polygons of a binary mask (H, W), one for each connected part, each (P, 2) of x and y.

    plane: (H, W), bool or not 0 inside the object. Pixels that touch at a corner are connected.
    tolerance: largest distance in pixels between a polygon and the outline, to save points; 0 is exact.

    Points are pixel centres on the outline, as OpenCV's `findContours` returns them. A cut without width
    joins a hole to the outline. Filling an exact polygon with its outline, as Pillow, OpenCV and Labelme do,
    returns the pixels of the mask. A polygon has at least three points; they coincide if a part is one pixel.

    Raises ValueError if the plane or the tolerance is out of range.
    """
    if plane.ndim != 2 or plane.dtype.kind not in "bui":
        raise ValueError(f"a plane is (H, W) of bool or integers, not {plane.shape} of {plane.dtype}")
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"a tolerance is a number of pixels of at least 0, not {tolerance!r:.40}")
    padded = np.pad(plane != 0, 1)
    loops = _loops(padded)
    polygons = []
    for loop in _joined(loops, padded):
        points = np.array(loop, dtype=np.float64)
        turns = (points - np.roll(points, 1, axis=0) != np.roll(points, -1, axis=0) - points).any(axis=1)
        points = _simple(points[turns] if turns.any() else points, tolerance) - 1  # without the padding
        polygons.append(np.concatenate([points, points[:1].repeat(max(3 - len(points), 0), axis=0)]))
    return polygons


class _Loop:
    """A closed chain of pixel edges, as the pixels inside the chain, in order. No pixel follows itself.

    points: x and y of the pixels.
    lefts: {(x, y): place of the left edge of this pixel among `points`}.
    area: above 0 for the outline of a part, below 0 for a hole.
    """

    def __init__(self) -> None:
        self.points: list[tuple[int, int]] = []
        self.lefts: dict[tuple[int, int], int] = {}
        self.area = 0


def _loops(plane: NDArray[np.bool_]) -> list[_Loop]:
    """The chains of the edges between a plane (H, W) and its background."""
    width = plane.shape[1]
    inner = plane[1:-1, 1:-1]
    # an edge has the object on its right; its number is 4 * corner + direction: right, down, left, up
    edges: dict[int, int] = {}  # edge: the pixel inside, as a number
    neighbours = (plane[:-2, 1:-1], plane[1:-1, 2:], plane[2:, 1:-1], plane[1:-1, :-2])
    corners = ((0, 0), (1, 0), (1, 1), (0, 1))
    for direction, (near, (right, down)) in enumerate(zip(neighbours, corners, strict=True)):
        rows, columns = np.nonzero(inner & ~near)
        pixels = (rows + 1) * width + columns + 1
        edges.update(
            zip((4 * (pixels + down * width + right) + direction).tolist(), pixels.tolist(), strict=True)
        )
    ahead = (1, width, -1, -width)
    loops = []
    for start in list(edges):
        edge, pixel = start, edges.get(start)
        if pixel is None:
            continue  # in an earlier chain
        loop = _Loop()
        while pixel is not None:
            del edges[edge]
            y, x = divmod(pixel, width)
            if not loop.points or loop.points[-1] != (x, y):
                loop.points.append((x, y))
            direction = edge % 4
            if direction == 3:
                loop.lefts[x, y] = len(loop.points) - 1
            corner = edge // 4
            loop.area += (corner // width) * (direction == 2) - (corner // width) * (direction == 0)
            corner += ahead[direction]
            for turn in (3, 0, 1):  # left first: parts that touch at a corner are one
                edge = 4 * corner + (direction + turn) % 4
                if edge in edges:
                    break
            pixel = edges.get(edge)
        if len(loop.points) > 1 and loop.points[0] == loop.points[-1]:
            last = len(loop.points) - 1
            loop.points.pop()
            loop.lefts = {at: place % last for at, place in loop.lefts.items()}
        loops.append(loop)
    return loops


def _joined(loops: list[_Loop], plane: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """The outlines of parts with their holes: a cut leads left from a hole to the loop there, and back."""
    points, after, before = list[tuple[int, int]](), list[int](), list[int]()  # linked rings
    firsts, node_of = dict[int, int](), dict[tuple[int, int], int]()
    for number, loop in enumerate(loops):
        first, count = len(points), len(loop.points)
        firsts[number] = first
        node_of.update((at, first + place) for at, place in loop.lefts.items())
        points += loop.points
        after += [first + (place + 1) % count for place in range(count)]
        before += [first + (place - 1) % count for place in range(count)]
    for number, hole in enumerate(loops):
        if hole.area > 0:
            continue
        begin = firsts[number] + min(range(len(hole.points)), key=hole.points.__getitem__)
        x, y = points[begin]
        while plane[y, x - 1]:
            x -= 1
        target = node_of[x, y]
        end, back = len(points), len(points) + 1  # copies of the two ends of the cut
        points += [points[begin], points[target]]
        last, rest = before[begin], after[target]
        after += [back, rest]
        before += [last, end]
        after[last], after[target], before[begin], before[rest] = end, begin, target, back
    chains = []
    for number, loop in enumerate(loops):
        if loop.area > 0:
            chain, node = [points[firsts[number]]], after[firsts[number]]
            while node != firsts[number]:
                chain.append(points[node])
                node = after[node]
            chains.append(chain)
    return chains


def _simple(points: Polygon, tolerance: float) -> Polygon:
    """A closed polygon (P, 2) with fewer points, none of the others farther away than `tolerance`.

    Douglas and Peucker's method, from the first point and the point farthest from it.
    """
    if tolerance == 0 or len(points) < 4:
        return points
    ring = np.concatenate([points, points[:1]])
    kept = np.zeros(len(ring), bool)
    middle = int(((points - points[0]) ** 2).sum(axis=1).argmax())
    kept[[0, middle, -1]] = True
    spans = [(0, middle), (middle, len(points))]
    while spans:
        begin, end = spans.pop()
        if end - begin < 2:
            continue
        way, rest = ring[end] - ring[begin], ring[begin + 1 : end] - ring[begin]
        along = (rest @ way / max(float(way @ way), 1e-12)).clip(0, 1)
        away = np.hypot(*(rest - along[:, None] * way).T)
        if float(away.max()) > tolerance:
            place = begin + 1 + int(away.argmax())
            kept[place] = True
            spans += [(begin, place), (place, end)]
    return ring[:-1][kept[:-1]]
