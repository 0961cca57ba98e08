"""The chunks of a PNG: whether checksums are right, and whether each picture has all rows."""

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
    for _ in _blocks(file):
        pass


def check_rows(file: BinaryIO, image: Image.Image) -> None:
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
    for kind, _, block in _blocks(file):
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
    form, rows = bytes(13), None
    for kind, begins, block in _blocks(file):
        if kind == b"IHDR":
            form = block[:13].ljust(13, b"\0")
            rows = _Rows(form, *struct.unpack(">II", form[:8]))
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
            rows = _Rows(form, width, height, f"the pixels of picture {pictures}")
            pictures += 1
        elif kind in (b"IDAT", b"fdAT") and rows is not None:
            rows.add(block[4:] if begins and kind == b"fdAT" else block)
    if rows is not None:
        rows.check()
    if pictures < declared:
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


def _blocks(file: BinaryIO) -> Iterator[tuple[bytes, bool, bytes]]:
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
