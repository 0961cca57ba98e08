"""The masks of a video as one COCO file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emavos.annotations.coco import plane_of
from emavos.annotations.rle import check_size, encode_rle
from emavos.io import IdMask
from emavos.io.images import PathLike
from emavos.io.text import read_json
from emavos.io.whole import named_as, replacing

_CATEGORY = {"id": 1, "name": "object"}  # objects of a video have ids, and no class


class CocoWriter:
    """Writes the masks of a video, as they come, into a file that pycocotools reads.

    A frame is an image, numbered from 1; `file_name` is that of its mask. An object in a frame is an
    annotation of the one category: its `track_id` is the object's id, and its `segmentation` an `Rle`. The
    file appears whole when the block ends well.

    >>> with CocoWriter("masks.json") as coco:
    ...     for result in predictor.propagate("video/", "first.png"):
    ...         coco.write(f"{result.index:05d}", result.mask)
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._images: list[dict[str, Any]] = []
        self._annotations = 0

    def __enter__(self) -> CocoWriter:
        with ExitStack() as stack:
            partial = stack.enter_context(replacing(self.path))
            self._file = stack.enter_context(partial.open("w", encoding="utf-8"))
            self._file.write('{"annotations": [')
            self._stack = stack.pop_all()
        return self

    def write(self, name: str, mask: IdMask) -> None:
        """Add the mask (H, W) of ids of the next frame."""
        if mask.ndim != 2 or mask.dtype.kind not in "bui":
            raise ValueError(f"a mask is (H, W) of integers, not {mask.shape} of {mask.dtype}")
        height, width = mask.shape
        number = len(self._images) + 1
        file_name = f"{name}.png"
        self._images.append({"id": number, "file_name": file_name, "height": height, "width": width})
        for id in map(int, np.unique(mask)):
            if id != 0:
                self._annotations += 1
                annotation = {"id": self._annotations, "image_id": number} | _annotation(id, mask == id)
                with named_as(self.path):
                    self._file.write((",\n" if self._annotations > 1 else "\n") + json.dumps(annotation))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(GeneratorExit, GeneratorExit(), None)  # not `error`: it is of no file here
            return
        with self._stack:
            rest = json.dumps({"images": self._images, "categories": [_CATEGORY]})
            self._file.write(f"\n],\n{rest[1:]}\n")


def read_coco(path: PathLike) -> Iterator[tuple[str, IdMask]]:
    """The frames of a COCO file in order: the name of each without its suffix, and its mask (H, W) of ids.

    The id is an annotation's `track_id`, or its `category_id` where it has none; where two lie on a pixel the
    later has it. Polygons are filled with their outlines. Raises ValueError if the file is something else,
    or an id is 0.
    """
    try:
        content = read_json(path, "a COCO file")
        images = {int(image["id"]): image for image in content["images"]}
        if len(images) < len(content["images"]):
            raise ValueError("two images have one id")
        found: dict[int, list[Mapping[str, Any]]] = {number: [] for number in images}
        for annotation in content["annotations"]:
            found[int(annotation["image_id"])].append(annotation)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is no COCO file of images and annotations: {error!r:.100}") from error
    for number, image in images.items():
        try:
            size, name = check_size([int(image["height"]), int(image["width"])]), str(image["file_name"])
            mask = np.zeros(size, np.int32)
            for annotation in found[number]:
                mask[plane_of(annotation["segmentation"])(size)] = _id_of(annotation)
        except KeyError as error:
            raise ValueError(f"{path}, image {number}: there is no {error}") from error
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path}, image {number}: {error}") from error
        yield Path(name).stem, mask


def _id_of(annotation: Mapping[str, Any]) -> int:
    id = annotation.get("track_id", annotation.get("category_id"))
    if type(id) is not int or id == 0 or not -(2**31) <= id < 2**31:
        raise ValueError(f"an id is a whole number of 32 bits other than 0, the background, not {id!r:.60}")
    return id


def _annotation(id: int, plane: NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "category_id": _CATEGORY["id"],
        "track_id": id,
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        "area": int(plane.sum()),
        "iscrowd": 0,
        "segmentation": encode_rle(plane),
    }
