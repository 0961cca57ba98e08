"""Turn the objects of other tools into a mask of ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emavos.annotations.rle import decode_rle
from emavos.annotations.shapes import polygons
from emavos.io import IdMask

Plane = NDArray[np.bool_]  # (H, W)


def first_mask(
    objects: Any,
    *,
    size: tuple[int, int] | None = None,
    scores: Sequence[float] | None = None,
    ids: Sequence[int] | None = None,
) -> IdMask:
    """The mask (H, W) of ids to start `propagate` with, from the objects of another tool.

    objects: binary masks (N, H, W) or (N, 1, H, W), as arrays or tensors; supervision's `Detections`; or a
        list with one item per object: a binary mask (H, W), a COCO run-length encoding, a polygon (points (P,
        2) of x and y, or x, y, x, y, ...), a list of polygons, or a dict with one of these as "segmentation"
        and optionally a score as "predicted_iou" or "score".
    size: (H, W) of the frame; required for polygons, checked for the rest.
    scores: one score per object, instead of the scores in `objects`.
    ids: one id per object, of any sign but not 0; defaults to 1, 2, 3, ...

    If objects overlap, a pixel gets the object with the highest score. Without scores, or between equal
    scores, the smaller object wins, as a part lies on its whole.

    Raises ValueError if an object has none of these forms, sizes differ, or an object has no visible pixel to
    track.
    """
    # supervision's Detections, recognised without the import
    if hasattr(objects, "confidence") and hasattr(objects, "mask"):
        scores = objects.confidence if scores is None else scores
        objects = objects.mask
        if objects is None:
            raise ValueError("these detections have boxes but no masks")
    items = _split(objects)
    if not items:
        raise ValueError("no object is given; a first mask has one or more")
    planes = planes_of(items, size)
    size = planes[0].shape[0], planes[0].shape[1]
    for number, plane in enumerate(planes):
        if not plane.any():
            raise ValueError(f"object {number} has no pixel; leave it out")
    ranks = _scores(items, scores)
    names = _ids(len(items), ids)
    mask = np.zeros(size, np.int32)
    # paint from the lowest score up, and the largest first if scores are equal
    for number in sorted(range(len(items)), key=lambda n: (ranks[n], -int(planes[n].sum()), -n)):
        mask[planes[number]] = names[number]
    if lost := [n for n, name in enumerate(names) if not (mask == name).any()]:
        raise ValueError(
            f"object {lost[0]} is covered by others of a higher score; leave it out, or give it a higher one"
        )
    return mask


def planes_of(objects: Any, size: tuple[int, int] | None = None) -> list[Plane]:
    """The binary mask (H, W) of each object, possibly empty.

    objects, size: see `first_mask`; without a size, the first object's size is used.

    Raises ValueError if sizes differ.
    """
    planes = [_plane(item, size, number) for number, item in enumerate(_split(objects))]
    for number, plane in enumerate(planes):
        shape = planes[0].shape if size is None else tuple(size)
        if plane.shape != shape:
            have, want = ("x".join(map(str, s)) for s in (plane.shape, shape))
            raise ValueError(f"object {number} is {have} but wanted is {want} (height x width)")
    return planes


def _split(objects: Any) -> list[Any]:
    """The objects as a list."""
    if isinstance(objects, Mapping):
        return [objects]
    if isinstance(objects, (list, tuple)):
        return list(objects)
    array = _array(objects)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise ValueError(f"planes are (N, H, W) or (N, 1, H, W), not {array.shape}")
    return list(array)


def _plane(item: Any, size: tuple[int, int] | None, number: int) -> Plane:
    """One object as (H, W) of bool."""
    try:
        shape = item["segmentation"] if isinstance(item, Mapping) and "segmentation" in item else item
        if isinstance(shape, Mapping):
            return decode_rle(shape)
        if isinstance(shape, (list, tuple)):
            return _fill(_polygons(shape), size)
        array = _array(shape)
        if array.ndim == 2 and array.shape[1] == 2 and array.dtype.kind != "b":
            return _fill([array], size)
        array = array[0] if array.ndim == 3 and array.shape[0] == 1 else array
        if array.ndim != 2 or not ((array == 0) | (array == 1)).all():
            raise ValueError(
                f"a plane is (H, W) of bool, or of 0 and 1, not {array.shape} of {array.dtype}; "
                "threshold probabilities and logits first"
            )
        return array.astype(np.bool_)
    except ValueError as error:
        raise ValueError(f"object {number}: {error}") from error


def _array(value: Any) -> NDArray[Any]:
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)  # a torch tensor
    if array.dtype.kind not in "buif":
        raise ValueError(f"{value!r:.60} is not a plane, a polygon or a run-length encoding")
    return array


def _polygons(shape: Sequence[Any]) -> list[NDArray[Any]]:
    """A polygon or a list of polygons, each as points (P, 2)."""
    numbers = all(np.ndim(part) == 0 for part in shape)
    points = not numbers and all(np.shape(part) == (2,) for part in shape)
    return [_array(part).reshape(-1, 2) for part in ([shape] if numbers or points else shape)]


def _fill(parts: Sequence[NDArray[Any]], size: tuple[int, int] | None) -> Plane:
    """The area of polygons, including their outlines, as (H, W) of bool."""
    if size is None:
        raise ValueError("a polygon does not say how large its frame is: give size=(height, width)")
    return polygons(parts)(size).whole(size)


def _scores(items: Sequence[Any], scores: Sequence[float] | None) -> list[float]:
    if scores is None:
        brought = [
            item.get("predicted_iou", item.get("score")) if isinstance(item, Mapping) else None
            for item in items
        ]
        numbers: Sequence[Any] = [0.0] * len(items) if None in brought else brought
    else:
        numbers = _array(scores).tolist()
    if len(numbers) != len(items) or not np.isfinite(np.array(numbers, dtype=float)).all():
        raise ValueError(f"scores are a finite number for each of {len(items)} objects, not {numbers!r:.60}")
    return [float(score) for score in numbers]


def _ids(count: int, ids: Sequence[int] | None) -> list[int]:
    wanted = list(range(1, count + 1)) if ids is None else list(ids)
    names = [int(id) for id in wanted]
    whole = all(
        id == name and name != 0 and -(2**31) <= name < 2**31 for id, name in zip(wanted, names, strict=True)
    )
    if len(names) != count or len({*names}) != count or not whole:
        raise ValueError(
            f"ids are {count} different whole numbers of 32 bits other than 0, not {wanted!r:.60}"
        )
    return names
