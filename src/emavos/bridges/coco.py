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

_OBJECT = "object"  # name of the category of objects without a name


class CocoWriter:
    """Writes the masks of a video to a file for pycocotools.

    Each frame is an image, numbered from 1, with the name of its mask as `file_name`. Each object in a frame
    is an annotation with the object's id as `track_id` and an `Rle` as `segmentation`. The file appears if
    the block ends without an error.

    path: file to write.
    names: {id: name}. Each name is a category; objects without a name have the category "object".

    >>> with CocoWriter("masks.json") as coco:
    ...     for result in predictor.propagate("video/", "first.png"):
    ...         coco.write(f"{result.index:05d}", result.mask)
    """

    def __init__(self, path: PathLike, names: Mapping[int, str] | None = None) -> None:
        self.path = Path(path)
        self._names = dict(names or {})
        self._categories = {_OBJECT: 1}  # objects without a name have ids but no class
        for id in sorted(self._names):
            self._categories.setdefault(self._names[id], len(self._categories) + 1)
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
        """Add the next frame.

        name: name of the frame.
        mask: (H, W) of ids.
        """
        if mask.ndim != 2 or mask.dtype.kind not in "bui":
            raise ValueError(f"a mask is (H, W) of integers, not {mask.shape} of {mask.dtype}")
        height, width = mask.shape
        number = len(self._images) + 1
        file_name = f"{name}.png"
        self._images.append({"id": number, "file_name": file_name, "height": height, "width": width})
        for id in map(int, np.unique(mask)):
            if id != 0:
                self._annotations += 1
                annotation = {"id": self._annotations, "image_id": number} | self._annotation(id, mask == id)
                with named_as(self.path):
                    self._file.write((",\n" if self._annotations > 1 else "\n") + json.dumps(annotation))

    def _annotation(self, id: int, plane: NDArray[np.bool_]) -> dict[str, Any]:
        rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        return {
            "category_id": self._categories[self._names.get(id, _OBJECT)],
            "track_id": id,
            "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
            "area": int(plane.sum()),
            "iscrowd": 0,
            "segmentation": encode_rle(plane),
        }

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            # not `error`, which is not about this file
            self._stack.__exit__(GeneratorExit, GeneratorExit(), None)
            return
        with self._stack:
            listed = [{"id": number, "name": name} for name, number in self._categories.items()]
            rest = json.dumps({"images": self._images, "categories": listed})
            self._file.write(f"\n],\n{rest[1:]}\n")


def read_coco(path: PathLike) -> Iterator[tuple[str, IdMask]]:
    """Yield the frames of a COCO file in order: name without suffix, and mask (H, W) of ids.

    The id is an annotation's `track_id`, or its `category_id` if there is no `track_id`. If annotations
    overlap, the later one wins. Polygons are filled, including their outlines. Raises ValueError if the file
    is not COCO or uses id 0.
    """
    try:
        content = read_json(path, "a COCO file")
        images = {int(image["id"]): image for image in content["images"]}
        if len(images) < len(content["images"]):
            raise ValueError("two images have one id")
        by_image: dict[int, list[Mapping[str, Any]]] = {number: [] for number in images}
        for annotation in content["annotations"]:
            by_image[int(annotation["image_id"])].append(annotation)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is not a COCO file of images and annotations: {error!r:.100}") from error
    for number, image in images.items():
        try:
            size, name = check_size([int(image["height"]), int(image["width"])]), str(image["file_name"])
            mask = np.zeros(size, np.int32)
            for annotation in by_image[number]:
                plane_of(annotation["segmentation"])(size).put(mask, _id_of(annotation))
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
