"""Detect video files that are cut or have holes. FFmpeg plays what is left without an error."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from emavos.io.images import check_pictures

_ASF = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # GUID of the file properties object
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_NUT_INDEX = bytes.fromhex("4e58dd672f23e64e")
_CLUSTER, _INFO, _SEGMENT = 0x1F43B675, 0x1549A966, 0x18538067
_SMPTE = bytes.fromhex("060e2b34")
_MXF = bytes.fromhex("060e2b34020501010d0102010102")  # of a header partition
_MXF_INDEX = bytes.fromhex("060e2b34020501010d0102010111")  # of the random index, the last part of a file
_FLV_TAGS = (8, 9, 15, 18)  # sound, pictures, and two of data
_TAGS = 1 << 16  # bytes after the end of an AVI that may be tags of a program
_TS = ((188, 0), (192, 4), (204, 0))  # sizes of an MPEG-TS packet, and the place of its mark, 0x47
_TO_ITS_END = ("obu", "yuv4mpegpipe")  # formats whose last frame ends at the end of the file


def is_cut(path: Path, kind: str, end: int | None) -> bool | None:
    """True if the file is truncated, False if complete, None if the container does not show.

    path: video file.
    kind: FFmpeg's name of the container, several names separated by commas.
    end: end of the last packet in bytes, if known.

    Raises Broken if the file has bytes that belong to no part of the container.
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


class Broken(Exception):
    """Bytes amid a file belong to no part of the container. FFmpeg passes over them, and over frames."""


def _stray(file: BinaryIO, at: int) -> None:
    """This place is not part of the container: returns None if only zeros follow, otherwise raises Broken."""
    file.seek(at)
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            raise Broken


def is_fragmented(path: Path) -> bool:
    """Whether an MP4 lists its frames in fragments, so that the header counts only the first fragment."""
    with path.open("rb") as file:
        try:
            return any(name == b"moof" for name, _ in _boxes(file, path.stat().st_size))
        except (EOFError, struct.error):
            return False


def _mp4(file: BinaryIO, size: int) -> bool | None:
    is_cut = None
    for name, end in _boxes(file, size):
        if end > size:
            return True
        if name == b"moof":
            return None  # a cut between two fragments leaves no trace
        is_cut = False if name == b"moov" else is_cut
    return is_cut


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
    at, ends = 0, None  # the end of the segment, if declared
    while at < size and at != ends:
        file.seek(at)
        name, begin = _vint(file, at, keep=True)
        if name is None:
            _stray(file, at)
            return None
        length, begin = _vint(file, begin, keep=False)
        if name == _SEGMENT and length is not None:
            ends = begin + length
            if ends > size:
                return True
        if name in (_SEGMENT, _CLUSTER):
            at = begin  # into it: what it has follows
            continue
        if length is None:
            return None
        at = begin + length
        if ends is not None and at > ends:
            raise Broken
    return True if at > size else None if ends is None else False


def declares_duration(path: Path) -> bool:
    """Whether a Matroska file declares a duration. Otherwise, FFmpeg estimates one from the bit rate."""
    with path.open("rb") as file, suppress(EOFError):
        at = 0
        while True:
            file.seek(at)
            name, begin = _vint(file, at, keep=True)
            length, begin = _vint(file, begin, keep=False)
            if name == _INFO and length is not None:
                return b"\x44\x89" in file.read(min(length, 1 << 16))
            if name in (None, _CLUSTER) or (length is None and name != _SEGMENT):
                return False
            at = begin if name == _SEGMENT else begin + (length or 0)
    return False


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
    flags, least, most = struct.unpack_from("<III", head, at + 88)
    if (begin := head.find(_ASF_DATA)) >= 0 and 0 < least == most:
        (count,) = struct.unpack_from("<Q", head, begin + 40)
        for place in range(begin + 50, min(begin + 50 + count * least, size), least):
            file.seek(place)
            if _take(file, 1) != head[begin + 50 : begin + 51]:  # all packets begin alike
                raise Broken
    return None if flags & 1 or not declared else bool(declared > size)  # lowest bit: a live stream


