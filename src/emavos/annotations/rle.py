"""COCO's run-length encoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from emavos.io.images import MAX_PIXELS


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

    Raises ValueError for other counts, and if they do not fill the plane of `size`.
    """
    if not isinstance(rle, Mapping):
        raise ValueError(f"a run-length encoding is a dict of size and counts, not {type(rle).__name__}")
    (height, width), counts = check_size(rle.get("size")), rle.get("counts")
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    try:
        runs = np.array(_from_text(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{counts!r:.60} are not counts of a run-length encoding") from error
    if runs.ndim != 1 or (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
        raise ValueError(f"counts of a run-length encoding do not fill {height}x{width} (height x width)")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width, order="F")


def _to_text(runs: list[int]) -> str:
    """The compressed text of COCO: five bits a letter, lowest first, and a sixth bit if more letters follow.

    From the fourth run on, the text has the difference to the last run of the same kind.
    """
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
            raise ValueError(f"{letter!r} is not a letter of a run")
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


def check_size(size: Any) -> tuple[int, int]:
    """Height and width of a picture, checked to fit into memory."""
    if isinstance(size, (list, tuple, np.ndarray)) and len(size) == 2:
        whole = all(isinstance(side, (int, np.integer)) and not isinstance(side, bool) for side in size)
        if whole and min(size) > 0 and int(size[0]) * int(size[1]) <= MAX_PIXELS:
            return int(size[0]), int(size[1])
    raise ValueError(
        "the size of a run-length encoding is [height, width], "
        f"of at most {MAX_PIXELS} pixels, not {size!r:.60}"
    )
