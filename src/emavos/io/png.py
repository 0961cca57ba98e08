"""Write PNGs: masks of ids, pictures and mattes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from emavos.io.ids import MARK, mark_of, palette
from emavos.io.images import MAX_PIXELS, MAX_SIDE, PathLike, Pixels
from emavos.io.whole import replacing


def write_mask(path: PathLike, mask: NDArray[Any], colours: NDArray[np.uint8] | None = None) -> None:
    """Write ids (H, W) as a PNG: palette indices up to id 255, 16-bit gray up to id 65535.

    path: file to write.
    mask: (H, W) of ids.
    colours: (256, 3) of the palette: `palette()` (also None), as in overlays, or `davis_palette()`.

    The file is written atomically. Equal masks give equal bytes, and `read_mask` returns the same ids. Raises
    ValueError if the mask does not fit a PNG.
    """
    content = encode_mask(mask, colours)
    with replacing(Path(path)) as partial:
        partial.write_bytes(content)


def encode_mask(mask: NDArray[Any], colours: NDArray[np.uint8] | None = None) -> bytes:
    """The bytes written by `write_mask`."""
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise ValueError(f"a mask is (H, W) of integers, not {mask.shape} of {mask.dtype}")
    if not 0 < mask.size <= MAX_PIXELS:
        raise ValueError(f"a mask of a file has from 1 to {MAX_PIXELS} pixels, not {mask.shape}")
    if max(mask.shape) > MAX_SIDE:
        raise ValueError(f"a side of a mask of a file has at most {MAX_SIDE} pixels, not {mask.shape}")
    low, high = int(mask.min()), int(mask.max())
    if low < 0 or high > 0xFFFF:
        raise ValueError(f"id {low if low < 0 else high} has no place in a PNG; ids of files are 0 to 65535")
    notes = PngInfo()
    image = Image.fromarray(mask.astype(np.uint8 if high <= 0xFF else np.uint16))
    if high <= 0xFF:
        image.putpalette((palette() if colours is None else colours).tobytes())
    else:  # the mark distinguishes 16-bit ids from shades of gray
        notes.add_text(MARK, mark_of(mask))
    file = io.BytesIO()
    image.save(file, format="PNG", pnginfo=notes)
    return file.getvalue()


def write_image(path: PathLike, image: Image.Image | Pixels) -> None:
    """Write a PNG, atomically.

    path: file to write.
    image: a PIL image, or an array: (H, W, 3) of uint8, or (H, W, 4) with opacity.
    """
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    with replacing(Path(path)) as partial:
        image.save(partial, format="PNG", pnginfo=PngInfo())


def write_matte(path: PathLike, matte: NDArray[np.floating[Any]], bits: int = 8) -> None:
    """Write a matte, (H, W) in [0, 1], as a gray PNG: 0 is black, 1 is white. Atomically.

    path: file to write.
    matte: opacity of each pixel, such as `result.matte()`.
    bits: 8 or 16 for each pixel.
    """
    if matte.ndim != 2 or matte.dtype.kind != "f" or not ((matte >= 0) & (matte <= 1)).all():
        raise ValueError(f"a matte is (H, W) of floats in [0, 1], not {matte.shape} of {matte.dtype}")
    if bits not in (8, 16):
        raise ValueError(f"bits are 8 or 16, not {bits!r:.40}")
    white, kind = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    write_image(path, Image.fromarray(np.rint(matte.astype(np.float64) * white).astype(kind)))
