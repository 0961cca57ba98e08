"""Files and folders that appear whole or not at all, and nothing that stays of those that did not."""

from __future__ import annotations

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

_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; put in its place at the end, or removed on failure.

    Where the disk does not take it (full, read-only) the OSError names `path`.
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
    """A hidden folder in `home` to fill and to move away; what is left of it vanishes with the block."""
    stage, lock = claim(home, name, folder=True)
    try:
        yield stage
    finally:
        release(stage, lock)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file that appears whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # in a folder of its own, as safetensors writes beside the file first, under a name that nobody sweeps
    with named_as(path), partial_folder(path.parent, path.name) as stage:
        try:
            save_file(dict(tensors), stage / path.name, metadata=metadata)
        except SafetensorError as error:  # what the disk says, in a text
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), os.fspath(path)) from error
        os.replace(stage / path.name, path)


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what was left in a folder by runs that were killed: partial files and folders nobody holds.

    name: those of this file or folder alone. Nothing is removed on Windows, and where files have no locks.
    """
    if sys.platform == "win32" or not folder.is_dir():
        return
    for path in list(folder.iterdir()):
        partial = _PARTIAL.fullmatch(path.name)
        if partial is None or name not in (None, partial[1]):
            continue
        with suppress(OSError):  # it is held by a run that lives, or gone, or not ours to remove
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(lock)


def in_use(folder: Path, name: str, ours: Path | None = None) -> bool:
    """Whether a partial file or folder of this name, other than `ours`, is held by a run that lives.

    False on Windows, and if files have no locks.
    """
    if sys.platform == "win32" or not folder.is_dir():
        return False
    for path in list(folder.iterdir()):
        partial = _PARTIAL.fullmatch(path.name)
        if partial is None or partial[1] != name or path == ours:
            continue
        with suppress(OSError):  # gone, a link, or without locks
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(lock)
    return False


def claim(home: Path, name: str, folder: bool = False) -> tuple[Path, int | None]:
    """A new partial file or folder, and what marks it as held until `release`, however this process ends."""
    while True:
        partial = home / f".{name}.{secrets.token_hex(4)}.partial"
        if folder:
            partial.mkdir()
        elif sys.platform != "win32":
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        if sys.platform == "win32":
            return partial, None
        try:
            lock = os.open(partial, os.O_RDONLY)
        except FileNotFoundError:  # swept before it was held
            continue
        with suppress(OSError):  # some file systems have no locks; there nobody sweeps either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if partial.exists():
            return partial, lock
        os.close(lock)


def release(partial: Path, lock: int | None) -> None:
    """Remove what is left of what was claimed."""
    with suppress(OSError):
        _remove(partial)
    if lock is not None:
        os.close(lock)


@contextmanager
def named_as(path: Path, partial: Path | None = None) -> Iterator[None]:
    """What the disk says of a partial file, or of none by name, is said of `path`."""
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None or partial is None or str(error.filename) == str(partial)
        if error.errno is None or not unnamed:
            raise
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
