"""The projects that this process has open, each locked against other processes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emavos.ui.hold import Hold
from emavos.ui.project import Project


class Holding:
    """Opens each project once, and keeps its folder locked while the project is shown or a job uses it."""

    def __init__(self) -> None:
        self._held: dict[Path, tuple[Project, Hold]] = {}
        self._uses: Counter[Path] = Counter()
        self._lock = threading.RLock()

    def get(self, folder: Path) -> Project | None:
        """The project of a folder, if it is open here."""
        held = self._held.get(folder)
        return None if held is None else held[0]

    def take(self, folder: Path) -> Project:
        """Lock and open the project of a folder; call `release` once for each `take`.

        Raises ValueError if another process holds the folder, or the folder has no project.
        """
        with self._lock:
            if folder not in self._held:
                hold = Hold(folder)
                try:
                    project = Project.open(folder)
                    if hold.held:
                        project.sweep()
                except BaseException:
                    hold.release()
                    raise
                self._held[folder] = project, hold
            self._uses[folder] += 1
            return self._held[folder][0]

    def release(self, folder: Path) -> None:
        """Unlock a folder unless another use of it goes on."""
        with self._lock:
            self._uses[folder] -= 1
            if self._uses[folder] <= 0 and folder in self._held:
                del self._uses[folder]
                self._held.pop(folder)[1].release()

    @contextmanager
    def using(self, folder: Path) -> Iterator[Project]:
        """The project of a folder, locked within this context."""
        project = self.take(folder)
        try:
            yield project
        finally:
            self.release(folder)

    def close(self) -> None:
        """Unlock all folders."""
        with self._lock:
            self._uses.clear()
            while self._held:
                self._held.popitem()[1][1].release()
