"""Image files: frames as pixels and masks as ids, one at a time or as a source of frames."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from emavos.io.addresses import absent
from emavos.io.ids import MARK, WHITE, IdMask, ids_of_picture, is_known_palette
from emavos.io.notices import notice
from emavos.io.source import FrameSource
from emavos.io.tiff import kinds_of_pages, planes_of

# Recognised by content, not by name. Pillow supports more formats, some of which start other programs (EPS).
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# pixels of a frame, as in 16384 x 8192. Larger declared sizes are refused before decoding.
MAX_PIXELS = 2**27
MAX_SIDE = 2**24  # of an image in pixels; Pillow counts the bits of a row with 31 bits
_KINDS = "bmp dib jfif jpe jpeg jpg pbm pgm png pnm ppm tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split())
_ORIENTATION = 274  # the tag Orientation of EXIF
_DESCRIPTION = 270  # the tag ImageDescription of a TIFF
# formats with several pictures per file; the second of a JPEG is only a preview
_PAGED = ("GIF", "PNG", "TIFF", "WEBP")
_DEEP = (".pgm", ".png", ".pnm", ".tif", ".tiff")  # formats with 16-bit images
_LOOKED_AT = 16  # images whose values choose a window
_BLOCK = 1 << 20  # bytes of a PNG that are read or inflated at a time
_UNKNOWN = 2**32 - 1  # pictures that a stream declares, as it cannot know their number
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by colour type
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

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


def read_image(path: PathLike) -> Image.Image:
    """A fully loaded image, upright, with its format. Raises ValueError if the file has several pictures."""
    check_file(path, "an image")
    return decode_image(path, os.fspath(path))


def decode_image(content: PathLike | BinaryIO, name: str) -> Image.Image:
    """Like `read_image`, for an open file or a checked path; `name` is used in error messages."""
    with _opened_as(content, name) as file:
        _check_pixels(file)
        if file.format in _PAGED and (pages := len(_pages(file))) > 1:
            raise ValueError(
                f"it holds {pages} pictures; pass the file as the video, or save one picture per file; masks "
                "of several frames can be a .npy of ids (T, H, W) too"
            )
        white = _white_of_ppm(file)
        with _bytes_of(content) as raw:
            if file.format == "PNG":
                check_sums(raw)
            elif file.format in ("JPEG", "PPM"):
                _check_end(raw, file.format)
            image = _loaded(file)
            if file.format == "PNG":
                _check_rows(raw, file)
        if white is not None:
            image.info[WHITE] = white
        return image


def pages_of(path: PathLike) -> Iterator[Image.Image]:
    """The pictures of a TIFF, an animated PNG or WebP, each fully loaded and upright."""
    with _opened(path) as file:
        opened: Any = file  # Pillow's types lack `decoderconfig`
        if file.format == "PNG":
            with _bytes_of(path) as raw:
                check_pictures(raw)
        for page in _pages(file):
            file.seek(page)
            _check_pixels(file)
            opened.decoderconfig = ()  # Pillow adds to it at each picture that is interlaced, and then fails
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
        return (width, height) if file.getexif().get(_ORIENTATION, 1) >= 5 else (height, width)


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
    if image.getexif().get(_ORIENTATION, 1) != 1:  # `exif_transpose` copies upright pictures too
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
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


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


class Images(FrameSource):
    """Image files, one frame each."""

    stored = True

    def __init__(self, files: Sequence[Path], window: Window | None = None) -> None:
        self.files = list(files)
        self._asked = window is not None
        self._window = window or _window_of(self.files)
        stems = [file.stem for file in self.files]
        self._named = len(set(stems)) == len(stems)  # otherwise frames are named by number
        self._indices = {stem: index for index, stem in enumerate(stems)} if self._named else {}
        composed = {normalize("NFC", stem): index for stem, index in self._indices.items()}
        self._composed = composed if len(composed) == len(self._indices) else {}
        self.count = len(self.files)

    def __iter__(self) -> Iterator[Pixels]:
        return (self[index] for index in range(len(self.files)))

    def reel(self) -> Images:
        return self

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Pixels:
        return _read_image(self.files[index], self._window, self._asked)

    def name(self, index: int) -> str:
        return self.files[index].stem if self._named else super().name(index)

    def find(self, name: str) -> int | None:
        if not self._named:
            return super().find(name)
        # macOS and its archives may write é as two characters
        return self._indices.get(name, self._composed.get(normalize("NFC", name)))

    def size(self) -> tuple[int, int] | None:
        with suppress(ValueError, OSError):  # reported when the file is read
            return header_size(self.files[0])
        return None


class Pages(FrameSource):
    """The pages of a TIFF, or the pictures of an animated PNG or WebP."""

    stored = True

    def __init__(self, path: Path, window: Window | None = None) -> None:
        self._path = path
        self._window = window
        self.count, self.fps = count_pages(path)

    def __iter__(self) -> Iterator[Pixels]:
        window = self._window
        self._tell_of_planes()
        for index, page in enumerate(pages_of(self._path)):
            if not index and window is None:
                window = _window_up_to([_highest(page)], os.fspath(self._path))
            yield pixels_of(page, f"picture {index} of {self._path}", window)

    def size(self) -> tuple[int, int] | None:
        return header_size(self._path)

    def _tell_of_planes(self) -> None:
        """Warn if pages are channels or slices of one time, as each page is a frame."""
        with _opened(self._path) as file:
            channels, slices = planes_of(getattr(file, "tag_v2", {}).get(_DESCRIPTION))
        planes = channels * slices
        if planes > 1 and self.count and self.count >= planes:
            each = " and ".join(
                [f"{channels} channels"] * (channels > 1) + [f"{slices} slices"] * (slices > 1)
            )
            notice(
                f"{self._path} has {each} at each time, and each of its {self.count} pages is a frame here; "
                f"for one of them, pass --step {planes} with --start, or step= and start= to open_frames",
                stacklevel=4,
            )


def _read_image(path: Path, window: Window | None, asked: bool) -> Pixels:
    """Returns the pixels of an image file.

    asked: whether the user asked for the window, so that every image must be gray with 16 or 32 bits.
    """
    image = read_image(path)
    refuse_mask(image, path)
    return pixels_of(image, os.fspath(path), window if asked or is_deep(image) else None)


def _window_of(files: Sequence[Path]) -> Window | None:
    """The window for 16-bit images with few bits in use, from a few evenly spaced images."""
    with suppress(ValueError, OSError, IndexError):  # reported when the files are read
        if files[0].suffix.lower() not in _DEEP or not is_deep(read_image(files[0])):
            return None
        step = -(-len(files) // _LOOKED_AT)
        highest = [_highest(read_image(path)) for path in files[::step]]
        return _window_up_to(highest, os.fspath(files[0].parent))
    return None


def _highest(image: Image.Image) -> int:
    """The highest value of a 16-bit picture; 65535 for 32-bit values or other pictures."""
    values = np.array(image) if is_deep(image) and image.mode != "F" else np.array([-1])
    return int(values.max()) if values.size and values.min() >= 0 else 0xFFFF


def _window_up_to(highest: Sequence[int], name: str) -> Window | None:
    """A window from 0 to the largest number with as many bits as used, if few are used, and a note."""
    bits = max(highest).bit_length()
    if not 0 < bits <= 14:
        return None
    white = 2**bits - 1
    notice(
        f"{name}: images of 16 bits use the lower {bits}; all frames are shown from 0 to {white} "
        f"(--window 0,{white})",
        stacklevel=6,
    )
    return 0.0, float(white)


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
        if isinstance(error, OSError) and error.filename is not None:  # the system cannot open it
            raise
        raise ValueError(f"{name} is not an image that can be read: {error or repr(error)}") from error


def check_sums(file: BinaryIO) -> None:
    """Raise ValueError if a chunk of a PNG is cut or its checksum wrong. The position in the file stays."""
    for _ in _blocks_of_png(file):
        pass


def _check_rows(file: BinaryIO, image: Image.Image) -> None:
    """Raise ValueError if the pixels of a PNG end before its last row. The position in the file stays.

    file: PNG.
    image: the picture as decoded by Pillow, not turned. Rows are counted only if its last row may be missing.
    """
    place = file.tell()
    file.seek(16)
    form = file.read(13)
    file.seek(place)
    width, height = image.size
    if not form[12] and np.asarray(image.crop((0, height - 1, width, height))).any():  # not interlaced
        return
    rows = _Rows(form, width, height)
    for kind, _, block in _blocks_of_png(file):
        if kind == b"IDAT":
            rows.add(block)
    rows.check()


def check_pictures(file: BinaryIO) -> None:
    """Raise ValueError if an animated PNG is damaged, or lacks a picture or rows of one.

    The position in the file stays. FFmpeg shows missing rows as they were in the picture before, and Pillow
    shows them as zeros.
    """
    check_sums(file)
    declared, pictures, number = 0, 0, 0
    form, largest, rows = bytes(13), (0, 0), None
    for kind, begins, block in _blocks_of_png(file):
        if kind == b"IHDR":
            form = block[:13].ljust(13, b"\0")
            largest = struct.unpack(">II", form[:8])
            rows = _Rows(form, *largest)
        elif kind == b"acTL":
            declared = int.from_bytes(block[:4], "big")
        if begins and kind in (b"fcTL", b"fdAT"):
            if int.from_bytes(block[:4], "big") != number:
                raise ValueError("its pictures are not numbered in order, so that parts of them are missing")
            number += 1
        if kind == b"fcTL":
            if pictures and rows is not None:
                rows.check()
            width, height = struct.unpack(">II", block[4:12].ljust(8, b"\0"))
            if width > largest[0] or height > largest[1]:
                raise ValueError(f"picture {pictures} is larger than the file declares")
            rows = _Rows(form, width, height, f"the pixels of picture {pictures}")
            pictures += 1
        elif kind in (b"IDAT", b"fdAT") and rows is not None:
            rows.add(block[4:] if begins and kind == b"fdAT" else block)
    if rows is not None:
        rows.check()
    if pictures < declared < _UNKNOWN:
        raise ValueError(f"it declares {declared} pictures but has {pictures}")


class _Rows:
    """Counts the bytes that the compressed rows of one picture inflate to."""

    def __init__(self, form: bytes, width: int, height: int, name: str = "its pixels") -> None:
        """form: the 13 bytes of the header of the file, which count for all pictures."""
        self._name = name
        bits, colour, _, _, interlaced = form[8:]
        passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
        sizes = ((-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes)
        pixel = bits * _CHANNELS.get(colour, 1)
        # a row begins with the byte of its filter
        self._needed = sum((1 + -(-w * pixel // 8)) * h for w, h in sizes if w > 0 and h > 0)
        self._count = 0
        self._inflate = zlib.decompressobj()

    def add(self, block: bytes) -> None:
        try:
            while self._count < self._needed and (part := self._inflate.decompress(block, _BLOCK)):
                self._count += len(part)
                block = self._inflate.unconsumed_tail
        except zlib.error as error:
            raise ValueError(f"{self._name} are damaged ({error})") from error

    def check(self) -> None:
        if self._count < self._needed:
            raise ValueError(f"{self._name} end before its last row")


def _blocks_of_png(file: BinaryIO) -> Iterator[tuple[bytes, bool, bytes]]:
    """The kind of each chunk with its bytes, in blocks, and whether a block is the first of its chunk.

    Raises ValueError at a damaged chunk.
    """
    place = file.tell()
    file.seek(8)
    try:
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            length, kind = struct.unpack(">I4s", head)
            checksum, begins = zlib.crc32(kind), True
            while length and (block := file.read(min(length, _BLOCK))):
                length -= len(block)
                checksum = zlib.crc32(block, checksum)
                yield kind, begins, block
                begins = False
            end = file.read(4)
            if len(end) < 4:
                raise ValueError("it is truncated")
            if int.from_bytes(end, "big") != checksum:
                raise ValueError("it is damaged: a checksum is wrong")
    finally:
        file.seek(place)


def _check_end(file: BinaryIO, form: str) -> None:
    """Raise ValueError if a file ends too early in a way that Pillow does not see. The position stays.

    A JPEG without its end, followed by zeros as after a crash of the system, is decoded with wrong pixels. If
    numbers in a PPM are texts, the last one can be cut to a smaller one; white space belongs after it.
    """
    place = file.tell()
    file.seek(0)
    magic = file.read(2)
    file.seek(-1, os.SEEK_END)
    last = file.read(1)
    if form == "JPEG" and last == b"\0":
        file.seek(0)
        if not _has_end(file.read()):
            raise ValueError("it is truncated, and filled with zeros")
    if form == "PPM" and magic in (b"P2", b"P3") and last.isdigit():
        raise ValueError("its last number may be cut off; end the file with a line end")
    file.seek(place)


def _has_end(jpeg: bytes) -> bool:
    """Whether the end of the picture follows its pixels, in which no marker of an end occurs."""
    at = 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1 : at + 2] != b"\xda":
        fill = jpeg[at + 1 : at + 2] == b"\xff"
        at += 1 if fill else 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return jpeg.find(b"\xff\xd9", at) >= 0


def _white_of_ppm(file: Image.Image) -> int | None:
    """The largest value that a gray PPM declares, if Pillow scales its values so that it is white."""
    if file.format != "PPM" or file.mode not in ("L", "I"):
        return None
    opened: Any = file  # Pillow's types lack `tile`
    decoder, _, _, options = opened.tile[0]
    return int(options[-1]) if decoder.startswith("ppm") else None


def _bytes_of(content: PathLike | BinaryIO) -> AbstractContextManager[BinaryIO]:
    return open(content, "rb") if isinstance(content, (str, os.PathLike)) else nullcontext(content)


def _check_pixels(file: Image.Image) -> None:
    width, height = file.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"it declares {height}x{width} (height x width), beyond {MAX_PIXELS} pixels")
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"it declares {height}x{width} (height x width), a side beyond {MAX_SIDE} pixels")


def _loaded(file: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(file)
    image.load()
    image.format = file.format
    return image


def _pages(file: Image.Image) -> Sequence[int]:
    """The indices of a file's pictures, without the reduced copies in a TIFF."""
    if file.format != "TIFF":
        count = getattr(file, "n_frames", 1)
        # a PNG's picture for programs without animations is none of its frames; as an image it is the picture
        first = int(count > 1 and bool(file.info.get("default_image")))
        return range(first, count)  # not a list, since a PNG may declare 2^31 pictures
    opened: Any = file  # Pillow's types lack `fp`
    kinds = kinds_of_pages(opened.fp)
    return [page for page, kind in enumerate(kinds) if not kind & 1] or [0]


def check_file(path: PathLike, what: str) -> None:
    """Raise unless the path is a regular file; opening a pipe or a device could block forever."""
    if os.path.isfile(path):
        return
    if not os.path.exists(path):
        raise absent(path)
    kind = "a folder" if os.path.isdir(path) else "a pipe or a device"
    raise ValueError(f"{os.fspath(path)} is {kind}, not {what}")
