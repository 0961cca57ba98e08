"""Outlines and planes that annotation tools save, and the pixels that they cover."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from emavos.io.images import MAX_PIXELS

Plane = NDArray[np.bool_]  # (H, W)
Size = tuple[int, int]  # (H, W)
Points = NDArray[np.float64]  # (P, 2), x and y in pixels
MOST_POINTS = 100_000  # of one polygon: filling takes a step for each point and row
FARTHEST = 2.0**20  # of a coordinate, in pixels


class Drawn(NamedTuple):
    """The pixels of a shape, within a rectangle of its frame, so that many small shapes are drawn quickly.

    plane: (h, w) of bool, cut off at the border of the frame.
    top, left: row and column of the plane's first pixel in the frame.
    """

    plane: Plane
    top: int = 0
    left: int = 0

    def put(self, target: NDArray[Any], value: Any) -> None:
        """Set these pixels of a frame, (H, W)."""
        height, width = self.plane.shape
        target[self.top : self.top + height, self.left : self.left + width][self.plane] = value

    def whole(self, size: Size) -> Plane:
        """The plane of the whole frame, (H, W)."""
        plane = np.zeros(size, np.bool_)
        self.put(plane, True)
        return plane


@dataclass(frozen=True)
class Shape:
    """One outline or plane of an annotated frame.

    label: name of the class; "" if there is none.
    draw: returns the pixels for a size of the frame.
    group: shapes of equal label and group are parts of one object; "" if the tool has no groups.
    id: the tool's number of the object in the whole video; None if there is none.
    height: if two shapes cover a pixel, the pixel belongs to the higher one, or to the later of two equals.
    """

    label: str
    draw: Callable[[Size], Drawn]
    group: str = ""
    id: int | None = None
    height: int = 0


@dataclass(frozen=True)
class Picture:
    """One annotated frame.

    name: the file name of its image without folder and suffix.
    shapes: in the order of the file.
    size: (H, W); None if the file does not have the size.
    index: number in the video, counted from 0, if the file knows frames by number only.
    left_out: kinds of annotations that are not masks, such as "box", once for each annotation.
    """

    name: str
    shapes: tuple[Shape, ...]
    size: Size | None = None
    index: int | None = None
    left_out: tuple[str, ...] = ()


def polygons(parts: Sequence[Points], relative: bool = False) -> Callable[[Size], Drawn]:
    """The area enclosed by polygons, including their outlines.

    relative: whether coordinates are fractions of width and height.
    """
    for points in parts:
        check_polygon(points)

    def draw(size: Size) -> Drawn:
        scaled = [points * (size[1], size[0]) if relative else points for points in parts]
        (left, top), (right, bottom) = _around(scaled, size)
        image = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
        for points in scaled:
            # Pillow cuts off fractions, so a shift by whole numbers changes no pixel
            corners = [(float(x), float(y)) for x, y in points - (left, top)]
            ImageDraw.Draw(image).polygon(corners, fill=1)
        return Drawn(np.asarray(image)[: bottom - top, : right - left] > 0, top, left)

    return draw


def _around(parts: Sequence[Points], size: Size) -> tuple[tuple[int, int], tuple[int, int]]:
    """The rectangle around polygons: its first column and row, and one past its last."""
    if not parts:
        return (0, 0), (0, 0)
    first = np.floor(np.min([points.min(axis=0) for points in parts], axis=0)) - 1
    last = np.ceil(np.max([points.max(axis=0) for points in parts], axis=0)) + 2
    most = size[1], size[0]
    (left, top), (right, bottom) = (np.clip(corner, 0, most).astype(int).tolist() for corner in (first, last))
    return (left, top), (right, bottom)


def check_polygon(points: Points) -> None:
    """Raise ValueError unless points (P, 2) enclose something and have finite, ordinary coordinates."""
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise ValueError("a polygon has three points or more, each with x and y")
    if len(points) > MOST_POINTS:
        raise ValueError(f"a polygon has {len(points)} points; {MOST_POINTS} are the most")
    if not np.isfinite(points).all() or abs(points).max() > FARTHEST:
        raise ValueError(f"a polygon has three points or more, all of them finite and within {FARTHEST:.0f}")


def ellipse(
    x: float, y: float, radii: tuple[float, float], angle: float = 0.0, relative: bool = False
) -> Callable[[Size], Drawn]:
    """An ellipse around (x, y), turned clockwise by an angle in radians.

    relative: whether the centre and the radii are fractions of width and height.
    """
    if not all(math.isfinite(v) and abs(v) <= FARTHEST for v in (x, y, *radii, angle)) or min(radii) <= 0:
        raise ValueError("an ellipse has a finite centre and two radii above 0")
    turns = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    across, down = radii[0] * np.cos(turns), radii[1] * np.sin(turns)
    around = (across * np.cos(angle) - down * np.sin(angle), across * np.sin(angle) + down * np.cos(angle))
    return polygons([np.stack([x + around[0], y + around[1]], axis=1)], relative)


def pasted(plane: Plane, left: int, top: int) -> Callable[[Size], Drawn]:
    """A small plane with its upper left corner at (left, top) of the frame, cut off at the border."""
    if max(abs(left), abs(top)) > FARTHEST:
        raise ValueError(f"a mask begins within {FARTHEST:.0f} pixels of the frame, not at ({left}, {top})")

    def draw(size: Size) -> Drawn:
        inside = plane[max(-top, 0) : max(size[0] - top, 0), max(-left, 0) : max(size[1] - left, 0)]
        return Drawn(inside, max(top, 0), max(left, 0))

    return draw


def whole(plane: Callable[[], Plane]) -> Callable[[Size], Drawn]:
    """A plane of the whole frame, unpacked by `plane` on use."""

    def draw(size: Size) -> Drawn:
        unpacked = plane()
        if unpacked.shape != size:
            have, want = ("x".join(map(str, s)) for s in (unpacked.shape, size))
            raise ValueError(f"a mask is {have} in a frame of {want} (height x width)")
        return Drawn(unpacked)

    return draw


def runs_by_row(counts: Sequence[int], size: Size) -> Plane:
    """The plane of runs that alternate between background and object, row by row, background first."""
    runs = np.array(counts, dtype=np.int64)
    if (
        runs.ndim != 1
        or (runs < 0).any()
        or (runs > size[0] * size[1]).any()
        or runs.sum() != math.prod(size)
    ):
        raise ValueError(f"the runs of a mask do not fill {size[0]}x{size[1]} (height x width)")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size)


def points_of(values: Any) -> Points:
    """Points (P, 2) of x, y, x, y, ... or of pairs. Raises ValueError for anything else."""
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{values!r:.60} are not points")
    flat = [v for pair in values for v in pair] if values and isinstance(values[0], (list, tuple)) else values
    if len(flat) % 2 or len(flat) > 2 * MOST_POINTS:
        raise ValueError(f"points are x, y, x, y, ... of at most {MOST_POINTS}, not {len(flat)} numbers")
    return np.array([number(v) for v in flat], dtype=np.float64).reshape(-1, 2)


def number(value: Any) -> float:
    """A finite number of JSON. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 2.0**40:
        raise ValueError(f"{value!r:.60} is not a finite number")
    return float(value)


def whole_number(value: Any) -> int:
    """A whole number, written as a number or as text. Raises ValueError for anything else."""
    if isinstance(value, str) and len(value) <= 20:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise ValueError(f"{value!r:.60} is not a whole number")
    return int(value)


def frame_name(image: object) -> str:
    """The name of a frame: the name of its image without folder and suffix. Raises ValueError without one."""
    name = PurePosixPath(str(image).replace("\\", "/")).stem
    if not 0 < len(name) <= 200 or not name.isprintable() or name[0] == "." or set(name) & set('/:*?"<>|'):
        raise ValueError(f"{image!r:.60} is not the name of an image")
    return name


def size_of(height: Any, width: Any) -> Size:
    """(H, W) of a picture that fits into memory. Raises ValueError for anything else."""
    size = whole_number(height), whole_number(width)
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise ValueError(
            f"a frame is [height, width] of at most {MAX_PIXELS} pixels, not {size[0]!r:.20}x{size[1]!r:.20}"
        )
    return size
