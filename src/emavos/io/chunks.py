"""Check the pixel data of a PNG: Pillow skips its checksums, and leaves missing rows at zero."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

_BLOCK = 1 << 20  # bytes that are read or inflated at a time
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def check_sums(file: BinaryIO) -> None:
    """Raise ValueError if a chunk of a PNG is cut or its checksum wrong. The position in the file stays."""
    for _ in _pixel_data(file):
        pass


def check_rows(file: BinaryIO, image: Image.Image) -> None:
    """Raise ValueError if the pixels of a PNG end before its last row. The position in the file stays.

    file: PNG.
    image: the picture as decoded by Pillow, not turned. Rows are counted only if its last row may be missing.
    """
    needed, interlaced = _layout(file)
    width, height = image.size
    if not interlaced and np.asarray(image.crop((0, height - 1, width, height))).any():
        return
    if _inflated(file, needed) < needed:
        raise ValueError("its pixels end before its last row")


def _layout(file: BinaryIO) -> tuple[int, bool]:
    """The bytes of all rows before compression, and whether they are interlaced."""
    place = file.tell()
    file.seek(16)
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", file.read(13))
    file.seek(place)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = ((-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes)
    # a row begins with the byte of its filter
    needed = sum((1 + -(-w * bits * _CHANNELS[colour] // 8)) * h for w, h in sizes if w > 0 and h > 0)
    return needed, bool(interlaced)


def _inflated(file: BinaryIO, most: int) -> int:
    """The number of bytes that the pixel data inflate to; counting ends at `most`."""
    inflate, count = zlib.decompressobj(), 0
    for block in _pixel_data(file):
        rest = block
        while count < most and (part := inflate.decompress(rest, _BLOCK)):
            count += len(part)
            rest = inflate.unconsumed_tail
    return count


def _pixel_data(file: BinaryIO) -> Iterator[bytes]:
    """The compressed pixels of the first picture, in blocks. Raises ValueError at a damaged chunk."""
    place = file.tell()
    file.seek(8)
    try:
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            length, kind = struct.unpack(">I4s", head)
            checksum = zlib.crc32(kind)
            while length and (block := file.read(min(length, _BLOCK))):
                length -= len(block)
                checksum = zlib.crc32(block, checksum)
                if kind == b"IDAT":
                    yield block
            end = file.read(4)
            if len(end) < 4:
                raise ValueError("it is truncated")
            if int.from_bytes(end, "big") != checksum:
                raise ValueError("it is damaged: a checksum is wrong")
    finally:
        file.seek(place)
