"""What the page works on: one predictor, the open project, the list of clips, and the jobs."""

from __future__ import annotations

import hashlib
import re
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from emavos.clicks import Clicked
from emavos.frames.mask_files import read_masks
from emavos.io import FrameSource, IdMask, open_frames
from emavos.io.source import noting
from emavos.io.spool import named_temporary
from emavos.io.video import Damaged
from emavos.predictor import Predictor
from emavos.session.both_ways import Direction, check_direction
from emavos.ui.adding import Added, Adding
from emavos.ui.clicker import Clicker
from emavos.ui.downloads import DOWNLOADS
from emavos.ui.folder import Folder
from emavos.ui.hold import Hold
from emavos.ui.holding import Holding
from emavos.ui.importing import check_free, import_video
from emavos.ui.job import Job
from emavos.ui.project import Project
from emavos.ui.queue import Queue
from emavos.ui.reviewing import suggestions
from emavos.ui.shelf import Shelf, origin_of
from emavos.ui.telling import clips_of, state_of
from emavos.ui.temporary import Temporary
from emavos.ui.tracking import steps_of, track_forward, track_ways

# First bytes of accepted uploads: containers that cannot refer to other files.
_VIDEOS = re.compile(
    rb"....(ftyp|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3|RIFF....AVI |OggS|GIF8|FLV\x01|G.{187}G"
    rb"|\x00\x00\x01[\xb3\xba]|\x30\x26\xb2\x75",
    re.DOTALL,
)


class Busy(ValueError):
    """A job works on this project. The user can stop the job or wait."""


class Outdated(ValueError):
    """The requesting page shows an old state: another video, or a mask changed since."""


