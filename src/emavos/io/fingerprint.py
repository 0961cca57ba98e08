"""Whether a file is another one than before, without reading long videos whole."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from emavos.io.images import check_file

_PART = 1 << 14  # bytes


def fingerprint(path: Path) -> bytes:
    """A hash of a file's name and size, and of its begin, its middle and its end, 16 KiB each.

    Compressed files that differ anywhere nearly always differ in these: in tables, check sums, or in all that
    follows. A change in place of a few bytes of an uncompressed file may be missed.

    Raises ValueError for anything but a regular file: a pipe that nobody writes to would be waited for.
    """
    check_file(path, "a video or an image")
    size = path.stat().st_size
    digest = hashlib.sha256(os.fsencode(f"{path.name} {size} "))
    with path.open("rb") as file:
        for begin in (0, size // 2 - _PART // 2, size - _PART):
            file.seek(max(begin, 0))
            digest.update(file.read(_PART))
    return digest.digest()
