"""The session just before a frame that a person mends, computed while the person does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from emavos.session import Session
from emavos.ui.project import Project


@dataclass(frozen=True, eq=False)
class _Run:
    project: Project
    index: int
    given: tuple[object, ...]  # what the session depends on, see `_given_before`
    session: Future[Session | None] = field(default_factory=Future)
    stop: threading.Event = field(default_factory=threading.Event)


class RunUp:
    """Steps a session from the last saved state to a frame, in a thread of its own.

    Saved states are some frames apart, so tracking from a mended frame would begin with these steps. Keeps
    one session. You can call the methods from several threads.

    steps: `emavos.ui.tracking.run_up` of a project and a frame, until an event is set.
    """

    def __init__(self, steps: Callable[[Project, int, threading.Event], Session | None]) -> None:
        self._steps = steps
        self._run: _Run | None = None
        self._lock = threading.Lock()

    def begin(self, project: Project, index: int) -> None:
        """Begin to step to a frame, unless this was begun. Tracking has to have come to the frame."""
        with self._lock:
            if project.first is None or not project.first < index <= project.reached:
                return
            if self._run is not None and self._is_of(project, index):
                return
            self._stop()
            self._run = _Run(project, index, _given_before(project, index))
            threading.Thread(target=self._work, args=(self._run,), name="emavos-run-up", daemon=True).start()

    def edited(self) -> None:
        """Drop the session if a mask was changed that it depends on. Call this after each edit."""
        with self._lock:
            if self._run is not None and not self._is_of(self._run.project, self._run.index):
                self._stop()

    def take(
        self, project: Project, index: int, wait: Callable[[int], None] = lambda index: None
    ) -> Session | None:
        """The session whose next frame is `index`, once it is there; None if it was not begun.

        wait: called with `index` if the session is not there yet.
        """
        with self._lock:
            if self._run is None or not self._is_of(project, index):
                return None
            run, self._run = self._run, None
        if not run.session.done():
            wait(index)
        return run.session.result()

    def drop(self) -> None:
        """Drop the session; its thread ends after the current step."""
        with self._lock:
            self._stop()

    def close(self) -> None:
        """Drop the session, and wait for the end of its thread."""
        with self._lock:
            run = self._run
            self._stop()
        if run is not None:
            run.session.exception()

    def _is_of(self, project: Project, index: int) -> bool:
        run = self._run
        same = run is not None and run.project is project and run.index == index
        return same and run is not None and run.given == _given_before(project, index)

    def _stop(self) -> None:
        if self._run is not None:
            self._run.stop.set()
            self._run = None

    def _work(self, run: _Run) -> None:
        try:
            run.session.set_result(self._steps(run.project, run.index, run.stop))
        except Exception:  # tracking meets the same error, and tells it
            run.session.set_result(None)


def _given_before(project: Project, index: int) -> tuple[object, ...]:
    """What decides the masks before a frame: equal only if these are."""
    given = [*project.given.items()]  # a copy, as other threads may change it
    return tuple(sorted((i, ids, project.revisions.get(i, 0)) for i, ids in given if i < index))
