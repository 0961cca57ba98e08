"""What the page works on: one predictor, one project, and one job at a time."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from emavos.io import IdMask, open_frames
from emavos.predictor import Predictor
from emavos.ui.downloads import DOWNLOADS
from emavos.ui.folder import Folder
from emavos.ui.hold import Hold
from emavos.ui.job import Job
from emavos.ui.project import Project

# How the files begin that a stranger may send: containers that name no other file to be read.
_VIDEOS = re.compile(
    rb"....(ftyp|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3|RIFF....AVI |OggS|GIF8|FLV\x01|G.{187}G"
    rb"|\x00\x00\x01[\xb3\xba]|\x30\x26\xb2\x75",
    re.DOTALL,
)


class Busy(ValueError):
    """Something else is being done; it can be stopped."""


class Desk:
    """The state behind the page. Its methods may be called from several threads.

    predictor: follows the objects.
    folder: of the project, which is opened where there is one; or of those to come, one for each video.
    keeps: whether `folder` is for one project, which no other video replaces.

    The folder of the project is held until `close`: two processes that wrote into one would each make the
    other's masks outdated. Raises ValueError where another has it, or it holds no project but something else.
    """

    def __init__(self, predictor: Predictor, folder: Path, keeps: bool) -> None:
        self.predictor = predictor
        self.folder = folder
        self.keeps = keeps
        self.project: Project | None = None
        self.job: Job | None = None
        self.opened = 0  # how many projects were, so that a page knows when it looks at another
        self._lock = threading.RLock()
        self._hold: Hold | None = None
        if keeps and (folder / "project.json").exists():
            self._take(folder)
        elif keeps:
            Project.check_free(folder)
            if folder.exists():
                Hold(folder).release()  # another may be reading a video into it

    def open_video(self, path: Path, name: str, sent: bool = False) -> None:
        """Begin a project with a video or a folder of images, and leave the one before it.

        sent: the video was sent to the page: when it was read it is removed, and the folder made for it.
        Raises Busy, and ValueError where the present project is to be kept, the folder of a new one holds
        something else, or this is no video.
        """
        with self._lock:
            self._check_idle()
            if self.keeps and self.project is not None:
                raise ValueError(f"{self.folder} holds {self.project.name}; start the page without --project")
            if sent and not _VIDEOS.match(_head(path)):
                raise ValueError(
                    f"{name} is no video of a kind that is known here (mp4, mov, mkv, webm, avi)"
                )
            source = open_frames(path)
            folder = self.folder if self.keeps else self.folder / f"{self.opened + 1:03d}"
            Project.check_free(folder)
            self._start("open", self._build(folder, path, name, sent), source.count)

    def _build(self, folder: Path, path: Path, name: str, sent: bool) -> Iterator[int]:
        try:
            yield from Project.build(folder, open_frames(path), name)
        finally:
            if sent:
                path.unlink(missing_ok=True)
                path.parent.rmdir()
        before = self.project
        with self._lock:
            self._take(folder)
        if before is not None:
            shutil.rmtree(before.folder, ignore_errors=True)

    def _take(self, folder: Path) -> None:
        """Open the project of a folder, hold it, and let go of the one before."""
        hold = Hold(folder)
        try:
            project = Project.open(folder)
            if hold.held:
                project.sweep()
        except BaseException:
            hold.release()
            raise
        self._let_go()
        self._hold = hold
        self.project = project
        self.opened += 1

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def the_project(self) -> Project:
        """The project. Raises ValueError where no video is open."""
        if self.project is None:
            raise ValueError("no video is open")
        return self.project

    def give(self, index: int, mask: IdMask) -> tuple[int, ...]:
        """See `Project.give`. Raises Busy."""
        with self._lock:
            self._check_idle()
            return self.the_project().give(index, mask)

    def take_back(self, index: int) -> None:
        """See `Project.take_back`. Raises Busy."""
        with self._lock:
            self._check_idle()
            self.the_project().take_back(index)

    def remove(self, id: int) -> None:
        """See `Project.remove`. Raises Busy."""
        with self._lock:
            self._check_idle()
            self.the_project().remove(id)

    def track(self, frames: int | None = None) -> None:
        """Track so many frames more, or all. Raises Busy, and ValueError where no mask was given."""
        with self._lock:
            self._check_idle()
            project = self.the_project()
            if project.first is None:
                raise ValueError("no frame has a mask yet: paint the objects of one, or load a mask")
            begin = max(project.reached, project.first)
            until = project.count if frames is None else min(begin + frames, project.count)
            self._start("track", self._track(project, begin, until), until - begin)

    def _track(self, project: Project, begin: int, until: int) -> Iterator[int]:
        with closing(project.track(self.predictor, until)) as tracked:
            for index in tracked:
                yield index - begin + 1

    def download(self, name: str) -> None:
        """Begin to write one of `DOWNLOADS`. Raises Busy, and ValueError where there is none of that name."""
        with self._lock:
            self._check_idle()
            project = self.the_project()
            if name not in DOWNLOADS:
                raise ValueError(f"there is no {name}; there are {', '.join(DOWNLOADS)}")
            files = Folder(project.folder, "downloads")
            files.remove(name)
            self._start(name, self._write(project, name, files), None)

    def _write(self, project: Project, name: str, files: Folder) -> Iterator[int]:
        with files.staged(name) as path:
            yield from DOWNLOADS[name](project, path)

    def open_download(self, name: str) -> BinaryIO:
        """One of `DOWNLOADS`, to read. Raises ValueError if it was not written yet."""
        files = Folder(self.the_project().folder, "downloads")
        if name not in DOWNLOADS or not files.has(name):
            raise ValueError(f"{name} was not written yet")
        return files.open(name)

    def stop(self) -> None:
        """Ask what is being done to end."""
        if self.job is not None:
            self.job.stop()

    def close(self) -> None:
        """Stop what is being done, wait for it, and let go of the folder."""
        if self.job is not None and self.job.running:
            self.job.stop()
            self.job.join()
        self._let_go()

    def state(self) -> dict[str, Any]:
        """All that the page shows but pictures, masks and confidence."""
        project, job = self.project, self.job
        return {
            "device": self.predictor.device.type,
            "keeps": self.keeps,
            "opened": self.opened,
            "project": None
            if project is None
            else {
                "name": project.name,
                "fps": project.fps,
                "height": project.size[0],
                "width": project.size[1],
                "count": project.count,
                "ids": project.ids,
                "given": dict(sorted(project.given.items())),
                "first": project.first,
                "reached": project.reached,
                "made": project.made,
                "edits": project.edits,
            },
            "job": None
            if job is None
            else {
                "kind": job.kind,
                "running": job.running,
                "done": job.done,
                "total": job.total,
                "error": job.error,
                "stopped": job.stopped,
            },
        }

    def _check_idle(self) -> None:
        if self.job is not None and self.job.running:
            raise Busy("something else is being done; wait for it, or stop it")

    def _start(self, kind: str, steps: Iterator[int], total: int | None) -> None:
        self.job = Job(kind, steps, total)
        self.job.start()


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(256)
