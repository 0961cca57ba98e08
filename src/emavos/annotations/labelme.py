"""Labelme's file of one image: polygons, circles and small masks."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from emavos.annotations.shapes import (
    Drawn,
    Picture,
    Points,
    Shape,
    Size,
    ellipse,
    frame_name,
    pasted,
    points_of,
    polygons,
    size_of,
)
from emavos.io.images import decode_image


def read_labelme(content: Mapping[str, Any], name: str) -> Picture:
    """The annotated frame of a file. Shapes of one label and `group_id` are parts of one object.

    name: of the frame, if the file does not name its image.
    """
    shapes, left_out = [], []
    for shape in content["shapes"]:
        kind, points = str(shape.get("shape_type") or "polygon"), points_of(shape["points"])
        draw = _drawing(kind, points, shape)
        if draw is None:
            left_out.append("box" if kind == "rectangle" else kind)
            continue
        group = shape.get("group_id")
        shapes.append(Shape(str(shape["label"]), draw, "" if group is None else str(group)))
    height, width = content.get("imageHeight"), content.get("imageWidth")
    size = None if height is None or width is None else size_of(height, width)
    return Picture(
        frame_name(content.get("imagePath") or name), tuple(shapes), size, left_out=tuple(left_out)
    )


def _drawing(kind: str, points: Points, shape: Mapping[str, Any]) -> Callable[[Size], Drawn] | None:
    """Draws a shape; None if it encloses nothing."""
    if kind == "polygon":
        return polygons([points])
    if kind == "circle":
        centre, edge = points
        radius = float(np.hypot(*(edge - centre)))
        return ellipse(float(centre[0]), float(centre[1]), (radius, radius))
    if kind == "mask":
        picture = decode_image(
            io.BytesIO(base64.b64decode(shape["mask"], validate=True)), "the mask of a shape"
        )
        plane = np.array(picture.convert("L")) > 0
        return pasted(plane, round(points[:, 0].min()), round(points[:, 1].min()))
    return None
