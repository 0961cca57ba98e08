"""A background job: one thread, with progress and a way to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from emavos.io import IdMask
from emavos.machine import is_out_of_memory

_LOG = logging.getLogger("emavos.ui")
_NUMBERS = count(1)


class Job:
    """Runs an iterator in a thread.

    kind: name of the job, for the page.
    steps: iterator to run; yields the progress after each step, and is closed if the job is stopped.
    total: final progress, if known.
    folder: folder of the project that the job works on; None if the job changes no project.
    end: called once, after the last step or if the job is dropped before the first.
    """

    def __init__(
        self,
        kind: str,
        steps: Iterator[int],
        total: int | None,
        folder: Path | None = None,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self.kind = kind
        self.folder = folder
        self.number = next(_NUMBERS)  # of this process, so that a page can tell jobs apart
        self.total = total
        self.done: int | None = None  # last progress from `steps`
        self.error: str | None = None  # message, if the job failed
        self.stopped = False
        self.again: int | None = None  # the frame up to which earlier steps are repeated, before any progress
        self.frame: int | None = None  # the newest frame, if the page cannot tell this from the project
        self.way: str | None = None  # the direction of tracking
        self.passed: range | None = None  # frames that a pass backward has tracked and not written yet
        self.preview: tuple[int, Callable[[], IdMask]] | None = None  # its mask, if not written yet
        self._began: tuple[int, float] | None = None  # progress and time after the first step
        self._steps = steps
        self._end = end
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._ended = False
        self._then: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name=f"emavos-{kind}", daemon=True)

    def start(self, then: Callable[[], None] = lambda: None) -> None:
        """Start the job; its thread calls `then` at the end."""
        self._then = then
        self._thread.start()

    def drop(self) -> None:
        """End the job, which was not started."""
        self.stopped = True
        self._end()

    @property
    def facts(self) -> dict[str, Any]:
        """The job in JSON, for the page."""
        return {
            "kind": self.kind,
            "number": self.number,
            "running": self.running,
            "done": self.done,
            "total": self.total,
            "seconds": self.seconds_left,
            "error": self.error,
            "stopped": self.stopped,
            "frame": self.frame if self.running else None,
            "again": self.again if self.done is None else None,
            "preview": self.preview is not None,
            "way": self.way,
            "passed": [self.passed.start, self.passed.stop] if self.running and self.passed else None,
        }

    @property
    def seconds_left(self) -> float | None:
        """Estimated time to the end, from the steps so far; None while this is unknown."""
        if not self.running or self.total is None or self.done is None or self._began is None:
            return None
        first, since = self._began
        if self.done <= first:
            return None
        return round((time.monotonic() - since) / (self.done - first) * (self.total - self.done), 1)

    @property
    def running(self) -> bool:
        return self._thread.is_alive() and not self._ended

    def stop(self) -> None:
        """Ask the job to stop after the current step."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether the job was asked to stop."""
        return self._stop.is_set()

    def tell(self, done: int) -> None:
        """Set the progress, also between steps."""
        with self._news:
            self.done = done
            self._news.notify_all()
        if self._began is None:  # the first step also loads and compiles
            self._began = done, time.monotonic()

    def show(self, frame: int, preview: Callable[[], IdMask] | None = None) -> None:
        """Let the page show a frame.

        preview: returns the mask, if it is not written yet.
        """
        self.preview = None if preview is None else (frame, preview)
        self.frame = frame

    def repeat(self, frame: int) -> None:
        """Tell the page that the steps before a frame are repeated, which is no progress."""
        self.again = frame

    def wait_beyond(self, done: int | None, timeout: float) -> None:
        """Wait until the job has made other progress than `done`, or has ended, at most `timeout` seconds."""
        with self._news:
            self._news.wait_for(lambda: self.done != done or self._ended, timeout)

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            for done in self._steps:
                self.tell(done)
                if self.stopping:
                    break
            self.stopped = self.stopping
            if isinstance(self._steps, Generator):
                self._steps.close()
        except Exception as error:  # any error is shown on the page
            self.error = in_words(error)
        finally:
            with ExitStack() as after:  # all of these, whatever fails
                after.callback(self._tell_end)
                after.callback(self._then)
                self.preview = None
                self._end()

    def _tell_end(self) -> None:
        with self._news:
            self._ended = True
            self._news.notify_all()


def in_words(error: BaseException) -> str:
    """An error as a message for the page. Unexpected errors are also logged with a traceback."""
    message: Any = str(error)
    if is_out_of_memory(error):
        return "out of memory; start the page with a smaller --size or --max-frames"
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, (ValueError, OSError, ImportError, FloatingPointError)) and message:
        return " ".join(message.split())
    _LOG.error("unexpected", exc_info=error)
    return f"something unexpected went wrong ({type(error).__name__}); the terminal shows the details"