def _gif(file: BinaryIO, size: int) -> bool | None:
    head = _take(file, 13)
    at, twice = 13 + _colours(head[10]), False
    while at < size:
        file.seek(at)
        kind = _take(file, 1)[0]
        if kind == 0x3B:
            return False
        if kind == 0x2C:
            at += 11 + _colours(_take(file, 9)[8])
        elif kind == 0x21:
            at += 2
        elif kind == 0 and not twice:  # some writers end a block twice
            at, twice = at + 1, True
            continue
        else:
            raise Broken
        file.seek(at)
        while length := _take(file, 1)[0]:
            at += 1 + length
            file.seek(at)
        at, twice = at + 1, False
    return True


def _colours(flags: int) -> int:
    """The size of a colour table in bytes."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _mjpeg(file: BinaryIO, size: int) -> bool:
    return not _tail(file, size).rstrip(b"\0").endswith(b"\xff\xd9")


def _nut(file: BinaryIO, size: int) -> bool | None:
    return False if _NUT_INDEX in _tail(file, size, 1 << 22) else None


def _form_of_ts(file: BinaryIO) -> tuple[int, int] | None:
    """The size of the packets and the place of their mark; None if the file is not in packets."""
    head = file.read(1 << 14)
    length, offset = max(_TS, key=lambda form: head[form[1] :: form[0]].count(0x47))
    marks = head[offset::length][: len(head) // length]
    file.seek(0)
    # the first three show the form too, because a hole shifts all marks after it
    shown = len(marks) > 3 and (marks[:3] == 3 * b"\x47" or 2 * marks.count(0x47) > len(marks))
    return (length, offset) if shown else None


def gaps_in_ts(path: Path, stream: int) -> list[tuple[int, bool]]:
    """Where packets of a stream are missing in an MPEG transport stream.

    path: video file.
    stream: number of the stream's packets (PID).

    Returns the place of the next packet in bytes, and whether a key frame begins there.

    Each packet has the number of the one before plus 1, modulo 16, or the same if it is repeated. A jump
    at a key frame may be no gap: files that were joined have one there.
    """
    gaps: list[tuple[int, bool]] = []
    last = np.empty(0, np.int64)
    with path.open("rb") as file:
        if (form := _form_of_ts(file)) is None:
            return []
        length, offset = form
        begin = offset
        while block := file.read(length << 13):
            count = len(block) // length
            packets = np.frombuffer(block, np.uint8, count * length).reshape(count, length)
            heads = packets[:, offset : offset + 6].astype(np.int64)
            of_stream = (heads[:, 1] & 31) << 8 | heads[:, 2] == stream
            chosen = np.flatnonzero(of_stream & (heads[:, 3] & 16 > 0))  # with content
            heads, numbers = heads[chosen], heads[chosen, 3] & 15
            jumps = np.diff(numbers, prepend=last if len(last) else numbers[:1]) % 16 > 1
            # the flags of a new count and of a key frame
            key = (heads[:, 3] & 32 > 0) & (heads[:, 4] > 0) & (heads[:, 5] & 0xC0 > 0)
            gaps += zip((begin + length * chosen[jumps]).tolist(), key[jumps].tolist(), strict=True)
            last = numbers[-1:] if len(numbers) else last
            begin += len(block)
    return gaps


def _mpegts(file: BinaryIO, size: int) -> bool | None:
    if (form := _form_of_ts(file)) is None:
        return None
    length, offset = form
    while block := file.read(length << 13):
        marks = block[offset::length][: len(block) // length]
        if marks.strip(b"\x47"):
            raise Broken
    return True if size % length else None


def _flv(file: BinaryIO, size: int) -> bool | None:
    head = _take(file, 9)
    at, complete = int.from_bytes(head[5:9], "big") + 4, None
    whole = -1.0  # the size of the file, if declared
    while at + 15 <= size and at != whole:
        file.seek(at)
        tag = _take(file, 11)
        if tag[0] & 31 not in _FLV_TAGS:
            _stray(file, at)
            return None
        length = int.from_bytes(tag[1:4], "big")
        content = file.read(min(length, 4096))
        if tag[0] == 18 and (place := content.find(b"\x08filesize\0")) >= 0:
            (declared,) = struct.unpack_from(">d", content, place + 10)
            if declared > size:
                return True
            whole = declared
        complete = (
            False if tag[0] == 9 and content[1:2] == b"\x02" and length == 5 else None
        )  # the end of H.264
        at += 15 + length
    if at == whole:
        return False
    return complete if at == size else True


def _mpeg(file: BinaryIO, size: int) -> bool | None:
    at, ended = 0, None
    while at + 4 <= size:
        file.seek(at)
        head = _take(file, 4)
        if head[0] == 0 and head[:3] != b"\0\0\1":  # stuffing
            at += 1
            continue
        if head[:3] != b"\0\0\1" or head[3] < 0xB9:
            if at == 0:
                return None
            if ended is None:
                _stray(file, at)
            return ended
        ended = False if head[3] == 0xB9 else None
        if head[3] == 0xB9:
            at += 4
        elif head[3] == 0xBA:
            rest = _take(file, 10)
            at += 14 + (rest[9] & 7) if rest[0] & 0xC0 == 0x40 else 12
        else:
            at += 6 + int.from_bytes(_take(file, 2), "big")
    return True if at > size else ended


def _ivf(file: BinaryIO, size: int) -> bool | None:
    head = _take(file, 32)
    at, count, time, each = int.from_bytes(head[6:8], "little"), 0, 0, 0
    while at < size:
        file.seek(at)
        length, now = struct.unpack("<IQ", _take(file, 12))
        at, count, time, each = at + 12 + length, count + 1, now, now - time
    declared = int.from_bytes(head[24:28], "little")  # the number of frames, or their time
    if declared in (0, 0xFFFFFFFF):
        return True if at > size else None
    return at > size or declared > max(count, time + each)


def _apng(file: BinaryIO, size: int) -> bool:
    at = 8
    while at < size:
        file.seek(at)
        length, name = struct.unpack(">I4s", _take(file, 8))
        if name == b"IEND":
            break
        at += 12 + length
    if at + 12 > size:
        return True
    try:
        check_pictures(file)
    except ValueError as error:
        raise Broken from error
    return False


def _mxf(file: BinaryIO, size: int) -> bool | None:
    head = file.read(1 << 16)
    if (at := max(head.find(_MXF), 0)) + 64 > size:
        return None
    place = at + 17 + (head[at + 16] & 0x7F if head[at + 16] & 0x80 else 0)
    (footer,) = struct.unpack_from(">Q", head, place + 24)
    if footer and at + footer >= size:
        return True
    indexed = False
    while at < size:
        file.seek(at)
        if indexed and file.read(4) != _SMPTE:
            return False
        file.seek(at)
        key, first = _take(file, 16), _take(file, 1)[0]
        if not key.startswith(_SMPTE):
            _stray(file, at)
            return None
        indexed = key.startswith(_MXF_INDEX)
        more = first & 0x7F if first & 0x80 else 0
        at += 17 + more + (int.from_bytes(_take(file, more), "big") if more else first)
    return True if at > size else False if footer else None


def _dv(file: BinaryIO, size: int) -> bool | None:
    head = _take(file, 4)
    return True if size % (12_000 * (12 if head[3] & 0x80 else 10)) else None


def _avi(file: BinaryIO, size: int) -> bool | None:
    at, ends = 0, None
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", _take(file, 8))
        if ends is not None and at >= ends and size - at < _TAGS and name != b"RIFF":
            return False
        if not name.replace(b" ", b"0").isalnum():
            _stray(file, at)
            return None
        if name == b"RIFF" and length not in (0, 0xFFFFFFFF):  # the size, of which some take 8 bytes too many
            ends = at + length
            if ends > size:
                return True
        lasts = name in (b"RIFF", b"LIST") and file.read(4) in (b"AVI ", b"AVIX", b"movi", b"rec ")
        at += 12 if lasts else 8 + length + length % 2
    return None if ends is None else at > size + 1


def _tail(file: BinaryIO, size: int, count: int = 4096) -> bytes:
    file.seek(max(size - count, 0))
    return file.read(count)


def _take(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise EOFError
    return content


_CHECKS: Mapping[str, Callable[[BinaryIO, int], bool | None]] = {
    "apng": _apng,
    "asf": _asf,
    "avi": _avi,
    "dv": _dv,
    "flv": _flv,
    "gif": _gif,
    "ivf": _ivf,
    "matroska": _matroska,
    "mjpeg": _mjpeg,
    "mov": _mp4,
    "mpeg": _mpeg,
    "mpegts": _mpegts,
    "mxf": _mxf,
    "nut": _nut,
}
