"""Folders of the page among the temporary files, and what pages that were killed left there."""

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
    """A new folder among the temporary files, held until `release` or the end of this process."""

    def __init__(self) -> None:
        while True:
            with named_temporary():
                self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            with suppress(ValueError):  # another page took it for one that is left, and removes it
                self._hold = Hold(self.folder)
                if self.folder.is_dir():
                    return
                self._hold.release()

    def release(self) -> list[Path]:
        """Remove it and let go of it, but for projects in which something was painted; returns those."""
        kept = _clear(self.folder)
        self._hold.release()
        with suppress(OSError):
            self.folder.rmdir()
        return kept


def sweep_temporary() -> list[Path]:
    """Remove what pages that were killed left; returns the projects that stay since they were painted in.

    Only folders of this user are removed, and only if no page that runs holds them. Where files have no locks
    nothing is.
    """
    kept: list[Path] = []
    for base in sorted(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")):
        with suppress(OSError, ValueError):  # gone, or held
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
    """Remove all in a folder but projects in which something was painted, and those that are open."""
    kept = []
    for inner in sorted(base.iterdir()):
        if inner.name == HELD:
            continue
        if (inner / "project.json").exists():
            try:
                Hold(inner).release()
                painted = bool(Project.open(inner).given)
            except ValueError:  # it is open, or damaged
                painted = True
            if painted:
                kept.append(inner)
                continue
        if inner.is_dir() and not inner.is_symlink():
            shutil.rmtree(inner, ignore_errors=True)
        else:
            inner.unlink(missing_ok=True)
    return kept
