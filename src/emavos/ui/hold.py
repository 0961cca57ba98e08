"""Exclusive use of a folder by one process."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

HELD = ".held"  # empty lock file, for systems that cannot lock folders


class Hold:
    """An exclusive lock on a folder, until `release` or the end of this process.

    The system releases the lock when the process ends, so a killed process leaves no lock. On file systems
    without locks, such as some network disks, the folder is not locked.

    held: whether the folder is locked.

    Raises ValueError if another process holds the lock.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / HELD
        self._lock = ExitStack()
        self.held = False
        try:
            self._lock = _lock(folder)
            self.held = True
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise ValueError(
                    f"{folder} is open in another page; end that `emavos ui`, or choose another folder"
                ) from None

    def release(self) -> None:
        self._lock.close()
        with suppress(OSError):  # another process has locked the folder since
            self._file.unlink()


def _lock(folder: Path) -> ExitStack:
    """Lock a folder; closing the returned stack unlocks the folder.

    Raises OSError, with EAGAIN or EACCES if another process holds the lock.
    """
    with ExitStack() as stack:
        try:
            import fcntl
        except ImportError:  # Windows cannot open folders as files
            msvcrt: Any = import_module("msvcrt")
            if (folder / HELD).is_symlink():
                raise ValueError(f"{folder / HELD} is a link; remove it") from None
            file = os.open(folder / HELD, os.O_RDWR | os.O_CREAT)
            stack.callback(os.close, file)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            stack.callback(msvcrt.locking, file, msvcrt.LK_UNLCK, 1)
        else:
            file = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return stack.pop_all()
