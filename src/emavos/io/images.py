"""Image files: frames and masks in, PNGs out."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from emavos.io.whole import replacing

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

PathLike = str | os.PathLike[str]
Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
IdMask = NDArray[np.int32]  # (H, W), 0 the background


def list_images(folder: PathLike) -> list[Path]:
    """The image files of a folder, in natural order; hidden files and all others are passed over."""
    found = [p for p in Path(folder).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
    if not found:
        raise ValueError(f"{folder} holds no images ({', '.join(sorted(s[1:] for s in IMAGE_SUFFIXES))})")
    return sorted(found, key=_natural)


def read_frame(path: PathLike) -> Pixels:
    """The picture of an image file, (H, W, 3) of uint8, upright, over black where it is transparent."""
    image = _read_image(path)
    if image.mode == "F" or image.mode.startswith("I"):  # convert() would clip 16 bits to 8
        gray = np.array(image)
        if gray.dtype.kind == "f" or gray.min() < 0 or gray.max() > 0xFFFF:
            raise ValueError(f"{path} has 32 bits a channel; save it with 8 or 16")
        gray = ((gray.astype(np.int64) + 128) // 257).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return np.array(image.convert("RGB"))


def read_mask(path: PathLike) -> IdMask:
    """The ids of a mask file, (H, W) int32: palette indices, gray values of 8 or 16 bits, 0 and 1 of 1 bit.

    Raises ValueError where the file holds colours, or the blur of anti-aliasing or of lossy compression,
    rather than ids.
    """
    image = _read_image(path)
    if image.format in ("JPEG", "MPO"):
        raise ValueError(f"{path} is a JPEG, whose compression blurs ids; save the mask as a PNG")
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        mask = np.array(image).astype(np.int32)
        if _looks_antialiased(mask):
            raise ValueError(
                f"{path} looks anti-aliased or compressed: {len(np.unique(mask))} different ids, most of "
                "them on edges alone; draw it without smoothing and save it as a PNG"
            )
        return mask
    pixels = np.array(image.convert("RGBA" if image.has_transparency_data else "RGB")).astype(np.uint32)
    packed = (pixels << (8 * np.arange(pixels.shape[2], dtype=np.uint32))).sum(axis=2)
    colours, indices = np.unique(packed, return_inverse=True)
    if len(colours) > 256 or _looks_antialiased(indices.reshape(packed.shape)):
        raise ValueError(
            f"{path} is an {image.mode} image of {len(colours)} colours that looks anti-aliased or "
            "compressed; a mask holds ids: draw it without smoothing and save it as a palette PNG"
        )
    raise ValueError(
        f"{path} is an {image.mode} mask of {len(colours)} colours; a mask holds ids: save it losslessly as "
        "a palette or gray PNG, one number for each colour and 0 for the background"
    )


def write_mask(path: PathLike, mask: NDArray[Any]) -> None:
    """Write ids (H, W) as a PNG: palette in the colours of DAVIS up to id 255, 16-bit gray up to id 65535.

    The file appears whole or not at all, and equal masks give equal bytes.
    """
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise ValueError(f"a mask is (H, W) of integers, not {mask.shape} of {mask.dtype}")
    low, high = (int(mask.min()), int(mask.max())) if mask.size else (0, 0)
    if low < 0 or high > 0xFFFF:
        raise ValueError(f"id {low if low < 0 else high} has no place in a PNG; ids of files are 0 to 65535")
    image = Image.fromarray(mask.astype(np.uint8 if high <= 0xFF else np.uint16))
    if high <= 0xFF:
        image.putpalette(palette().tobytes())
    write_image(path, image)


def write_image(path: PathLike, image: Image.Image | Pixels) -> None:
    """Write a PNG that appears whole or not at all."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    with replacing(Path(path)) as partial:
        image.save(partial, format="PNG")


@cache
def palette() -> Pixels:
    """The 256 colours of PASCAL VOC and DAVIS, (256, 3): black, maroon, green, olive, navy, ...

    The bits of an id are dealt to red, green and blue in turn, and fill each from its highest bit.
    """
    ids = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= (((ids >> bit) & 1) << (7 - bit // 3)).astype(np.uint8)
    colours.flags.writeable = False  # one array serves all callers
    return colours


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Numbers in a name count as numbers; the name itself decides between 1.png and 01.png."""
    parts = re.split(r"([0-9]+)", path.stem.lower())  # text at even places, digits at odd ones
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def _read_image(path: PathLike) -> Image.Image:
    """A whole image in memory, upright, its format remembered."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
            image.format = file.format
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not an image that can be read: {error}") from error
    return image


def _looks_antialiased(mask: NDArray[Any]) -> bool:
    """Many ids, most of which lie on edges alone: no pixel of theirs has its own id on all four sides."""
    ids = _distinct(mask)
    if len(ids) <= 16:
        return False
    centre = mask[1:-1, 1:-1]
    same = (centre == mask[:-2, 1:-1]) & (centre == mask[2:, 1:-1])
    same &= (centre == mask[1:-1, :-2]) & (centre == mask[1:-1, 2:])
    return len(_distinct(centre[same])) < len(ids) / 2


def _distinct(mask: NDArray[Any]) -> NDArray[Any]:
    """`np.unique`, ten times faster for small ids."""
    if mask.size and mask.min() >= 0 and mask.max() < 1 << 16:
        return np.bincount(mask.ravel()).nonzero()[0]
    return np.unique(mask)