class Desk:
    """The state of the page. You can call the methods from several threads.

    Methods that change something accept the state shown by the page, if known: `key` of the project, and
    `tag` of a frame's mask. They raise Outdated if the state has changed since, for example in another tab.

    predictor: tracks the objects.
    folder: folder of the project, opened if a project exists; or folder of all clips, one project per video.
    keeps: whether `folder` belongs to a single project, which has one video. Otherwise opening a video adds a
        clip to `shelf`, and the earlier clips can be opened again.
    again: returns the command that opens a project's folder again, for the page.

    The open project is locked, and so are projects that are being tracked: two processes cannot write to the
    same project. Raises ValueError if another process holds the lock, or if the folder of a single project
    contains anything but a project.
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
        self.shelf = None if keeps else Shelf(folder)
        self.queue = Queue()  # of tracking
        self.adding = Adding()  # reads videos in the background, also while the queue is tracking
        self.again = again
        self.clicker = Clicker(predictor)
        self._temporary: Temporary | None = None
        self._lock = threading.RLock()
        self.holding = Holding()
        if keeps and (folder / "project.json").exists():
            self._take(folder)
        elif keeps:
            check_free(folder)
            if folder.exists():
                Hold(folder).release()  # raises if another process is importing a video into it

    def open_video(
        self,
        path: Path,
        name: str,
        sent: bool = False,
        key: str | None = None,
        mask: Path | None = None,
        show: bool = True,
    ) -> None:
        """Start a project from a video or a folder of images, and show the project once it is read.

        path: video file or folder of images.
        name: name of the video, for the page.
        sent: whether the video was uploaded; if so, the file and its folder are deleted after the import.
        key: key of the project shown by the page; empty if none is shown.
        mask: file or folder of masks to start with, possibly among the frames.
        show: False reads the video in the background, after the videos before it, and only adds a clip.

        Raises Busy or Outdated. Raises ValueError if this project has one video, the folder of the new
        project is not empty, or the file is not a video.
        """
        with self._lock:
            if self.shelf is None and not show:
                raise ValueError(
                    f"{name} was not added: {self.folder} is a single project, and has one video; for more, "
                    "start `emavos ui` without --project"
                )
            if show:
                self._check_free()
                self.check_key(key)
            if self.shelf is None and self.project is not None:
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
            notes = [note.replace(f"{path.parent}/", "") for note in notes] if sent else notes
            folder = self.folder if self.shelf is None else self.shelf.place(name, self._is_taken)
            check_free(folder)
            given = masks if isinstance(masks, Mapping) else {0: masks}
            origin = "" if sent else origin_of(path)
            reading = self._read(folder, source, name, origin, path if sent else None, notes)
            end = partial(_discard, path) if sent else lambda: None
            if show:
                self.notes = notes
                self._start(Job("open", self._build(folder, reading, given), source.count, folder, end))
            else:
                job = Job("import", self._add(folder, reading, given), source.count, folder, end)
                self.adding.add(folder, Added(name, job, notes))

    def _is_taken(self, folder: Path) -> bool:
        """Whether a job works on a folder that need not exist yet, or an error is shown under its name."""
        opening = self.job is not None and self.job.running and self.job.folder == folder
        return opening or self.queue.has(folder) or folder in self.adding.listed()

    def _read(
        self, folder: Path, source: FrameSource, name: str, origin: str, sent: Path | None, notes: list[str]
    ) -> Iterator[int]:
        """Import a video into a folder; what is odd about the video is added to `notes`."""
        with noting() as more:
            yield from import_video(folder, source, name, origin)
        where = "" if sent is None else f"{sent.parent}/"  # which says nothing to a person at the page
        notes += [note.replace(where, "") for note in more if note not in notes]

    def _build(self, folder: Path, reading: Iterator[int], masks: Mapping[int, IdMask]) -> Iterator[int]:
        yield from reading
        with self._lock:
            project = self._take(folder)
            for index, mask in sorted(masks.items()):
                project.give(index, mask)

    def _add(self, folder: Path, reading: Iterator[int], masks: Mapping[int, IdMask]) -> Iterator[int]:
        yield from reading
        with self.holding.using(folder) as project:
            for index, mask in sorted(masks.items()):
                project.give(index, mask)

    def open_clip(self, name: str, key: str | None = None) -> None:
        """Show the project of another clip. Tracking of the present one goes on.

        name: name of the clip, as in `clips`.
        key: key of the project shown by the page.

        Raises Busy, Outdated, or ValueError if there is no such clip or another process works on it.
        """
        with self._lock:
            self._check_free()
            self.check_key(key)
            folder = self._shelf().path(name)
            if self.project is None or self.project.folder != folder:
                self._take(folder)
                self.notes = self.adding.notes_of(folder)

    def has(self, path: Path) -> bool:
        """Whether a clip is of this video."""
        return self.shelf is not None and self.shelf.find(origin_of(path)) is not None

    def resume(self, path: Path) -> bool:
        """Show the project of a video that was opened before; returns whether there is one."""
        with self._lock:
            folder = None if self.shelf is None else self.shelf.find(origin_of(path))
            if folder is not None:
                self._take(folder)
            return folder is not None

    def remove_clip(self, name: str) -> None:
        """Delete a clip with all its masks; this cannot be undone.

        A video that is being read, or waits to be, is no longer read. One that could not be read is no longer
        listed.

        Raises ValueError if there is no such clip, or it is shown, tracked, or open in another process.
        """
        with self._lock:
            shelf = self._shelf()
            if self.adding.dismiss(name):
                return
            folder = shelf.path(name)
            if self.holding.get(folder) is not None or self.queue.of(folder) is not None:
                raise Busy(f"{name} is open; open another clip first, and stop its tracking")
            shelf.remove(name)
            self.queue.forget(folder)

    def clips(self) -> list[dict[str, Any]]:
        """The clips in JSON, the last changed first; empty for a single project."""
        return clips_of(self)

    def thumbnail(self, name: str) -> bytes:
        """A small JPEG of a clip. Raises ValueError if there is no such clip, or it is damaged."""
        return self._shelf().thumbnail(name, self.holding.get)

    def track_all(self) -> int:
        """Track each clip that has masks and frames left, one after another; returns how many clips."""
        with self._lock:
            self._check_free()
            added = 0
            for clip in self._shelf().clips(self.holding.get):
                folder = self._shelf().folder / clip.key
                waits = self.queue.has(folder) or self.adding.has(folder)
                if clip.left and not clip.problem and not waits:
                    self.queue.add(self._tracking(folder))
                    added += 1
            if not added:
                raise ValueError("no clip has masks and frames left to track: click on the objects of one")
            return added

    def _shelf(self) -> Shelf:
        if self.shelf is None:
            raise ValueError(
                f"{self.folder} is one project; for a list of clips, start `emavos ui` without --project"
            )
        return self.shelf

    def upload_folder(self) -> Path:
        """A new temporary folder for an uploaded video, removed when this process ends."""
        with self._lock, named_temporary():
            if self._temporary is None:
                self._temporary = Temporary()
            return Path(tempfile.mkdtemp(prefix="upload-", dir=self._temporary.folder))

    def _take(self, folder: Path) -> Project:
        """Lock and show the project of a folder, then release the one shown before."""
        project = self.holding.take(folder)
        before, self.project = self.project, project
        if before is not None:
            self.holding.release(before.folder)
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

    def rename(self, id: int, label: str, key: str | None = None) -> None:
        """Like `Project.rename`. Raises Busy and Outdated.

        key: key of the project shown by the page.
        """
        with self._changing(None, key, None) as project:
            project.rename(id, label)

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
                self.queue.leave(project.folder)

    def track(
        self,
        frames: int | None = None,
        key: str | None = None,
        direction: str = "forward",
        first: int | None = None,
        last: int | None = None,
    ) -> None:
        """Start tracking the open project, after the clips that are tracked now.

        frames: number of frames to track; None for all.
        key: key of the project shown by the page.
        direction: "forward", "backward" (the frames before the first mask) or "both".
        first, last: track only from frame to frame; None for the first and the last of the video. Forward
            tracking begins where it ended, so there only `last` counts.

        Raises Busy, Outdated, or ValueError if no mask was given, or frames or direction do not exist.
        """
        with self._changing(None, key, None) as project:
            if project.first is None:
                raise ValueError("no frame has a mask yet: paint the objects of one, or load a mask")
            way = _direction(direction)
            asked = _frames(project, frames, way, first, last)
            if way != "forward":
                steps_of(project, way, asked)  # raises
            self.queue.stop(project.folder)  # if it waits already, this takes its place
            self.job = self._tracking(project.folder, way, frames, first, last)
            self.queue.add(self.job)

    def _tracking(
        self,
        folder: Path,
        way: Direction = "forward",
        frames: int | None = None,
        first: int | None = None,
        last: int | None = None,
    ) -> Job:
        def steps() -> Iterator[int]:
            with self.holding.using(folder) as project:
                asked = _frames(project, frames, way, first, last)
                if way != "forward":
                    job.total = steps_of(project, way, asked)
                    for _ in track_ways(project, self.predictor, way, asked, job.tell, lambda: job.stopping):
                        yield job.done or 0
                    return
                job.total = len(asked)
                with closing(track_forward(project, self.predictor, asked.stop)) as tracked:
                    for index in tracked:
                        yield index - asked.start + 1

        job = Job("track", steps(), None, folder)
        return job

    def suggestions(self) -> list[dict[str, object]]:
        """The frames to fix, the most useful first. Raises ValueError if no frame is tracked."""
        return suggestions(self.the_project())

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
            job = Job(name, self._write(project, name, files, outdated), None, project.folder)
            self.queue.claim(project.folder)  # until the file is written
            try:
                self._start(job, lambda: self.queue.leave(project.folder))
            except BaseException:
                self.queue.leave(project.folder)
                raise

    def _write(self, project: Project, name: str, files: Folder, outdated: bool) -> Iterator[int]:
        with files.staged(name) as path:
            yield from DOWNLOADS[name](project, path, outdated)

    def open_download(self, name: str) -> BinaryIO:
        """One of `DOWNLOADS`, opened for reading. Raises ValueError if the file was not written yet."""
        files = Folder(self.the_project().folder, "downloads")
        if name not in DOWNLOADS or not files.has(name):
            raise ValueError(f"{name} was not written yet")
        return files.open(name)

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
        self.adding.close()
        if self.job is not None and self.job.running:
            self.job.stop()
            self.job.join()
        self.holding.close()
        if self._temporary is not None:
            self._temporary.release()
            self._temporary = None

    def state(self) -> dict[str, Any]:
        """The state shown on the page, except pictures, masks, confidence and the list of clips."""
        return state_of(self)

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


def _discard(sent: Path) -> None:
    """Delete an uploaded video and its folder, which the end of this process deletes otherwise."""
    with suppress(OSError):
        sent.unlink(missing_ok=True)
        sent.parent.rmdir()


def _direction(name: str) -> Direction:
    check_direction(name)
    return cast(Direction, name)


def _frames(
    project: Project, frames: int | None, way: Direction, first: int | None, last: int | None
) -> range:
    """The frames to track. Raises ValueError if they do not exist."""
    start, end = 0 if first is None else first, project.count - 1 if last is None else last
    if not 0 <= start <= end < project.count:
        raise ValueError(
            f"there are no frames from {start} to {end}: the video has frames 0 to {project.count - 1}"
        )
    if frames is not None and frames < 1:
        raise ValueError(f"the number of frames to track is at least 1, not {frames}")
    begun = project.first or 0
    if way == "forward":
        start = max(project.reached, begun)
        return range(start, max(end + 1 if frames is None else min(start + frames, end + 1), start))
    if frames is not None and way == "backward":
        start = max(start, begun - frames)
    elif frames is not None:
        end = min(end, start + frames - 1)
    return range(start, end + 1)


def tag_of(mask: IdMask) -> str:
    """A tag for a mask: a hash in hexadecimal digits."""
    return hashlib.sha256(mask.astype(np.int32).tobytes()).hexdigest()[:32]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(256)
