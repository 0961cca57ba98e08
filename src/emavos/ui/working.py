"""Long work on the open project and the clips: tracking, and files to download."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from emavos.io import IdMask
from emavos.io.notices import noting
from emavos.session import Result
from emavos.session.both_ways import Direction, check_direction
from emavos.ui.downloads import DOWNLOADS
from emavos.ui.downloads import steps_of as steps_of_download
from emavos.ui.folder import Folder
from emavos.ui.job import Job
from emavos.ui.project import Project
from emavos.ui.reviewing import suggestions
from emavos.ui.table import Table
from emavos.ui.tracking import NO_MASK, NOTHING_LEFT, steps_of, track_forward, track_ways


class Working(Table):
    """The part of the desk that tracks, and writes downloads."""

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

        Raises Busy, Outdated, or ValueError if no mask was given, no frame is left to track, or frames or
        direction do not exist.
        """
        with self._changing(None, key, None) as project:
            if project.first is None:
                raise ValueError(NO_MASK)
            way = _direction(direction)
            asked = _frames(project, frames, way, first, last)
            if way != "forward":
                steps_of(project, way, asked)  # raises
            elif not asked and project.reached < project.first:
                raise ValueError(f"tracking forward begins at frame {project.first}, after these frames")
            elif not asked:
                raise ValueError(NOTHING_LEFT)
            self.queue.stop(project.folder)  # if it waits already, this takes its place
            self.job = self._tracking(project.folder, way, frames, first, last)
            self.queue.add(self.job)

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
                    tracked = track_ways(
                        project, self.predictor, way, asked, job.tell, lambda: job.stopping, passed
                    )
                    for index in tracked:
                        job.passed = range(index + 1, job.passed.stop) if job.passed else None
                        if way == "both":
                            job.show(index)
                        yield job.done or 0
                    return
                job.total = len(asked)
                peek, begun = self._peek(project), partial(self.run_up.take, project, wait=job.repeat)
                tracking = track_forward(project, self.predictor, asked.stop, peek, begun, job.repeat)
                with closing(tracking) as forward:
                    for index in forward:
                        yield index - asked.start + 1

        def passed(index: int, result: Result) -> None:
            job.passed = range(index, job.passed.stop if job.passed else index + 1)
            job.show(index, lambda: result.mask)

        job = Job("track", steps(), None, folder)
        job.way = way
        return job

    def preview(self) -> tuple[int, IdMask] | None:
        """The newest frame that was tracked and is not written yet, and its mask (H, W); None without one."""
        job = self.shown_job()
        preview = None if job is None else job.preview
        return None if preview is None else (preview[0], preview[1]())

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

            def steps() -> Iterator[int]:
                job.total = steps_of_download(project, name, outdated)
                yield from self._write(project, name, files, outdated)

            job = Job(name, steps(), None, project.folder)
            self.queue.claim(project.folder)  # until the file is written
            try:
                self._start(job, lambda: self.queue.leave(project.folder))
            except BaseException:
                self.queue.leave(project.folder)
                raise

    def _write(self, project: Project, name: str, files: Folder, outdated: bool) -> Iterator[int]:
        with noting() as notes, files.staged(name) as path:
            yield from DOWNLOADS[name](project, path, outdated)
        self.notes = [*self.notes, *(note for note in notes if note not in self.notes)]

    def open_download(self, name: str) -> BinaryIO:
        """One of `DOWNLOADS`, opened for reading. Raises ValueError if the file was not written yet."""
        files = Folder(self.the_project().folder, "downloads")
        if name not in DOWNLOADS or not files.has(name):
            raise ValueError(f"{name} was not written yet")
        return files.open(name)


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
