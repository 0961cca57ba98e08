"""Projects of the VGG Image Annotator (VIA 1 and 2): polygons, circles and ellipses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from emavos.annotations.shapes import Drawn, Picture, Shape, Size, ellipse, frame_name, number, polygons

_NAMES = ("label", "name", "class", "category", "type", "object")


def read_via(content: Mapping[str, Any]) -> list[Picture]:
    """The annotated frames of a file. VIA does not write the size of an image."""
    pictures = []
    for image in content.get("_via_img_metadata", content).values():
        regions = image["regions"]
        shapes, left_out = [], []
        for region in regions.values() if isinstance(regions, Mapping) else regions:
            shape = region["shape_attributes"]
            draw = _drawing(shape)
            if draw is None:
                left_out.append("box" if shape["name"] == "rect" else str(shape["name"]))
            else:
                shapes.append(Shape(_label(region.get("region_attributes") or {}), draw))
        pictures.append(Picture(frame_name(image["filename"]), tuple(shapes), left_out=tuple(left_out)))
    return pictures


def _label(attributes: Mapping[str, Any]) -> str:
    """The attribute that names the object: the only one, or one with a usual name."""
    names = [key for key in attributes if str(key).lower() in _NAMES] or [*attributes][:1]
    value = attributes[names[0]] if names else ""
    if isinstance(value, Mapping):  # of boxes to tick
        value = next((key for key, ticked in value.items() if ticked), "")
    return str(value)


def _drawing(shape: Mapping[str, Any]) -> Callable[[Size], Drawn] | None:
    """Draws a shape; None if it encloses nothing."""
    kind = shape["name"]
    if kind == "polygon":
        across, down = ([number(v) for v in shape[f"all_points_{axis}"]] for axis in "xy")
        if len(across) != len(down):
            raise ValueError(f"a polygon has {len(across)} x and {len(down)} y")
        return polygons([np.array([across, down], dtype=np.float64).T])
    if kind in ("circle", "ellipse"):
        radii = ("r", "r") if kind == "circle" else ("rx", "ry")
        angle = number(shape.get("theta", 0))
        reach = number(shape[radii[0]]), number(shape[radii[1]])
        return ellipse(number(shape["cx"]), number(shape["cy"]), reach, angle)
    return None
