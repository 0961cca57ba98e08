"""The masks of a video as one NumPy array, in memory or in a file."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emavos.io.images import MAX_PIXELS, PathLike, check_file
from emavos.io.whole import replacing

MOST_BYTES = 1 << 29  # default limit for reading, 1300 masks of 480x854


def stack_masks(masks: Iterable[Any]) -> NDArray[Any]:
    """Stack masks of ids (or results) into one array (T, H, W) with the smallest integer type that fits.

    The array grows with the video, unlike results used one by one: 300 frames of 480x854 take 123 MB.
    """
    planes = [_small(mask.mask if hasattr(mask, "mask") else np.asarray(mask)) for mask in masks]
    if not planes:
        raise ValueError("there is no mask to stack")
    sizes = {plane.shape for plane in planes}
    if len(sizes) > 1 or planes[0].ndim != 2:
        raise ValueError(f"masks to stack are (H, W) of one size, not {sorted(sizes)!r:.100}")
    stack: NDArray[Any] = np.stack(planes)
    return stack


def write_stack(path: PathLike, masks: Iterable[Any], names: Sequence[str] | None = None) -> None:
    """Write masks to a compressed .npz with `masks` (T, H, W), `ids` (O,) and frame `names` (T,).

    path: file to write, named .npz.
    masks: masks of ids or results, see `stack_masks`.
    names: names of the frames; defaults to 00000, 00001, ...

    The file is written atomically, and equal masks give equal bytes.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise ValueError(f"{path} is not named .npz")
    stack = stack_masks(masks)
    names = [f"{index:05d}" for index in range(len(stack))] if names is None else list(names)
    if len(names) != len(stack):
        raise ValueError(f"{len(names)} names are given for {len(stack)} masks")
    ids = np.unique(stack)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, masks=stack, ids=ids[ids != 0], names=np.array(names, dtype=np.str_))


def read_stack(path: PathLike, most_bytes: int = MOST_BYTES) -> tuple[NDArray[Any], list[str]]:
    """Read the masks (T, H, W) and frame names written by `write_stack`; no code in the file is executed.

    path: file to read.
    most_bytes: largest size of the masks in memory. A small file may declare a huge array, so larger declared
        sizes raise ValueError before memory is allocated.
    """
    check_file(path, "a stack of masks")
    try:
        with zipfile.ZipFile(path) as archive:
            shape, names_shape = _declared(archive, "masks", "ui"), _declared(archive, "names", "U")
        if len(shape.sides) != 3 or names_shape.sides != shape.sides[:1]:
            raise ValueError(f"masks are {shape.sides}, names {names_shape.sides}")
        for part in (shape, names_shape):
            if part.nbytes > most_bytes or part.pixels > MAX_PIXELS:
                raise ValueError(
                    f"it declares {part.sides}, {part.nbytes} bytes, beyond {most_bytes}, or a mask beyond "
                    f"{MAX_PIXELS} pixels; if you trust it, pass most_bytes="
                )
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            masks, names = file["masks"], file["names"]
    except Exception as error:  # zipfile, zlib and NumPy raise errors of many types
        raise ValueError(f"{path} cannot be read as a stack of masks: {error}") from error
    return masks, [str(name) for name in names]


@dataclass(frozen=True)
class _Declared:
    """Shape and size of an array, as declared in the file."""

    sides: tuple[int, ...]
    nbytes: int

    @property
    def pixels(self) -> int:
        return math.prod(self.sides[1:])


def _declared(archive: zipfile.ZipFile, name: str, kinds: str) -> _Declared:
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        sides, _, dtype = read(file)
    if dtype.kind not in kinds or any(side < 0 for side in sides):
        raise ValueError(f"{name} are {sides} of {dtype}")
    return _Declared(sides, math.prod(sides) * max(dtype.itemsize, 1))


def _small(mask: NDArray[Any]) -> NDArray[Any]:
    """A mask of ids with the smallest integer type that fits; np.stack widens types if masks differ."""
    if mask.dtype.kind not in "bui":
        raise ValueError(f"a mask holds whole ids, not {mask.dtype}")
    low, high = (int(mask.min()), int(mask.max())) if mask.size else (0, 0)
    return mask.astype(np.result_type(np.min_scalar_type(low), np.min_scalar_type(high)))
