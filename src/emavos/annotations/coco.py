"""COCO's file of images and annotations, with runs or polygons; CVAT, Roboflow and others export it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from emavos.annotations.rle import decode_rle
from emavos.annotations.shapes import (
    Drawn,
    Picture,
    Shape,
    Size,
    frame_name,
    points_of,
    polygons,
    size_of,
    whole,
    whole_number,
)


def read_coco(content: Mapping[str, Any]) -> tuple[list[Picture], dict[int, str]]:
    """The annotated frames of a file, and the names of its categories by number.

    The id of an object is the `track_id` of its annotation, or, as CVAT writes it, of its attributes.
    """
    categories = {whole_number(c["id"]): str(c["name"]) for c in content.get("categories", [])}
    by_image: dict[int, tuple[list[Shape], list[str]]] = {
        whole_number(i["id"]): ([], []) for i in content["images"]
    }
    for annotation in content["annotations"]:
        shapes, left_out = by_image[whole_number(annotation["image_id"])]
        segmentation = annotation.get("segmentation")
        if not segmentation:
            left_out.append("box")
            continue
        category = whole_number(annotation.get("category_id", 0))
        track = annotation.get("track_id", (annotation.get("attributes") or {}).get("track_id"))
        shapes.append(
            Shape(
                categories.get(category, str(category)),
                plane_of(segmentation),
                id=None if track is None else whole_number(track),
            )
        )
    pictures = [
        Picture(
            frame_name(image["file_name"]),
            tuple(by_image[whole_number(image["id"])][0]),
            size_of(image["height"], image["width"]),
            left_out=tuple(by_image[whole_number(image["id"])][1]),
        )
        for image in content["images"]
    ]
    return pictures, categories


def plane_of(segmentation: Any) -> Callable[[Size], Drawn]:
    """Draws a segmentation of COCO: runs, or a list of polygons."""
    if isinstance(segmentation, list):
        return polygons([points_of(part) for part in segmentation])
    return whole(lambda: decode_rle(segmentation))
