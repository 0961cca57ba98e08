"""Masks as NumPy saves them: `.npy` and `.npz`."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from emavos.annotations.shapes import frame_name
from emavos.io.ids import IdMask
from emavos.io.images import MAX_PIXELS, PathLike, check_file

MOST_BYTES = 1 << 29  # of the arrays of a file


def read_arrays(path: PathLike) -> dict[str | int, IdMask]:
    """The masks of a file, by the name or the number of their frame.

    A `.npy` has ids (H, W), for frame 0; ids (T, H, W), for frames 0, 1, ...; or planes (O, H, W) of bool,
    one for each of the objects 1, 2, ... of frame 0. A `.npz` has one such array, or `masks` and `names` as
    `write_stack` writes them. No code in the file is executed.

    Raises ValueError with the name of the file if the file has something else, or more than 512 MB.
    """
    check_file(path, "a mask")
    with open(path, "rb") as file:
        try:
            if Path(path).suffix.lower() == ".npz":
                return _of_archive(file)
            _check(file)
            file.seek(0)
            return _masks_of(np.load(file, allow_pickle=False))
        except MemoryError:
            raise
        except Exception as error:  # zipfile, zlib and NumPy raise whatever their readers do
            raise ValueError(f"{path} cannot be read as a mask: {error}") from error


def _of_archive(file: BinaryIO) -> dict[str | int, IdMask]:
    with zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        members = ["masks", "names"] if {"masks", "names"} <= {*names} else names
        if len(members) != 1 and members != ["masks", "names"]:
            raise ValueError(f"it holds {', '.join(names)!r:.100}; save one array, or `masks` and `names`")
        for name in members:
            with archive.open(f"{name}.npy") as member:
                _check(member)
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        masks = _masks_of(arrays[members[0]])
        if len(members) == 1:
            return masks
        called = [frame_name(name) for name in arrays["names"]]
    if len({*called}) != len(masks):
        raise ValueError(f"it has {len(called)} names for {len(masks)} masks, which need one each")
    return dict(zip(called, masks.values(), strict=True))


def _check(file: Any) -> None:
    """Raise ValueError if an array declares more than the limits, before memory is allocated."""
    version = np.lib.format.read_magic(file)
    formats: Mapping[Any, Any] = {(1, 0): np.lib.format.read_array_header_1_0}
    shape, _, dtype = formats.get(version, np.lib.format.read_array_header_2_0)(file)
    if dtype.hasobject:
        raise ValueError(
            "it is a pickle, which could run code; save its masks as numbers, np.save(path, masks), or as "
            "a label image (cellpose: _cp_masks.png)"
        )
    if dtype.kind not in "buifU" or any(side < 0 for side in shape):
        raise ValueError(f"it is {shape} of {dtype}; a mask holds whole ids")
    nbytes = math.prod(shape) * max(dtype.itemsize, 4)
    if nbytes > MOST_BYTES or (dtype.kind != "U" and math.prod(shape[-2:]) > MAX_PIXELS):
        raise ValueError(
            f"it declares {shape}, {nbytes} bytes, beyond {MOST_BYTES}, or a mask beyond {MAX_PIXELS} pixels"
        )


def _masks_of(array: NDArray[Any]) -> dict[str | int, IdMask]:
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and (array == np.floor(array)).all() and abs(array).max() < 2**24):
            raise ValueError("it holds fractions; threshold probabilities first, a mask holds whole ids")
        array = array.astype(np.int32)
    if array.ndim not in (2, 3) or not array.size:
        raise ValueError(f"it is {array.shape}; masks are (H, W), (T, H, W), or planes (O, H, W) of bool")
    if array.dtype.kind != "b" and not (int(array.min()) >= -(2**31) and int(array.max()) < 2**31):
        raise ValueError("ids are 32-bit integers")
    if array.ndim == 2:
        return {0: array.astype(np.int32)}
    if array.dtype.kind != "b":
        return {index: mask.astype(np.int32) for index, mask in enumerate(array)}
    if (array.sum(axis=0) > 1).any():
        raise ValueError(
            "planes of two objects overlap; combine them with bridges.first_mask(planes, scores=...)"
        )
    ids = np.arange(1, len(array) + 1, dtype=np.int32)
    mask = np.zeros(array.shape[1:], np.int32)
    for id, plane in zip(ids, array, strict=True):
        mask[plane] = id
    return {0: mask}
