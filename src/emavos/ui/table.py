"""What the parts of the desk share: the open project, the jobs, and who may change what."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from emavos.io import IdMask
from emavos.io.video import OnDamage
from emavos.predictor import Predictor
from emavos.session import EncodedFrame, Session
from emavos.ui.adding import Adding
from emavos.ui.ahead import Ahead
from emavos.ui.clicker import Clicker
from emavos.ui.hold import Hold
from emavos.ui.holding import Holding
from emavos.ui.importing import check_free
from emavos.ui.job import Job
from emavos.ui.project import Project
from emavos.ui.queue import Queue
from emavos.ui.run_up import RunUp
from emavos.ui.shelf import Shelf
from emavos.ui.temporary import Temporary
from emavos.ui.tracking import run_up


class Busy(ValueError):
    """A job works on this project. The user can stop the job or wait."""


class Outdated(ValueError):
    """The requesting page shows an old state: another video, or a mask changed since."""


class Table:
    """The open project and the jobs of a `Desk`; takes the arguments of `Desk`."""

    def __init__(
        self,
        predictor: Predictor,
        folder: Path,
        keeps: bool,
        on_damage: OnDamage = "stop",
        again: Callable[[Path], str] = lambda folder: f"emavos ui --project {folder}",
    ) -> None:
        self.predictor = predictor
        self.folder = folder
        self.keeps = keeps
        self.on_damage = on_damage
        self.notes: list[str] = []  # warnings about the last opened video
        self.project: Project | None = None
        self.job: Job | None = None
        self.opened = 0  # number of projects opened so far
        self.key = ""  # unique to each opened project, so a page can tell projects apart
        self.shelf = None if keeps else Shelf(folder)
        self.queue = Queue()  # of tracking
        self.adding = Adding()  # reads videos in the background, also while the queue is tracking
        self.again = again
        self.ahead = Ahead(predictor)
        self.run_up = RunUp(self._run_up)
        self.clicker = Clicker(predictor, self.ahead)
        self._temporary: Temporary | None = None
        self._lock = threading.RLock()
        self.holding = Holding()
        if self.shelf is not None:
            self.shelf.sweep()
        if keeps and (folder / "project.json").exists():
            self._take(folder)
        elif keeps:
            check_free(folder)
            if folder.exists():
                Hold(folder).release()  # raises if another process is importing a video into it

    def _take(self, folder: Path) -> Project:
        """Lock and show the project of a folder, then release the one shown before."""
        project = self.holding.take(folder)
        before, self.project = self.project, project
        if before is not None:
            self.run_up.drop()
            self.holding.release(before.folder)
        if before is not project:
            self.clicker.clear()
        self.opened += 1
        self.key = secrets.token_hex(8)
        return project

    def the_project(self) -> Project:
        """Returns the current project. Raises ValueError if no video is open."""
        if self.project is None:
            raise ValueError("no video is open")
        return self.project

    def check_key(self, key: str | None) -> None:
        """Raise Outdated if the page shows another project than the current one; None skips the check."""
        if key is not None and key != self.key:
            raise Outdated("another video was opened meanwhile, in another window; it is shown now")

    def _shelf(self) -> Shelf:
        if self.shelf is None:
            raise ValueError(
                f"{self.folder} is one project; for a list of clips, start `emavos ui` without --project"
            )
        return self.shelf

    def tag(self, index: int) -> str:
        """A tag for the current mask of a frame; the tag changes whenever the mask changes."""
        return tag_of(self.the_project().mask(index))

    @contextmanager
    def _changing(
        self, index: int | None, key: str | None, tag: str | None, edits: int | None = None
    ) -> Iterator[Project]:
        """The open project, to be changed; no job of the queue begins to work on it within this context."""
        with self._lock:
            self._check_free()
            self.check_key(key)
            project = self.the_project()
            if self.adding.has(project.folder):
                raise Busy("this video is still being read; wait for it")
            if not self.queue.claim(project.folder):
                raise Busy("this video is being tracked; wait for it, or stop it")
            try:
                if edits is not None and edits != project.edits:
                    raise Outdated(
                        "masks were changed meanwhile, in another window; look at them, and try again"
                    )
                if index is not None and tag is not None and tag != self.tag(index):
                    raise Outdated(
                        "this frame was changed meanwhile, in another window; it is shown as it is now"
                    )
                yield project
            finally:
                self.run_up.edited()
                self.queue.leave(project.folder)

    def _peek(self, project: Project) -> Callable[[int], EncodedFrame | None]:
        """A function that returns a frame of a project if it was encoded ahead."""
        return lambda index: self.ahead.peek((project, index))

    def _run_up(self, project: Project, index: int, stop: threading.Event) -> Session | None:
        return run_up(project, self.predictor, index, self._peek(project), stop)

    def shown_job(self) -> Job | None:
        """The job that the page shows: the one that works on the project, or the last one."""
        folder = None if self.project is None else self.project.folder
        if self.job is not None and self.job.running and self.job.kind != "track":
            return self.job
        if (queued := self.queue.of(folder)) is not None:
            return queued
        if self.job is not None and (self.job.kind == "open" or self.job.folder == folder):
            return self.job
        return None

    def _check_free(self) -> None:
        """Raise Busy if a file is written or a video is read that will be shown."""
        if self.job is not None and self.job.running and self.job.kind != "track":
            raise Busy("something else is being done; wait for it, or stop it")

    def _start(self, job: Job, then: Callable[[], None] = lambda: None) -> None:
        self.job = job
        job.start(then)

    def stop(self, all: bool = False) -> None:
        """Ask the jobs of the project to stop; with `all`, also the tracking of all other clips.

        Videos are read on in the background.
        """
        folder = None if self.project is None else self.project.folder
        if self.job is not None and (self.job.kind != "track" or self.job.folder == folder):
            self.job.stop()
        if all:
            self.queue.stop_all()
        else:
            self.queue.stop(folder)

    def close(self) -> None:
        """Stop the running jobs, wait for their end, and release the folders."""
        self.queue.close()
        self.run_up.close()
        self.clicker.clear()
        self.adding.close()
        if self.job is not None and self.job.running:
            self.job.stop()
            self.job.join()
        self.holding.close()
        if self._temporary is not None:
            self._temporary.release()
            self._temporary = None


def tag_of(mask: IdMask) -> str:
    """A tag for a mask: a hash in hexadecimal digits."""
    return hashlib.sha256(mask.astype(np.int32).tobytes()).hexdigest()[:32]
