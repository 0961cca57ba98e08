"""Run-length encoding as COCO has it, and the masks of a video as one COCO file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from emavos.io import IdMask
from emavos.io.images import MAX_PIXELS, PathLike
from emavos.io.text import read_json
from emavos.io.whole import named_as, replacing

_CATEGORY = {"id": 1, "name": "object"}  # objects of a video have ids, and no class


class Rle(TypedDict):
    """A plane of 0 and 1 in runs: `size` is [H, W], `counts` the compressed text of COCO."""

    size: list[int]
    counts: str


def encode_rle(plane: NDArray[Any]) -> Rle:
    """A plane (H, W), bool or not 0 where the object is, in the runs of COCO, column by column."""
    if plane.ndim != 2 or plane.dtype.kind not in "bui":
        raise ValueError(f"a plane is (H, W) of bool or integers, not {plane.shape} of {plane.dtype}")
    flat = (plane != 0).ravel(order="F")
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    runs = np.diff(ends, prepend=0).tolist()
    if flat.size and flat[0]:
        runs.insert(0, 0)  # the first run is of background
    return {"size": [*plane.shape], "counts": _to_text(runs)}


def decode_rle(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The plane (H, W) of runs whose `counts` are compressed (text or bytes) or a list of numbers.

    Raises ValueError where they are neither, or do not fill the plane of `size`.
    """
    if not isinstance(rle, Mapping):
        raise ValueError(f"a run-length encoding is a dict of size and counts, not {type(rle).__name__}")
    (height, width), counts = _size(rle.get("size")), rle.get("counts")
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    try:
        runs = np.array(_from_text(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{counts!r:.60} are no counts of a run-length encoding") from error
    if runs.ndim != 1 or (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
        raise ValueError(f"counts of a run-length encoding do not fill {height}x{width} (height x width)")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width, order="F")


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
    later has it. Raises ValueError where the file is something else, has polygons, or an id is 0.
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
            size, name = _size([int(image["height"]), int(image["width"])]), str(image["file_name"])
            mask = np.zeros(size, np.int32)
            for annotation in found[number]:
                if isinstance(annotation["segmentation"], list):
                    raise ValueError("its polygons are not read; first_mask(polygons, size=...) draws them")
                plane = decode_rle(annotation["segmentation"])
                if plane.shape != size:
                    raise ValueError(f"an annotation is {plane.shape} in an image of {size}")
                mask[plane] = _id_of(annotation)
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


def _to_text(runs: list[int]) -> str:
    """Five bits a letter, lowest first, the sixth says that more follow; from the fourth run on, what counts
    is the difference to the last run of the same kind."""
    letters = []
    for i, run in enumerate(runs):
        rest = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)  # the highest bit of a number is its sign
            letters.append(chr(48 + bits + 32 * more))
    return "".join(letters)


def _from_text(text: str) -> list[int]:
    runs: list[int] = []
    number = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"{letter!r} is no letter of a run")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                number -= 1 << shift
            runs.append(number + runs[-2] if len(runs) > 2 else number)
            number = shift = 0
    if shift:
        raise ValueError("the last run is cut off")
    return runs


def _size(size: Any) -> tuple[int, int]:
    """Height and width of a picture that a memory holds, checked."""
    if isinstance(size, (list, tuple, np.ndarray)) and len(size) == 2:
        whole = all(isinstance(side, (int, np.integer)) and not isinstance(side, bool) for side in size)
        if whole and min(size) > 0 and int(size[0]) * int(size[1]) <= MAX_PIXELS:
            return int(size[0]), int(size[1])
    raise ValueError(
        "the size of a run-length encoding is [height, width], "
        f"of at most {MAX_PIXELS} pixels, not {size!r:.60}"
    )
