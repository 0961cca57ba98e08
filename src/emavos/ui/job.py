"""Work that takes a while: one thread, how far it is, and a way to stop it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterator
from typing import Any

from emavos.machine import is_out_of_memory

_LOG = logging.getLogger("emavos.ui")


class Job:
    """Walks through an iterator in a thread of its own.

    kind: what is being done, for the page. steps: gives how far it is after each step; closed where it is
    stopped. total: of what it gives, where that is known.
    """

    def __init__(self, kind: str, steps: Iterator[int], total: int | None) -> None:
        self.kind = kind
        self.total = total
        self.done: int | None = None  # what `steps` gave last
        self.error: str | None = None  # why it ended early, in words
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
        """Ask it to end after the step it is at."""
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
        except Exception as error:  # the page shows it, whatever it is
            self.error = in_words(error)


def in_words(error: BaseException) -> str:
    """What a person at the page is message of an error; what was not foreseen goes to the log as well."""
    message: Any = str(error)
    if is_out_of_memory(error):
        return "out of memory; start the page with a smaller --size or --max-frames"
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, (ValueError, OSError, ImportError, FloatingPointError)) and message:
        return " ".join(message.split())
    _LOG.error("unforeseen", exc_info=error)
    return f"something unforeseen went wrong ({type(error).__name__}); the terminal says what"
