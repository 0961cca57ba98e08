"""Atomic files and folders: they appear complete or not at all, and leftovers are removed."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

if sys.platform != "win32":
    import fcntl

_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial", re.DOTALL)
_LONGEST = 255 - len("..01234567.partial")  # bytes of a name, as most file systems allow 255


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success the file replaces `path`, otherwise it is removed.

    If the disk is full or read-only, the OSError names `path`.
    """
    with named_as(path):
        partial, lock = claim(path.parent, path.name)
    try:
        with named_as(path, partial):
            yield partial
            os.replace(partial, path)
    finally:
        release(partial, lock)


@contextmanager
def partial_folder(home: Path, name: str) -> Iterator[Path]:
    """A hidden folder in `home` to fill; remaining contents are removed at the end of the block."""
    stage, lock = claim(home, name, folder=True)
    try:
        yield stage
    finally:
        release(stage, lock)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, atomically."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # in a folder of its own: safetensors first writes a file beside `path`, under a name that `sweep` ignores
    with named_as(path), partial_folder(path.parent, path.name) as stage:
        try:
            save_file(dict(tensors), stage / path.name, metadata=metadata)
        except SafetensorError as error:  # an error of the disk, as text
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), os.fspath(path)) from error
        os.replace(stage / path.name, path)


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove partial files and folders left by killed processes.

    folder: folder to clean.
    name: remove only leftovers of this file or folder.

    Nothing is removed on Windows, or on file systems without locks.
    """
    if sys.platform == "win32" or not folder.is_dir():
        return
    for path in list(folder.iterdir()):
        partial = _PARTIAL.fullmatch(path.name)
        if partial is None or (name is not None and partial[1] != shortened(name)):
            continue
        with suppress(OSError):  # locked by a running process, gone, or not ours to remove
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(lock)


def in_use(folder: Path, name: str, ours: Path | None = None) -> bool:
    """Whether a running process is writing a partial file or folder of this name, other than `ours`.

    False on Windows, and on file systems without locks.
    """
    if sys.platform == "win32" or not folder.is_dir():
        return False
    for path in list(folder.iterdir()):
        partial = _PARTIAL.fullmatch(path.name)
        if partial is None or partial[1] != shortened(name) or path == ours:
            continue
        with suppress(OSError):  # gone, a link, or a file system without locks
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(lock)
    return False


def claim(home: Path, name: str, folder: bool = False) -> tuple[Path, int | None]:
    """A new partial file or folder, with a lock held until `release` or the end of this process."""
    while True:
        partial = home / f".{shortened(name)}.{secrets.token_hex(4)}.partial"
        if folder:
            partial.mkdir()
        elif sys.platform != "win32":
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        if sys.platform == "win32":
            return partial, None
        try:
            lock = os.open(partial, os.O_RDONLY)
        except FileNotFoundError:  # removed by `sweep` before it was locked
            continue
        with suppress(OSError):  # on file systems without locks, `sweep` removes nothing either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if partial.exists():
            return partial, lock
        os.close(lock)


def release(partial: Path, lock: int | None) -> None:
    """Remove a claimed file or folder, if it still exists, and unlock it."""
    with suppress(OSError):
        _remove(partial)
    if lock is not None:
        os.close(lock)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for this folder.

    Does not wait on Windows, or on file systems without locks.
    """
    if sys.platform == "win32":
        yield
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def named_as(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Name `path` in OSErrors about the partial file, or about no file."""
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None or partial is None or str(error.filename) == str(partial)
        if error.errno is None or not unnamed:
            raise
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


def shortened(name: str) -> str:
    """A name that leaves room in a file name for what `claim` adds to it; long names end in their hash."""
    content = os.fsencode(name)
    if len(content) <= _LONGEST:
        return name
    begin = content[: _LONGEST - 17].decode(errors="ignore")  # a letter of several bytes may be cut
    return f"{begin}-{hashlib.sha256(content).hexdigest()[:16]}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
