"""Image files: read frames as pixels and masks as ids, write PNGs."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from emavos.io.ids import MARK, IdMask, ids_of_picture, is_known_palette, mark_of, palette
from emavos.io.source import notice
from emavos.io.whole import replacing

# Recognised by content, not by name. Pillow supports more formats, some of which start other programs (EPS).
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# pixels of a frame, as in 16384 x 8192. Larger declared sizes are refused before decoding.
MAX_PIXELS = 2**27
_KINDS = "bmp dib jfif jpe jpeg jpg pbm pgm png pnm ppm tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split())
# formats with several pictures per file; the second of a JPEG is only a preview
_PAGED = ("GIF", "PNG", "TIFF", "WEBP")

PathLike = str | os.PathLike[str]
Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
Window = tuple[float, float]  # (low, high): values of a deep picture shown as black and white


def read_frame(path: PathLike, window: Window | None = None) -> Pixels:
    """The pixels of an image file, (H, W, 3) uint8, upright, with transparent parts on black.

    path: image file.
    window: see `pixels_of`.
    """
    return pixels_of(read_image(path), os.fspath(path), window)


def read_mask(path: PathLike) -> IdMask:
    """The ids of a mask file, (H, W) int32: palette indices, 8- or 16-bit gray values, or 0 and 1.

    Raises ValueError if the file has colours instead of ids, or is blurred by anti-aliasing or lossy
    compression.
    """
    return ids_of_picture(read_image(path), os.fspath(path))


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


def read_image(path: PathLike) -> Image.Image:
    """A fully loaded image, upright, with its format. Raises ValueError if the file has several pictures."""
    check_file(path, "an image")
    return decode_image(path, os.fspath(path))


def decode_image(content: PathLike | BinaryIO, name: str) -> Image.Image:
    """Like `read_image`, for an open file or a checked path; `name` is used in error messages."""
    with _opened_as(content, name) as file:
        _check_pixels(file)
        if file.format in _PAGED and (pages := len(_pages(file))) > 1:
            raise ValueError(f"it holds {pages} pictures; name it as the video, or save one picture a file")
        return _loaded(file)


def pages_of(path: PathLike) -> Iterator[Image.Image]:
    """The pictures of a TIFF, an animated PNG or WebP, each fully loaded and upright."""
    with _opened(path) as file:
        for page in _pages(file):
            file.seek(page)
            _check_pixels(file)
            yield _loaded(file)


def count_pages(path: PathLike) -> tuple[int, float | None]:
    """The number of pictures in an image file, and the frames per second if declared."""
    with _opened(path) as file:
        count = len(_pages(file)) if file.format in _PAGED else 1
        if count > 1:
            _check_pixels(file)
            file.load()  # a WebP has durations only after decoding
        shown = file.info.get("duration")  # milliseconds
        return count, 1000 / shown if count > 1 and isinstance(shown, (int, float)) and shown > 0 else None


def header_size(path: PathLike) -> tuple[int, int]:
    """The (H, W) of an image as displayed, read from the header only."""
    with _opened(path) as file:
        width, height = file.size
        return (width, height) if file.getexif().get(0x0112, 1) >= 5 else (height, width)


def refuse_mask(image: Image.Image, path: PathLike) -> None:
    """Raise ValueError if a picture is a mask, in the form written by `write_mask` or DAVIS."""
    colours = (image.getpalette() or []) if image.mode == "P" else []
    if (len(colours) >= 12 and is_known_palette(colours)) or MARK in image.info:
        raise ValueError(
            f"{path} is a mask of object ids, and lies among the frames; move it to a folder of its own"
        )


def pixels_of(image: Image.Image, name: str = "the frame", window: Window | None = None) -> Pixels:
    """The pixels of a picture, (H, W, 3) uint8, upright, with transparent parts on black.

    image: picture.
    name: name of the picture for error messages.
    window: (low, high) for gray pictures with 16 or 32 bits: values up to low become black, values from high
        become white. None uses 0 to 65535.

    Raises ValueError if a channel has 32 bits and there is no window, or 8 bits and there is one.
    """
    image = ImageOps.exif_transpose(image)
    if is_deep(image):  # convert() would clip 16 bits to 8
        gray = np.array(image)
        if window is not None:
            low, high = window
            scaled = np.nan_to_num((gray.astype(np.float64) - low) * 255 / (high - low)).clip(0, 255)
            return np.repeat((scaled + 0.5).astype(np.uint8)[..., None], 3, axis=2)
        if gray.dtype.kind == "f" or gray.min() < 0 or gray.max() > 0xFFFF:
            raise ValueError(f"{name} has 32 bits per channel; choose black and white: --window LOW,HIGH")
        if 0 < (bits := int(gray.max()).bit_length()) <= 14:
            notice(
                f"a 16-bit picture uses only the lower {bits} bits and looks nearly black; choose white "
                f"for all frames: --window 0,{2**bits - 1}, or open_frames(..., window=(0, {2**bits - 1}))",
                stacklevel=2,
            )
        gray = ((gray.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if window is not None:
        raise ValueError(f"{name} has 8 bits per channel; a window is for gray of 16 or 32 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return np.array(image.convert("RGB"))


def is_deep(image: Image.Image) -> bool:
    """Whether a picture is gray with 16 or 32 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def check_window(window: object) -> Window | None:
    """The window (low, high) as two finite numbers. Raises ValueError unless low is below high."""
    if window is None:
        return None
    parts = window if isinstance(window, (tuple, list)) else ()
    if len(parts) != 2 or not all(isinstance(v, (int, float)) and abs(v) < 2.0**64 for v in parts):
        raise ValueError(f"a window is two numbers, (low, high), not {window!r:.60}")
    low, high = float(parts[0]), float(parts[1])
    if not low < high:
        raise ValueError(f"the low end of a window is below its high end, not {low:g} to {high:g}")
    return low, high


