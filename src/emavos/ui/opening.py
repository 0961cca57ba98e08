"""Opening videos, and the list of clips."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from emavos.frames.mask_files import read_masks
from emavos.io import FrameSource, IdMask, open_frames
from emavos.io.notices import noting
from emavos.io.spool import named_temporary
from emavos.ui.adding import Added
from emavos.ui.importing import check_free, import_video
from emavos.ui.job import Job
from emavos.ui.shelf import origin_of
from emavos.ui.table import Busy, Table
from emavos.ui.telling import clips_of
from emavos.ui.temporary import Temporary

# First bytes of accepted uploads: containers that cannot refer to other files.
_VIDEOS = re.compile(
    rb"....(ftyp|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3|RIFF....AVI |OggS|GIF8|FLV\x01|G.{187}G"
    rb"|\x00\x00\x01[\xb3\xba]|\x30\x26\xb2\x75",
    re.DOTALL,
)


class Opening(Table):
    """The part of the desk that opens videos and clips."""

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
                raise ValueError(f"{name} is not a video that this page can open (mp4, mov, mkv, webm, avi)")
            with noting() as notes:
                source = open_frames(path, [] if mask is None else [mask], self.on_damage)
                masks = {} if mask is None else read_masks(mask, source)
            notes = [note.replace(f"{path.parent}/", "") for note in notes] if sent else notes
            folder = self.folder if self.shelf is None else self.shelf.place(name, self._is_taken)
            check_free(folder)
            by_frame = masks if isinstance(masks, Mapping) else {0: masks}
            origin = "" if sent else origin_of(path)
            reading = self._read(folder, source, name, origin, path if sent else None, notes)
            end = partial(_discard, path) if sent else lambda: None
            if show:
                self.notes = notes
                self._start(Job("open", self._build(folder, reading, by_frame), source.count, folder, end))
            else:
                job = Job("import", self._add(folder, reading, by_frame), source.count, folder, end)
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

    def upload_folder(self) -> Path:
        """A new temporary folder for an uploaded video, removed when this process ends."""
        with self._lock, named_temporary():
            if self._temporary is None:
                self._temporary = Temporary()
            return Path(tempfile.mkdtemp(prefix="upload-", dir=self._temporary.folder))

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


def _discard(sent: Path) -> None:
    """Delete an uploaded video and its folder, which the end of this process deletes otherwise."""
    with suppress(OSError):
        sent.unlink(missing_ok=True)
        sent.parent.rmdir()


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(256)
