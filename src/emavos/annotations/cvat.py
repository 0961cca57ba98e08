"""CVAT's own XML, for images and for video: polygons, ellipses and masks, and tracks of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NoReturn
from xml.parsers import expat

import numpy as np

from emavos.annotations.shapes import (
    FARTHEST,
    Drawn,
    Picture,
    Shape,
    Size,
    ellipse,
    frame_name,
    pasted,
    points_of,
    polygons,
    runs_by_row,
    size_of,
)

_SHAPES = ("box", "polygon", "polyline", "points", "ellipse", "cuboid", "skeleton", "mask")


def read_cvat(text: str) -> tuple[list[Picture], list[str]]:
    """The annotated frames of a file, and the labels of the task in order.

    Only the key frames of a track count, which somebody drew. Frames in between are interpolated and skipped.
    If the object is outside on a key frame, it has no mask there.
    """
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse  # entities may stand for gigabytes, or for other files
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise ValueError(f"it is not XML: {error}") from error
    if not reader.is_cvat:
        raise ValueError("it has no <annotations> of CVAT")
    return reader.pictures(), reader.labels


def _refuse(*_: object) -> NoReturn:
    raise ValueError("it declares a document type, which CVAT does not")


class _Reader:
    """Reads the elements of CVAT's XML, one at a time."""

    def __init__(self) -> None:
        self.is_cvat = False
        self.labels: list[str] = []
        self._way: list[str] = []
        self._text = ""
        self._sides: dict[str, int] = {}  # of the video
        self._image: dict[str, str] | None = None
        self._track: dict[str, str] | None = None
        self._drawn: list[Shape] = []  # of an image
        self._images: list[Picture] = []
        self._frames: dict[int, list[Shape]] = {}  # of tracks
        self._left_out: Counter[tuple[int, str]] = Counter()

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._way:
            self.is_cvat = name == "annotations"
        self._way.append(name)
        self._text = ""
        if name == "image":
            self._image, self._drawn = attributes, []
        elif name == "track":
            self._track = attributes
        elif name in _SHAPES and self._image is not None:
            self._add(name, attributes)
        elif name in _SHAPES and self._track is not None:
            self._add_tracked(name, attributes, self._track)

    def text(self, text: str) -> None:
        if self._way[-1] in ("name", "width", "height") and len(self._text) < 4096:
            self._text += text

    def end(self, name: str) -> None:
        way = self._way[-3:]
        self._way.pop()
        if way[-2:] == ["label", "name"]:
            self.labels.append(self._text.strip())
        elif len(way) > 1 and way[-2] == "original_size" and name in ("width", "height"):
            self._sides[name] = int(self._text)
        elif name == "image" and self._image is not None:
            image, self._image = self._image, None
            self._images.append(
                Picture(
                    frame_name(image["name"]),
                    tuple(self._drawn),
                    size_of(image["height"], image["width"]),
                    left_out=tuple(
                        kind for (at, kind) in self._left_out.elements() if at == len(self._images)
                    ),
                )
            )
        elif name == "track":
            self._track = None

    def _add(self, kind: str, attributes: Mapping[str, str]) -> None:
        draw = _drawing(kind, attributes)
        if draw is None:
            self._left_out[len(self._images), kind] += 1
            return
        height = int(attributes.get("z_order", "0"))
        self._drawn.append(Shape(attributes["label"], draw, attributes.get("group_id", ""), height=height))

    def _add_tracked(self, kind: str, attributes: Mapping[str, str], track: Mapping[str, str]) -> None:
        if attributes.get("keyframe", "1") == "0" or attributes.get("outside", "0") == "1":
            return
        frame, draw = int(attributes["frame"]), _drawing(kind, attributes)
        if not 0 <= frame < 2**31:
            raise ValueError(f"there is no frame {frame}")
        shapes = self._frames.setdefault(frame, [])
        if draw is None:
            self._left_out[-1 - frame, kind] += 1
            return
        height = int(attributes.get("z_order", "0"))
        shapes.append(Shape(track["label"], draw, id=int(track["id"]) + 1, height=height))  # counted from 0

    def pictures(self) -> list[Picture]:
        """All annotated frames, in order."""
        size = size_of(self._sides["height"], self._sides["width"]) if len(self._sides) == 2 else None
        return self._images + [
            Picture(
                str(frame),
                tuple(shapes),
                size,
                index=frame,
                left_out=tuple(kind for (at, kind) in self._left_out.elements() if at == -1 - frame),
            )
            for frame, shapes in sorted(self._frames.items())
        ]


def _drawing(kind: str, shape: Mapping[str, str]) -> Callable[[Size], Drawn] | None:
    """Draws a shape; None if it encloses nothing."""
    if kind == "polygon":
        pairs = [pair.split(",") for pair in shape["points"].split(";")]
        return polygons([points_of([float(v) for pair in pairs for v in pair])])
    if kind == "ellipse":
        x, y, across, down = (float(shape[key]) for key in ("cx", "cy", "rx", "ry"))
        return ellipse(x, y, (across, down), float(np.deg2rad(float(shape.get("rotation", "0")))))
    if kind == "mask":
        left, top, height, width = (int(shape[key]) for key in ("left", "top", "height", "width"))
        counts, size = [int(run) for run in shape["rle"].split(",")], size_of(height, width)
        if max(abs(left), abs(top)) > FARTHEST:
            raise ValueError(
                f"a mask begins within {FARTHEST:.0f} pixels of the frame, not at ({left}, {top})"
            )
        return lambda frame: pasted(runs_by_row(counts, size), left, top)(frame)
    return None
