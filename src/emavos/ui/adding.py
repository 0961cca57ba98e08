"""Videos that are read in the background, and become clips of the list."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emavos.ui.job import Job
from emavos.ui.queue import Queue
from emavos.ui.shelf import Clip


@dataclass(frozen=True)
class Added:
    """A video that is read, or could not be.

    name: name of the video.
    job: reads the video.
    notes: what is odd about the video; the job may add more.
    """

    name: str
    job: Job
    notes: list[str]


class Adding:
    """Reads videos one after another. What went wrong is kept until the user dismisses it.

    The methods work from several threads.
    """

    def __init__(self) -> None:
        self._queue = Queue()
        self._added: dict[Path, Added] = {}
        self._lock = threading.RLock()

    def add(self, folder: Path, added: Added) -> None:
        """Read a video into a folder once the videos before it were read."""
        with self._lock:
            self._added[folder] = added
            self._queue.add(added.job)

    def has(self, folder: Path) -> bool:
        """Whether a video is being read into a folder, or waits to be."""
        return self._queue.has(folder)

    def listed(self) -> dict[Path, Added]:
        """The videos that are read, wait to be, or could not be, by the folder of their clip."""
        with self._lock:
            for folder, added in [*self._added.items()]:
                ended = not self.has(folder) and added.job.error is None
                if ended and (added.job.stopped or not added.notes):
                    del self._added[folder]
            return {
                folder: added
                for folder, added in self._added.items()
                if self.has(folder) or added.job.error is not None
            }

    def dismiss(self, name: str) -> bool:
        """Stop reading the video of a clip, or forget why it could not be read; False if there is none."""
        with self._lock:
            folder = next((folder for folder in self.listed() if folder.name == name), None)
            if folder is None:
                return False
            if self.has(folder):
                self._queue.stop(folder)
            else:
                del self._added[folder]
            return True

    def notes_of(self, folder: Path) -> list[str]:
        """What is odd about the video of a clip; each note is returned once."""
        with self._lock:
            if folder not in self._added or folder in self.listed():
                return []
            return self._added.pop(folder).notes if folder in self._added else []

    def cards(self) -> list[dict[str, Any]]:
        """`listed` in JSON, like the clips of the list."""
        return [
            asdict(Clip(folder.name, added.name, added.job.total or 0, problem=added.job.error or ""))
            | {
                "shown": False,
                "adding": True,
                "job": added.job.facts if self.has(folder) else None,
                "error": added.job.error,
            }
            for folder, added in self.listed().items()
        ]

    def failed(self) -> list[dict[str, Any]]:
        """The videos that could not be read in JSON, with the number of their job."""
        return [
            {"number": added.job.number, "video": added.name, "error": added.job.error}
            for added in self.listed().values()
            if added.job.error is not None
        ]

    def join(self) -> None:
        """Wait until all videos were read."""
        self._queue.join()

    def close(self) -> None:
        """Stop reading, and wait for the end of the current job."""
        self._queue.close()
