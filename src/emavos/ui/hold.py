"""A folder that one process works in, and others leave alone."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

HELD = ".held"  # a file of no bytes that is in the folder while it is held, where folders have no locks


class Hold:
    """A folder kept from other pages until `release`, or the end of this process, however it ends.

    It is a lock that the system takes with the process, so a page that was killed holds nothing. Where there
    are none, on some network disks, nothing is held.

    held: whether the folder is held.

    Raises ValueError where another holds the folder.
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
        with suppress(OSError):  # another was faster, and holds it
            self._file.unlink()


def _lock(folder: Path) -> ExitStack:
    """Lock a folder until what is returned is closed.

    Raises OSError, with EAGAIN or EACCES where another has the lock.
    """
    with ExitStack() as stack:
        try:
            import fcntl
        except ImportError:  # Windows, where a folder is no file
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
