"""A background job: one thread, with progress and a way to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterator
from typing import Any

from emavos.machine import is_out_of_memory

_LOG = logging.getLogger("emavos.ui")


class Job:
    """Runs an iterator in a thread.

    kind: name of the job, for the page.
    steps: iterator to run; yields the progress after each step, and is closed if the job is stopped.
    total: final progress, if known.
    """

    def __init__(self, kind: str, steps: Iterator[int], total: int | None) -> None:
        self.kind = kind
        self.total = total
        self.done: int | None = None  # last progress from `steps`
        self.error: str | None = None  # message, if the job failed
        self.stopped = False
        self._steps = steps
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"emavos-{kind}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ask the job to stop after the current step."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            for done in self._steps:
                self.done = done
                if self._stop.is_set():
                    self.stopped = True
                    break
            if isinstance(self._steps, Generator):
                self._steps.close()
        except Exception as error:  # any error is shown on the page
            self.error = in_words(error)


def in_words(error: BaseException) -> str:
    """An error as a message for the page. Unexpected errors are also logged with a traceback."""
    message: Any = str(error)
    if is_out_of_memory(error):
        return "out of memory; start the page with a smaller --size or --max-frames"
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, (ValueError, OSError, ImportError, FloatingPointError)) and message:
        return " ".join(message.split())
    _LOG.error("unforeseen", exc_info=error)
    return f"something unforeseen went wrong ({type(error).__name__}); the terminal says what"
