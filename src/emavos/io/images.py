"""Image files: frames and masks in, PNGs out."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from emavos.io.whole import replacing
from emavos.pictures import MARK, IdMask, Pixels, ids_of_picture, mark_of, palette, pixels_of

# Read by their content, whatever the name says. Pillow knows more, some of which start other programs (EPS).
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 2**27  # of a frame: 16384 x 8192. What declares more is refused before it is decoded.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

PathLike = str | os.PathLike[str]


def list_images(folder: PathLike) -> list[Path]:
    """The image files of a folder, in natural order; hidden files and all others are passed over."""
    found = [p for p in Path(folder).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
    if not found:
        raise ValueError(f"{folder} holds no images ({', '.join(sorted(s[1:] for s in IMAGE_SUFFIXES))})")
    return sorted(found, key=_natural)


def read_frame(path: PathLike) -> Pixels:
    """The picture of an image file, (H, W, 3) of uint8, upright, over black where it is transparent."""
    return pixels_of(read_image(path), os.fspath(path))


def read_mask(path: PathLike) -> IdMask:
    """The ids of a mask file, (H, W) int32: palette indices, gray values of 8 or 16 bits, 0 and 1 of 1 bit.

    Raises ValueError where the file holds colours, or the blur of anti-aliasing or of lossy compression,
    rather than ids.
    """
    return ids_of_picture(read_image(path), os.fspath(path))


def write_mask(path: PathLike, mask: NDArray[Any]) -> None:
    """Write ids (H, W) as a PNG: palette in the colours of DAVIS up to id 255, 16-bit gray up to id 65535.

    The file appears whole or not at all, equal masks give equal bytes, and `read_mask` gives the same ids.
    Raises ValueError where a PNG that is read again cannot hold the mask.
    """
    content = encode_mask(mask)
    with replacing(Path(path)) as partial:
        partial.write_bytes(content)


def encode_mask(mask: NDArray[Any]) -> bytes:
    """What `write_mask` writes."""
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise ValueError(f"a mask is (H, W) of integers, not {mask.shape} of {mask.dtype}")
    if not 0 < mask.size <= MAX_PIXELS:
        raise ValueError(f"a mask of a file has from 1 to {MAX_PIXELS} pixels, not {mask.shape}")
    low, high = int(mask.min()), int(mask.max())
    if low < 0 or high > 0xFFFF:
        raise ValueError(f"id {low if low < 0 else high} has no place in a PNG; ids of files are 0 to 65535")
    notes = PngInfo()
    image = Image.fromarray(mask.astype(np.uint8 if high <= 0xFF else np.uint16))
    if high <= 0xFF:
        image.putpalette(palette().tobytes())
    else:  # nothing tells these ids from shades of gray
        notes.add_text(MARK, mark_of(mask))
    file = io.BytesIO()
    image.save(file, format="PNG", pnginfo=notes)
    return file.getvalue()


def write_image(path: PathLike, image: Image.Image | Pixels) -> None:
    """Write a PNG that appears whole or not at all."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    with replacing(Path(path)) as partial:
        image.save(partial, format="PNG", pnginfo=PngInfo())


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Numbers in a name count as numbers; the name itself decides between 1.png and 01.png."""
    parts = re.split(r"([0-9]+)", path.stem.lower())  # text at even places, digits at odd ones
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def read_image(path: PathLike) -> Image.Image:
    """A whole image in memory, upright, its format remembered."""
    check_file(path, "an image")
    return decode_image(path, os.fspath(path))


def decode_image(content: PathLike | BinaryIO, name: str) -> Image.Image:
    """As `read_image`, of a file that is open or whose path was checked, called `name` in errors."""
    try:
        with Image.open(content, formats=FORMATS) as file:
            width, height = file.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"it declares {height}x{width} (height x width), beyond {MAX_PIXELS} pixels")
            image = ImageOps.exif_transpose(file)
            image.load()
            image.format = file.format
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders do
        raise ValueError(f"{name} is not an image that can be read: {error or repr(error)}") from error
    return image


def check_file(path: PathLike, what: str) -> None:
    """Raise unless it is a regular file: opening a pipe or a device would wait, or never end."""
    if os.path.isfile(path):
        return
    if not os.path.exists(path):
        raise FileNotFoundError(f"{os.fspath(path)} does not exist")
    kind = "a folder" if os.path.isdir(path) else "a pipe or a device"
    raise ValueError(f"{os.fspath(path)} is {kind}, not {what}")
