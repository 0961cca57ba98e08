"""The prompt of one object: clicks, scribbles, a box, an earlier mask. All input is checked here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from emavos.clicks.planes import STRIDE, Prompts
from emavos.frames.preprocess import WorkingFrame, pad_to_stride, resize, to_mask

_SPACING = 8  # pixels of the frame from one click of a scribble to the next
_MOST = 4096  # clicks


@dataclass(frozen=True, eq=False)
class Prompt:
    """The clicks, box and earlier mask of one object in one frame, in pixels of the frame.

    points: (N, 2) float32, x and y from the left and the top; the centre of the first pixel is (0.5, 0.5).
    labels: (N,) int64, 1 on the object, 0 beside the object.
    box: left, top, right and bottom, or None.
    mask: (H, W) float32, the earlier probability of each pixel, or None.
    """

    points: np.ndarray
    labels: np.ndarray
    box: tuple[float, float, float, float] | None = None
    mask: np.ndarray | None = None


def make_prompt(
    size: tuple[int, int],
    points: Any = None,
    labels: Any = None,
    box: Any = None,
    scribbles: Any = None,
    scribble_labels: Any = None,
    mask: Any = None,
) -> Prompt:
    """A prompt for a frame of `size` (H, W): arguments as for `SeenFrame.click`.

    Raises ValueError as `SeenFrame.click` does.
    """
    clicks = _points("points", points, size)
    said = _labels("labels", labels, len(clicks), "points")
    lines = [_points(f"scribbles[{i}]", line, size) for i, line in enumerate(_lines(scribbles))]
    for line, label in zip(
        lines, _labels("scribble_labels", scribble_labels, len(lines), "scribbles"), strict=True
    ):
        along = _along(line)
        clicks, said = np.concatenate([clicks, along]), np.concatenate([said, np.full(len(along), label)])
    if len(clicks) > _MOST:
        raise ValueError(
            f"there are {len(clicks)} clicks, with the points along scribbles; {_MOST} are the most"
        )
    corners = None if box is None else _box(box, size)
    before = None if mask is None else _mask(mask, size)
    if not len(clicks) and corners is None:
        raise ValueError("there is no click on the object; pass points, scribbles or a box")
    if corners is None and before is None and not said.any():
        raise ValueError(
            "all points are beside the object (label 0); pass a point on it (label 1), a box or a mask"
        )
    return Prompt(clicks.astype(np.float32), said, corners, before)


def to_prompts(prompt: Prompt, working: WorkingFrame) -> Prompts:
    """A prompt for the head: in pixels of the padded working frame, on the device of the frame."""
    device = working.pixels.device
    height, width = working.size
    rows, columns = working.crop[1], working.crop[2]
    scale = ((columns.stop - columns.start) / width, (rows.stop - rows.start) / height)
    factor, shift = torch.tensor(scale), torch.tensor([float(columns.start), float(rows.start)])
    box = torch.full((4,), float("nan"))
    if prompt.box is not None:
        box = torch.tensor(prompt.box) * factor.repeat(2) + shift.repeat(2)
    if prompt.mask is None:
        plane = torch.zeros(1, 1, *(side // STRIDE for side in working.pixels.shape[2:]))
    else:
        inside = resize(torch.from_numpy(prompt.mask)[None], working.working_size)
        plane = functional.avg_pool2d(pad_to_stride(inside)[0][None], STRIDE)
    return Prompts(
        (torch.from_numpy(prompt.points) * factor + shift)[None].to(device),
        torch.from_numpy(prompt.labels)[None].to(device),
        box[None].to(device),
        plane.to(device),
        torch.tensor([float(prompt.mask is not None)], device=device),
    )


def _points(name: str, points: Any, size: tuple[int, int]) -> np.ndarray:
    """(N, 2) of pixel centres."""
    if points is None:
        return np.zeros((0, 2), dtype=np.float64)
    try:
        array = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} are pairs (x, y) of numbers, not {points!r:.60}") from error
    if array.size == 0:
        return np.zeros((0, 2), dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{name} are pairs (x, y), an array (N, 2), not {array.shape}")
    height, width = size
    with np.errstate(invalid="ignore"):
        outside = ~((array >= 0) & (array < (width, height))).all(axis=1)
    if outside.any():
        x, y = array[outside][0]
        raise ValueError(
            f"{name} hold ({x:g}, {y:g}), which is not in the frame: x is from 0 to {width - 1}, "
            f"y from 0 to {height - 1}"
        )
    return array + 0.5


def _labels(name: str, labels: Any, count: int, of: str) -> np.ndarray:
    if labels is None:
        return np.ones(count, dtype=np.int64)
    array = np.asarray(labels)
    if array.shape != (count,):
        raise ValueError(f"{name} are one for each of the {count} {of}, not {array.shape}")
    if count and not (array.dtype.kind in "biuf" and np.isin(array, (0, 1)).all()):
        raise ValueError(f"{name} are 1 (the object) and 0 (not the object), not {labels!r:.60}")
    return array.astype(np.int64)


def _lines(scribbles: Any) -> Sequence[Any]:
    if scribbles is None:
        return []
    if not isinstance(scribbles, (list, tuple)):
        raise ValueError(f"scribbles are a list of lines, each a list of (x, y), not {scribbles!r:.60}")
    return scribbles


def _along(line: np.ndarray) -> np.ndarray:
    """Clicks along a line of points (N, 2), so close that their disks form a stroke."""
    parts = [line[:1]]
    for start, end in pairwise(line):
        count = max(math.ceil(np.hypot(*(end - start)) / _SPACING), 1)
        parts.append(start + (end - start) * (np.arange(1, count + 1) / count)[:, None])
    return np.concatenate(parts)


def _box(box: Any, size: tuple[int, int]) -> tuple[float, float, float, float]:
    try:
        left, top, right, bottom = (float(side) for side in box)
    except (TypeError, ValueError) as error:
        raise ValueError(f"box is (left, top, right, bottom), four numbers, not {box!r:.60}") from error
    height, width = size
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(
            f"box is (left, top, right, bottom) with 0 <= left < right <= {width} and 0 <= top < bottom <= "
            f"{height}, not ({left:g}, {top:g}, {right:g}, {bottom:g})"
        )
    return left, top, right, bottom


def _mask(mask: Any, size: tuple[int, int]) -> np.ndarray:
    """(H, W) float32: the probabilities unchanged, or 1 for each pixel with an id."""
    if isinstance(mask, Tensor):
        mask = mask.detach().cpu().numpy()
    if isinstance(mask, np.ndarray) and mask.dtype.kind == "f":
        if mask.shape != size:
            have, want = "x".join(map(str, mask.shape)), "x".join(map(str, size))
            raise ValueError(f"mask is {have} but frame is {want} (height x width); resize one of them")
        if not ((mask >= 0) & (mask <= 1)).all():
            raise ValueError("a mask of numbers holds probabilities from 0 to 1")
        return mask.astype(np.float32)
    return (to_mask(mask, size) != 0).cpu().numpy().astype(np.float32)
