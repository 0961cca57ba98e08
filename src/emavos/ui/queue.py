"""Jobs that wait for each other in the background, such as tracking one clip after another."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from emavos.ui.job import Job


class Queue:
    """Runs jobs one at a time, in the order they were added. The methods work from several threads.

    A job and a claim never have the same folder at the same time: jobs of a claimed folder wait, and later
    jobs overtake them. Nothing blocks, so a claim may be made under any other lock.
    """

    def __init__(self) -> None:
        self.now: Job | None = None
        self.waiting: list[Job] = []
        self.errors: dict[Path, str] = {}  # of the last job of each folder that failed
        self._claims: Counter[Path] = Counter()
        self._lock = threading.RLock()

    def claim(self, folder: Path) -> bool:
        """Let jobs of a folder wait until `leave`, called once for each claim; False if a job of it runs."""
        with self._lock:
            if self.now is not None and self.now.folder == folder:
                return False
            self._claims[folder] += 1
            return True

    def leave(self, folder: Path) -> None:
        """End a claim, and start the job that waited for it, if any."""
        with self._lock:
            self._claims[folder] -= 1
            if self._claims[folder] <= 0:
                del self._claims[folder]
            self._advance()

    def add(self, job: Job) -> None:
        """Start a job once all jobs before it have ended, and nobody claims its folder."""
        with self._lock:
            if job.folder is not None:
                self.errors.pop(job.folder, None)
            self.waiting.append(job)
            self._advance()

    def of(self, folder: Path | None) -> Job | None:
        """The job of a folder that runs or waits, or None."""
        with self._lock:
            jobs = [*([] if self.now is None else [self.now]), *self.waiting]
        return next((job for job in jobs if folder is not None and job.folder == folder), None)

    def has(self, folder: Path) -> bool:
        """Whether a job of a folder runs or waits."""
        return self.of(folder) is not None

    def forget(self, folder: Path) -> None:
        """Forget the error of a folder, which has no clip any more."""
        with self._lock:
            self.errors.pop(folder, None)

    def stop(self, folder: Path | None) -> None:
        """Stop the job of a folder after its current step, or drop the job if it has not begun."""
        with self._lock:
            self._drop([job for job in self.waiting if job.folder == folder])
            if self.now is not None and self.now.folder == folder:
                self.now.stop()

    def stop_all(self) -> None:
        """Stop the current job after its current step, and drop the waiting ones."""
        with self._lock:
            self._drop(self.waiting)
            if self.now is not None:
                self.now.stop()

    def close(self) -> None:
        """Stop all, and wait for the end of the current job."""
        self.stop_all()
        self.join()

    def join(self) -> None:
        """Wait until no job runs, and none waits but for the end of a claim."""
        while (job := self._running()) is not None:
            job.join()

    def _running(self) -> Job | None:
        with self._lock:  # within it, a job is set and started
            return self.now

    def _drop(self, jobs: list[Job]) -> None:
        self.waiting = [job for job in self.waiting if job not in jobs]
        for job in jobs:
            job.drop()

    def _advance(self) -> None:
        free = (job for job in self.waiting if job.folder is None or job.folder not in self._claims)
        if self.now is None and (job := next(free, None)) is not None:
            self.waiting = [one for one in self.waiting if one is not job]
            self.now = job
            job.start(self._ended)

    def _ended(self) -> None:
        with self._lock:
            if self.now is not None and self.now.error and self.now.folder is not None:
                self.errors[self.now.folder] = self.now.error
            self.now = None
            self._advance()
