"""Detect truncated video files. FFmpeg plays a truncated file without an error."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

_ASF = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # GUID of the file properties object
_NUT_INDEX = bytes.fromhex("4e58dd672f23e64e")
_CLUSTER, _SEGMENT = 0x1F43B675, 0x18538067
_TO_ITS_END = ("obu", "yuv4mpegpipe")  # formats whose last frame ends at the end of the file


def is_cut(path: Path, kind: str, end: int | None) -> bool | None:
    """True if the file is truncated, False if complete, None if the container does not show.

    path: video file.
    kind: FFmpeg's name of the container, several names separated by commas.
    end: end of the last packet in bytes, if known.
    """
    names = kind.split(",")
    if end is not None and not {*names}.isdisjoint(_TO_ITS_END):
        return end < path.stat().st_size
    check = next((_CHECKS[name] for name in names if name in _CHECKS), None)
    if check is None:
        return None
    with path.open("rb") as file:
        try:
            return check(file, path.stat().st_size)
        except (EOFError, struct.error):
            return True


def is_fragmented(path: Path) -> bool:
    """Whether an MP4 lists its frames in fragments, so that the header counts only the first fragment."""
    with path.open("rb") as file:
        try:
            return any(name == b"moof" for name, _ in _boxes(file, path.stat().st_size))
        except (EOFError, struct.error):
            return False


def _mp4(file: BinaryIO, size: int) -> bool | None:
    known = None
    for name, end in _boxes(file, size):
        if end > size:
            return True
        if name == b"moof":
            return None  # a cut between two fragments leaves no trace
        known = False if name == b"moov" else known
    return known


def _boxes(file: BinaryIO, size: int) -> list[tuple[bytes, int]]:
    """The name and end of each top-level box of an MP4, ends in bytes."""
    boxes, at = list[tuple[bytes, int]](), 0
    while at + 8 <= size and len(boxes) < 100_000:
        file.seek(at)
        length, name = struct.unpack(">I4s", _take(file, 8))
        if length == 1:
            (length,) = struct.unpack(">Q", _take(file, 8))
        at = size if length == 0 else at + max(length, 8)
        boxes.append((name, at))
    return boxes


def _matroska(file: BinaryIO, size: int) -> bool | None:
    at = 0
    for _ in range(10_000_000):
        if at >= size:
            return None  # a stream without a declared length
        file.seek(at)
        name, begin = _vint(file, at, keep=True)
        length, begin = _vint(file, begin, keep=False)
        if name == _SEGMENT and length is not None:
            return begin + length > size
        if name is None or (length is None and name not in (_SEGMENT, _CLUSTER)):
            return None
        at = begin + (length or 0)
        if at > size:
            return True
    return None


def _vint(file: BinaryIO, at: int, keep: bool) -> tuple[int | None, int]:
    """An EBML number and its end in bytes, with or without its marker; None if unknown or invalid."""
    first = _take(file, 1)[0]
    count = 9 - first.bit_length()
    if count > 8:
        return None, at + 1
    value = int.from_bytes(bytes([first]) + _take(file, count - 1), "big")
    if not keep:
        value &= (1 << 7 * count) - 1
        return (None if value == (1 << 7 * count) - 1 else value), at + count
    return value, at + count


def _asf(file: BinaryIO, size: int) -> bool | None:
    head = file.read(1 << 16)
    if (at := head.find(_ASF)) < 0:
        return None
    (declared,) = struct.unpack_from("<Q", head, at + 40)
    (flags,) = struct.unpack_from("<I", head, at + 88)
    return None if flags & 1 or not declared else bool(declared > size)  # lowest bit: a live stream


def _gif(file: BinaryIO, size: int) -> bool:
    head = _take(file, 13)
    at = 13 + _colours(head[10])
    while at < size:
        file.seek(at)
        kind = _take(file, 1)[0]
        if kind == 0x3B:
            return False
        if kind == 0x2C:
            at += 11 + _colours(_take(file, 9)[8])
        elif kind == 0x21:
            at += 2
        else:
            return False  # not a GIF block; left to the decoder
        file.seek(at)
        while length := _take(file, 1)[0]:
            at += 1 + length
            file.seek(at)
        at += 1
    return True


def _colours(flags: int) -> int:
    """The size of a colour table in bytes."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _mjpeg(file: BinaryIO, size: int) -> bool:
    return not _tail(file, size).rstrip(b"\0").endswith(b"\xff\xd9")


def _nut(file: BinaryIO, size: int) -> bool | None:
    return False if _NUT_INDEX in _tail(file, size, 1 << 22) else None


def _mpegts(file: BinaryIO, size: int) -> bool | None:
    head = file.read(1 << 14)
    for length, offset in ((188, 0), (192, 4), (204, 0)):
        marks = head[offset::length][: min(len(head), size) // length]
        if len(marks) > 3 and set(marks) == {0x47}:
            return True if size % length else None
    return None


def _tail(file: BinaryIO, size: int, count: int = 4096) -> bytes:
    file.seek(max(size - count, 0))
    return file.read(count)


def _take(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise EOFError
    return content


_CHECKS: Mapping[str, Callable[[BinaryIO, int], bool | None]] = {
    "asf": _asf,
    "gif": _gif,
    "matroska": _matroska,
    "mjpeg": _mjpeg,
    "mov": _mp4,
    "mpegts": _mpegts,
    "nut": _nut,
}
