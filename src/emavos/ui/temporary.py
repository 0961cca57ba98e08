"""Temporary folders of the page, and cleanup of folders left by killed processes."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from emavos.io.spool import named_temporary
from emavos.ui.hold import HELD, Hold
from emavos.ui.project import Project

_PREFIX = "emavos-ui-"


class Temporary:
    """A new temporary folder, locked until `release` or the end of this process."""

    def __init__(self) -> None:
        while True:
            with named_temporary():
                self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            with suppress(ValueError):  # another page is removing the folder as a leftover
                self._hold = Hold(self.folder)
                if self.folder.is_dir():
                    return
                self._hold.release()

    def release(self) -> list[Path]:
        """Unlock and remove the folder, except projects with painted objects; returns those projects."""
        kept = _clear(self.folder)
        self._hold.release()
        with suppress(OSError):
            self.folder.rmdir()
        return kept


def sweep_temporary() -> list[Path]:
    """Remove folders left by killed processes; returns the projects kept, those with painted objects.

    Only unlocked folders of this user are removed. On file systems without locks, nothing is removed.
    """
    kept: list[Path] = []
    for base in sorted(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")):
        with suppress(OSError, ValueError):  # gone, or locked by another process
            facts = base.lstat()
            if not stat.S_ISDIR(facts.st_mode) or (hasattr(os, "getuid") and facts.st_uid != os.getuid()):
                continue
            hold = Hold(base)
            try:
                if hold.held:
                    kept += _clear(base)
            finally:
                hold.release()
            base.rmdir()
    return kept


def _clear(base: Path) -> list[Path]:
    """Remove the contents of a folder, except open projects and projects with painted objects."""
    kept = []
    for inner in sorted(base.iterdir()):
        if inner.name == HELD:
            continue
        if (inner / "project.json").exists():
            try:
                Hold(inner).release()
                project = Project.open(inner)
                painted = bool(project.given or project.drafts or project.can_undo)
            except ValueError:  # open in another process, or damaged
                painted = True
            if painted:
                kept.append(inner)
                continue
        if inner.is_dir() and not inner.is_symlink():
            shutil.rmtree(inner, ignore_errors=True)
        else:
            inner.unlink(missing_ok=True)
    return kept
