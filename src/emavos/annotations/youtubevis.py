"""YouTube-VIS: a JSON of a video with a run-length encoding for each object and frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emavos.annotations.coco import plane_of
from emavos.annotations.shapes import Picture, Shape, frame_name, size_of, whole_number


def read_youtube_vis(content: Mapping[str, Any]) -> tuple[list[Picture], dict[int, str]]:
    """The annotated frames of a file, and the names of its categories by number.

    The id of an object is the `track_id` of its annotation, or the annotation's own id.
    """
    if len(content["videos"]) != 1:
        raise ValueError(f"it has {len(content['videos'])} videos; keep the annotations of one")
    (video,) = content["videos"]
    categories = {whole_number(c["id"]): str(c["name"]) for c in content.get("categories", [])}
    size = size_of(video["height"], video["width"])
    shapes: list[list[Shape]] = [[] for _ in video["file_names"]]
    for annotation in content["annotations"]:
        category = whole_number(annotation.get("category_id", 0))
        id = whole_number(annotation.get("track_id", annotation["id"]))
        if len(annotation["segmentations"]) != len(shapes):
            raise ValueError(
                f"object {id} has {len(annotation['segmentations'])} masks in {len(shapes)} frames"
            )
        for place, segmentation in enumerate(annotation["segmentations"]):
            if segmentation:
                label = categories.get(category, str(category))
                shapes[place].append(Shape(label, plane_of(segmentation), id=id))
    pictures = [
        Picture(frame_name(name), tuple(some), size)
        for name, some in zip(video["file_names"], shapes, strict=True)
    ]
    return pictures, categories
