"""A folder that one process works in, and others leave alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class Hold:
    """A folder kept from other pages until `release`, or the end of this process, however it ends.

    It is a lock that the system takes with the process, so a page that was killed holds nothing. Where there
    are none, on Windows and on some network disks, nothing is held.

    Raises ValueError where another holds the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._lock: int | None = None
        if sys.platform == "win32":
            return
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ValueError(
                f"{folder} is open in another page; end that `emavos ui`, or choose another folder"
            ) from None
        except OSError:  # this disk has no locks
            os.close(lock)
        else:
            self._lock = lock

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
