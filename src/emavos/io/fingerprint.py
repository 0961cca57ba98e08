"""Notices that a file was replaced, without reading long videos whole."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from emavos.io.images import check_file

_PART = 1 << 14  # bytes


def fingerprint(path: Path) -> bytes:
    """A hash of a file's name and size, and of its beginning, its middle and its end, 16 KiB each.

    Two compressed files that differ nearly always differ in these parts too: in tables, in checksums, or in
    everything after the difference. If a few bytes of an uncompressed file are changed in place, the hash may
    stay the same.

    Raises ValueError for anything but a regular file, because reading a pipe might never end.
    """
    check_file(path, "a video or an image")
    size = path.stat().st_size
    digest = hashlib.sha256(os.fsencode(f"{path.name} {size} "))
    with path.open("rb") as file:
        for begin in (0, size // 2 - _PART // 2, size - _PART):
            file.seek(max(begin, 0))
            digest.update(file.read(_PART))
    return digest.digest()
