"""The state of the page: one predictor, one project, and one job at a time."""

from __future__ import annotations

import hashlib
import re
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from emavos.clicks import Clicked
from emavos.frames.mask_files import read_masks
from emavos.io import FrameSource, IdMask, open_frames
from emavos.io.source import noting
from emavos.io.spool import named_temporary
from emavos.io.video import Damaged
from emavos.predictor import Predictor
from emavos.ui.clicker import Clicker
from emavos.ui.downloads import DOWNLOADS
from emavos.ui.folder import Folder
from emavos.ui.hold import Hold
from emavos.ui.importing import check_free, import_video
from emavos.ui.job import Job
from emavos.ui.project import Project
from emavos.ui.temporary import Temporary

# First bytes of accepted uploads: containers that cannot refer to other files.
_VIDEOS = re.compile(
    rb"....(ftyp|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3|RIFF....AVI |OggS|GIF8|FLV\x01|G.{187}G"
    rb"|\x00\x00\x01[\xb3\xba]|\x30\x26\xb2\x75",
    re.DOTALL,
)


class Busy(ValueError):
    """Another job is running. The user can stop the job or wait."""


class Outdated(ValueError):
    """The requesting page shows an old state: another video, or a mask changed since."""


class Desk:
    """The state of the page. You can call the methods from several threads.

    Methods that change something accept the state shown by the page, if known: `key` of the project, and
    `tag` of a frame's mask. They raise Outdated if the state has changed since, for example in another tab.

    predictor: tracks the objects.
    folder: folder of the project, opened if a project exists; or parent folder for new projects, one per
        video.
    keeps: whether `folder` belongs to a single project, never replaced by another video. Otherwise opening a
        video leaves the old project, which is listed in `left` and can be opened again.
    again: returns the command that opens a project's folder again, for the page.

    The folder is locked until `close`, so that two processes cannot write to the same project. Raises
    ValueError if another process holds the lock, or if the folder contains anything but a project.
    """

    def __init__(
        self,
        predictor: Predictor,
        folder: Path,
        keeps: bool,
        damaged: Damaged = "refuse",
        again: Callable[[Path], str] = lambda folder: f"emavos ui --project {folder}",
    ) -> None:
        self.predictor = predictor
        self.folder = folder
        self.keeps = keeps
        self.damaged = damaged
        self.notes: list[str] = []  # warnings about the last opened video
        self.project: Project | None = None
        self.job: Job | None = None
        self.opened = 0  # number of projects opened so far
        self.key = ""  # unique to each opened project, so a page can tell projects apart
        self.left: list[Project] = []  # earlier projects
        self.again = again
        self.jobs = 0  # started so far
        self.clicker = Clicker(predictor)
        self._temporary: Temporary | None = None
        self._lock = threading.RLock()
        self._hold: Hold | None = None
        if keeps and (folder / "project.json").exists():
            self._take(folder)
        elif keeps:
            check_free(folder)
            if folder.exists():
                Hold(folder).release()  # raises if another process is importing a video into it

    def open_video(
        self, path: Path, name: str, sent: bool = False, key: str | None = None, mask: Path | None = None
    ) -> None:
        """Start a project from a video or a folder of images, and leave the current project.

        path: video file or folder of images.
        name: name of the video, for the page.
        sent: whether the video was uploaded; if so, the file and its folder are deleted after the import.
        key: key of the project shown by the page; empty if none is shown.
        mask: file or folder of masks to start with, possibly among the frames.

        Raises Busy or Outdated. Raises ValueError if the current project must be kept, the folder of the new
        project is not empty, or the file is not a video.
        """
        with self._lock:
            self._check_idle()
            self.check_key(key)
            if self.keeps and self.project is not None:
                raise ValueError(
                    f"{self.folder} is the project of {self.project.name}, and has one video; for {name}, "
                    "start `emavos ui` with another --project, or without one"
                )
            if sent and not _VIDEOS.match(_head(path)):
                raise ValueError(
                    f"{name} is no video of a kind that is known here (mp4, mov, mkv, webm, avi)"
                )
            with noting() as notes:
                source = open_frames(path, [] if mask is None else [mask], self.damaged)
                masks = {} if mask is None else read_masks(mask, source)
            self.notes = [note.replace(f"{path.parent}/", "") for note in notes] if sent else notes
            folder = self.folder if self.keeps else self.folder / f"{self.opened + 1:03d}"
            check_free(folder)
            given = masks if isinstance(masks, Mapping) else {0: masks}
            self._start(
                "open", self._build(folder, source, name, given, path if sent else None), source.count
            )

    def _build(
        self, folder: Path, source: FrameSource, name: str, masks: Mapping[int, IdMask], sent: Path | None
    ) -> Iterator[int]:
        try:
            with noting() as notes:
                yield from import_video(folder, source, name)
            where = "" if sent is None else f"{sent.parent}/"  # which says nothing to a person at the page
            self.notes += [note.replace(where, "") for note in notes if note not in self.notes]
        finally:
            if sent is not None:
                sent.unlink(missing_ok=True)
                sent.parent.rmdir()
        with self._lock:
            before, project = self.project, self._take(folder)
            for index, mask in sorted(masks.items()):
                project.give(index, mask)
            if before is not None:
                self.left.append(before)

    def go_back(self, number: int, key: str | None = None) -> None:
        """Open an earlier project again; the current one takes its place in `left`.

        number: place in `left`.
        key: key of the project shown by the page.

        Raises Busy, Outdated, or ValueError if there is no such project.
        """
        with self._lock:
            self._check_idle()
            self.check_key(key)
            if not 0 <= number < len(self.left):
                raise ValueError(f"there is no earlier video {number}; there are {len(self.left)}")
            before = self.the_project()
            self._take(self.left[number].folder)
            self.left[number] = before

    def upload_folder(self) -> Path:
        """A new temporary folder for an uploaded video, removed when this process ends."""
        with self._lock, named_temporary():
            if self._temporary is None:
                self._temporary = Temporary()
            return Path(tempfile.mkdtemp(prefix="upload-", dir=self._temporary.folder))

    def _take(self, folder: Path) -> Project:
        """Lock and open the project of a folder, then release the current project."""
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
        self.key = secrets.token_hex(8)
        return project

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def the_project(self) -> Project:
        """Returns the current project. Raises ValueError if no video is open."""
        if self.project is None:
            raise ValueError("no video is open")
        return self.project

    def check_key(self, key: str | None) -> None:
        """Raise Outdated if the page shows another project than the current one; None skips the check."""
        if key is not None and key != self.key:
            raise Outdated("another video was opened meanwhile, in another window; it is shown now")

    def tag(self, index: int) -> str:
        """A tag for the current mask of a frame; the tag changes whenever the mask changes."""
        return tag_of(self.the_project().mask(index))

    def give(
        self, index: int, mask: IdMask, key: str | None = None, tag: str | None = None
    ) -> tuple[int, ...]:
        """Like `Project.give`. Raises Busy and Outdated.

        index: number of the frame.
        mask: (H, W) of ids.
        key: key of the project shown by the page.
        tag: tag of the mask before painting.
        """
        with self._changing(index, key, tag) as project:
            return project.give(index, mask)

    def take_back(self, index: int, key: str | None = None, tag: str | None = None) -> None:
        """Like `Project.take_back`. Raises Busy and Outdated."""
        with self._changing(index, key, tag) as project:
            project.take_back(index)

    def remove(self, id: int, key: str | None = None, edits: int | None = None) -> None:
        """Like `Project.remove`. Raises Busy and Outdated.

        id: id of the object.
        key: key of the project shown by the page.
        edits: value of `edits` in the `state` shown by the page.
        """
        with self._changing(None, key, None, edits) as project:
            project.remove(id)

    def undo(self, key: str | None = None, edits: int | None = None) -> tuple[str, int]:
        """Like `Project.undo`. Raises Busy and Outdated; arguments as for `remove`."""
        with self._changing(None, key, None, edits) as project:
            return project.undo()

    def redo(self, key: str | None = None, edits: int | None = None) -> tuple[str, int]:
        """Like `Project.redo`. Raises Busy and Outdated; arguments as for `remove`."""
        with self._changing(None, key, None, edits) as project:
            return project.redo()

    def save_draft(
        self, index: int, mask: IdMask | None, key: str | None = None, tag: str | None = None
    ) -> None:
        """Like `Project.save_draft`. Raises Busy and Outdated; other arguments as for `give`."""
        with self._changing(index, key, tag) as project:
            project.save_draft(index, mask)

    def look(self, index: int) -> None:
        """Encode a frame ahead of the first click. Raises ValueError if clicks do not work."""
        project = self.the_project()
        self.clicker.look((project.folder, index), lambda: project.frame(index))

    def click(
        self,
        index: int,
        points: Sequence[tuple[float, float]],
        labels: Sequence[int],
        box: Sequence[float] | None = None,
        before: IdMask | None = None,
    ) -> Clicked:
        """The mask of one object of a frame, as `Clicker.click` finds it; nothing is stored."""
        project = self.the_project()
        if self.clicker.problem is not None:
            raise ValueError(self.clicker.problem)
        return self.clicker.click(
            (project.folder, index), lambda: project.frame(index), points, labels, box, before
        )

    @contextmanager
    def _changing(
        self, index: int | None, key: str | None, tag: str | None, edits: int | None = None
    ) -> Iterator[Project]:
        with self._lock:
            self._check_idle()
            self.check_key(key)
            project = self.the_project()
            if edits is not None and edits != project.edits:
                raise Outdated("masks were changed meanwhile, in another window; look at them, and try again")
            if index is not None and tag is not None and tag != self.tag(index):
                raise Outdated(
                    "this frame was changed meanwhile, in another window; it is shown as it is now"
                )
            yield project

    def track(self, frames: int | None = None, key: str | None = None) -> None:
        """Start tracking the next `frames` frames; None tracks all.

        Raises Busy, Outdated, or ValueError if no mask was given.
        """
        with self._changing(None, key, None) as project:
            if project.first is None:
                raise ValueError("no frame has a mask yet: paint the objects of one, or load a mask")
            begin = max(project.reached, project.first)
            until = project.count if frames is None else min(begin + frames, project.count)
            self._start("track", self._track(project, begin, until), until - begin)

    def _track(self, project: Project, begin: int, until: int) -> Iterator[int]:
        with closing(project.track(self.predictor, until)) as tracked:
            for index in tracked:
                yield index - begin + 1

    def download(self, name: str, key: str | None = None, outdated: bool = False) -> None:
        """Start writing one of `DOWNLOADS`.

        outdated: whether to include masks that an edit made outdated.

        Raises Busy, Outdated, or ValueError for an unknown name.
        """
        with self._changing(None, key, None) as project:
            if name not in DOWNLOADS:
                raise ValueError(f"there is no {name}; there are {', '.join(DOWNLOADS)}")
            files = Folder(project.folder, "downloads")
            files.remove(name)
            self._start(name, self._write(project, name, files, outdated), None)

    def _write(self, project: Project, name: str, files: Folder, outdated: bool) -> Iterator[int]:
        with files.staged(name) as path:
            yield from DOWNLOADS[name](project, path, outdated)

    def open_download(self, name: str) -> BinaryIO:
        """One of `DOWNLOADS`, opened for reading. Raises ValueError if the file was not written yet."""
        files = Folder(self.the_project().folder, "downloads")
        if name not in DOWNLOADS or not files.has(name):
            raise ValueError(f"{name} was not written yet")
        return files.open(name)

    def stop(self) -> None:
        """Ask the running job to stop."""
        if self.job is not None:
            self.job.stop()

    def close(self) -> None:
        """Stop the running job, wait for its end, and release the folder."""
        if self.job is not None and self.job.running:
            self.job.stop()
            self.job.join()
        self._let_go()
        if self._temporary is not None:
            self._temporary.release()
            self._temporary = None

    def state(self) -> dict[str, Any]:
        """The state shown on the page, except pictures, masks and confidence."""
        project, job = self.project, self.job
        return {
            "device": self.predictor.device.type,
            "keeps": self.keeps,
            "opened": self.opened,
            "key": self.key,
            "notes": self.notes,
            "clicks": None if project is None else {"problem": self.clicker.problem},
            "left": [{"name": one.name, "folder": str(one.folder)} for one in self.left],
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
                "undo": project.can_undo,
                "redo": project.can_redo,
                "drafts": sorted(project.drafts),
                "folder": str(project.folder),
                "again": self.again(project.folder),
            },
            "job": None
            if job is None
            else {
                "kind": job.kind,
                "number": self.jobs,
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
        self.jobs += 1
        self.job = Job(kind, steps, total)
        self.job.start()


def tag_of(mask: IdMask) -> str:
    """A tag for a mask: a hash in hexadecimal digits."""
    return hashlib.sha256(mask.astype(np.int32).tobytes()).hexdigest()[:32]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(256)