@contextmanager
def _opened(path: PathLike) -> Iterator[Image.Image]:
    check_file(path, "an image")
    with _opened_as(path, os.fspath(path)) as file:
        yield file


@contextmanager
def _opened_as(content: PathLike | BinaryIO, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(content, formats=FORMATS) as file:
            yield file
    except (MemoryError, GeneratorExit):
        raise
    except Exception as error:  # Pillow's decoders raise errors of any type
        raise ValueError(f"{name} is not an image that can be read: {error or repr(error)}") from error


def _check_pixels(file: Image.Image) -> None:
    width, height = file.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"it declares {height}x{width} (height x width), beyond {MAX_PIXELS} pixels")


def _loaded(file: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(file)
    image.load()
    image.format = file.format
    return image


def _pages(file: Image.Image) -> Sequence[int]:
    """The indices of a file's pictures, without the reduced copies in a TIFF."""
    if file.format != "TIFF":
        return range(getattr(file, "n_frames", 1))  # not a list, since a PNG may declare 2^31 pictures
    opened: Any = file  # Pillow's types lack `fp`
    kinds = _kinds_of_pages(opened.fp)
    return [page for page, kind in enumerate(kinds) if not kind & 1] or [0]


def _kinds_of_pages(file: Any) -> list[int]:
    """NewSubfileType of each picture of a TIFF; bit 0 marks a reduced copy.

    Pillow counts pictures in quadratic time, so a file of 2 MB could keep it busy for hours.

    Raises ValueError if the list of pictures is cut off, or larger than the file.
    """
    start, size = file.tell(), file.seek(0, os.SEEK_END)

    def numbers(form: str, place: int) -> tuple[int, ...]:
        file.seek(place)
        content = file.read(struct.calcsize(order + form))
        try:
            return struct.unpack(order + form, content)
        except struct.error as error:
            raise ValueError("its list of pictures is cut off") from error

    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    # BigTIFF has the number 43, and longer counts, entries and places in the file
    big = 43 in numbers("BB", 2)
    count_form, entry, place_form, value = ("Q", 20, "Q", 12) if big else ("H", 12, "I", 8)
    kinds, seen, read = list[int](), set[int](), 0
    (place,) = numbers(place_form, 8 if big else 4)
    while place and place not in seen:  # a list that leads back to itself ends there, as for Pillow
        seen.add(place)
        (count,) = numbers(count_form, place)
        place += struct.calcsize(count_form)
        read += count * entry
        if read > size:
            raise ValueError("its list of pictures is larger than the file")
        file.seek(place)
        entries = file.read(count * entry)
        kind = 0
        for at in range(0, len(entries) - entry + 1, entry):
            if struct.unpack_from(f"{order}H", entries, at)[0] == 254:
                (form,) = struct.unpack_from(f"{order}H", entries, at + 2)
                (kind,) = struct.unpack_from(order + ("H" if form == 3 else "I"), entries, at + value)
        kinds.append(kind)
        (place,) = numbers(place_form, place + count * entry)
    file.seek(start)
    return kinds


def check_file(path: PathLike, what: str) -> None:
    """Raise unless the path is a regular file; opening a pipe or a device could block forever."""
    if os.path.isfile(path):
        return
    if not os.path.exists(path):
        raise FileNotFoundError(f"{os.fspath(path)} does not exist")
    kind = "a folder" if os.path.isdir(path) else "a pipe or a device"
    raise ValueError(f"{os.fspath(path)} is {kind}, not {what}")
