"""What the page works on: one predictor, one project, and one job at a time."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from emavos.frames.mask_files import read_masks
from emavos.io import FrameSource, IdMask, open_frames
from emavos.io.source import noting
from emavos.io.spool import named_temporary
from emavos.io.video import Damaged
from emavos.predictor import Predictor
from emavos.ui.downloads import DOWNLOADS
from emavos.ui.folder import Folder
from emavos.ui.hold import Hold
from emavos.ui.importing import check_free, import_video
from emavos.ui.job import Job
from emavos.ui.project import Project
from emavos.ui.temporary import Temporary

# How the files begin that a stranger may send: containers that name no other file to be read.
_VIDEOS = re.compile(
    rb"....(ftyp|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3|RIFF....AVI |OggS|GIF8|FLV\x01|G.{187}G"
    rb"|\x00\x00\x01[\xb3\xba]|\x30\x26\xb2\x75",
    re.DOTALL,
)


class Busy(ValueError):
    """Something else is being done; it can be stopped."""


class Outdated(ValueError):
    """The page that asks shows something else than there is: another video, or a mask that has changed."""


class Desk:
    """The state behind the page. Its methods may be called from several threads.

    Those that change something take what the page shows, if it is known: `key` of the project, and the `tag`
    of a frame's mask. They raise Outdated if there is something else by now, as another tab may have done it.

    predictor: follows the objects.
    folder: of the project, which is opened where there is one; or of those to come, one for each video.
    keeps: whether `folder` is for one project, which no other video replaces. Otherwise a project stays
        beside the next one if something was painted in it, and is named in `left`.

    The folder of the project is held until `close`: two processes that wrote into one would each make the
    other's masks outdated. Raises ValueError where another has it, or it holds no project but something else.
    """

    def __init__(self, predictor: Predictor, folder: Path, keeps: bool, damaged: Damaged = "refuse") -> None:
        self.predictor = predictor
        self.folder = folder
        self.keeps = keeps
        self.damaged = damaged
        self.notes: list[str] = []  # what was odd about the video that was opened last
        self.project: Project | None = None
        self.job: Job | None = None
        self.opened = 0  # how many projects were
        self.key = ""  # of the project: one that no other ever has, so that a page knows which it looks at
        self.left: list[Project] = []  # those before it in which something was painted
        self._temporary: Temporary | None = None
        self._lock = threading.RLock()
        self._hold: Hold | None = None
        if keeps and (folder / "project.json").exists():
            self._take(folder)
        elif keeps:
            check_free(folder)
            if folder.exists():
                Hold(folder).release()  # another may be reading a video into it

    def open_video(
        self, path: Path, name: str, sent: bool = False, key: str | None = None, mask: Path | None = None
    ) -> None:
        """Begin a project with a video or a folder of images, and leave the one before it.

        key: of the project that the page shows; empty if it shows none.
        sent: the video was sent to the page: when it was read it is removed, and the folder made for it.
        mask: a file or folder of the masks that it begins with, which may lie among its frames.
        Raises Busy, and ValueError where the present project is to be kept, the folder of a new one holds
        something else, or this is no video.
        """
        with self._lock:
            self._check_idle()
            self.check_key(key)
            if self.keeps and self.project is not None:
                raise ValueError(f"{self.folder} holds {self.project.name}; start the page without --project")
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
        before = self.project
        with self._lock:
            project = self._take(folder)
            for index, mask in sorted(masks.items()):
                project.give(index, mask)
        if before is not None and before.given:
            self.left.append(before)
        elif before is not None:
            shutil.rmtree(before.folder, ignore_errors=True)

    def upload_folder(self) -> Path:
        """A new folder among the temporary files for a video that is sent; it goes with this process."""
        with self._lock, named_temporary():
            if self._temporary is None:
                self._temporary = Temporary()
            return Path(tempfile.mkdtemp(prefix="upload-", dir=self._temporary.folder))

    def _take(self, folder: Path) -> Project:
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
        self.key = secrets.token_hex(8)
        return project

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def the_project(self) -> Project:
        """The project. Raises ValueError where no video is open."""
        if self.project is None:
            raise ValueError("no video is open")
        return self.project

    def check_key(self, key: str | None) -> None:
        """Raise Outdated if there is another project than the page shows; None says nothing."""
        if key is not None and key != self.key:
            raise Outdated("another video was opened meanwhile, in another window; it is shown now")

    def tag(self, index: int) -> str:
        """What tells the mask of a frame, as it is, from any other."""
        return tag_of(self.the_project().mask(index))

    def give(
        self, index: int, mask: IdMask, key: str | None = None, tag: str | None = None
    ) -> tuple[int, ...]:
        """See `Project.give`; `tag`: of the mask that was painted on. Raises Busy and Outdated."""
        with self._changing(index, key, tag) as project:
            return project.give(index, mask)

    def take_back(self, index: int, key: str | None = None, tag: str | None = None) -> None:
        """See `Project.take_back`. Raises Busy and Outdated."""
        with self._changing(index, key, tag) as project:
            project.take_back(index)

    def remove(self, id: int, key: str | None = None, edits: int | None = None) -> None:
        """See `Project.remove`; `edits`: as `state` said. Raises Busy and Outdated."""
        with self._changing(None, key, None) as project:
            if edits is not None and edits != project.edits:
                raise Outdated("masks were changed meanwhile, in another window; look at them, and try again")
            project.remove(id)

    @contextmanager
    def _changing(self, index: int | None, key: str | None, tag: str | None) -> Iterator[Project]:
        with self._lock:
            self._check_idle()
            self.check_key(key)
            project = self.the_project()
            if index is not None and tag is not None and tag != self.tag(index):
                raise Outdated(
                    "this frame was changed meanwhile, in another window; it is shown as it is now"
                )
            yield project

    def track(self, frames: int | None = None, key: str | None = None) -> None:
        """Track so many frames more, or all. Raises Busy, Outdated, and ValueError if no mask was given."""
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

    def download(self, name: str, key: str | None = None) -> None:
        """Begin to write one of `DOWNLOADS`. Raises Busy, Outdated, and ValueError if none has that name."""
        with self._changing(None, key, None) as project:
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
        if self._temporary is not None:
            self._temporary.release()
            self._temporary = None

    def state(self) -> dict[str, Any]:
        """All that the page shows but pictures, masks and confidence."""
        project, job = self.project, self.job
        return {
            "device": self.predictor.device.type,
            "keeps": self.keeps,
            "opened": self.opened,
            "key": self.key,
            "notes": self.notes,
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


def tag_of(mask: IdMask) -> str:
    """What tells a mask from others, in letters."""
    return hashlib.sha256(mask.astype(np.int32).tobytes()).hexdigest()[:32]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(256)
