"""Tracking of a project: forward, backward, and in both directions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, cast

import numpy as np

from emavos.io import Pixels, open_frames
from emavos.predictor import Predictor
from emavos.session import EncodedFrame, Result, Session
from emavos.session.both_ways import Direction, propagate_backward, propagate_both
from emavos.ui.project import Project

NOTHING_LEFT = "there is nothing left to track: all these frames have their masks"
NO_MASK = "no frame has a mask yet: click on the objects of one, paint them, or load a mask"
_STATE_EVERY = 20  # frames between two saved states of the session


def track_forward(
    project: Project,
    predictor: Predictor,
    until: int | None = None,
    peek: Callable[[int], EncodedFrame | None] = lambda index: None,
    begun: Callable[[int], Session | None] = lambda index: None,
    again: Callable[[int], None] = lambda index: None,
) -> Generator[int, None, None]:
    """Track from the end of the masks; yields the index of each frame once its mask is written.

    project: the project; the masks are written to it.
    predictor: tracks the objects.
    until: frame to stop before; None tracks to the last frame.
    peek: returns a frame that the network of `predictor` has encoded already, or None.
    begun: returns a session of `run_up` whose next frame is this, or None.
    again: called with the first frame to yield, before earlier steps are repeated.

    Frames tracked again from the last saved state are not yielded. If you close the iterator, the masks
    so far are kept. If later frames are tracked already, in both directions, their masks are replaced;
    this can be undone.

    Raises ValueError if no mask was given, no frame is left to track, or the project was tracked with
    other weights or settings.
    """
    if project.first is None:
        raise ValueError(NO_MASK)
    begin = max(project.reached, project.first)
    end = project.count if until is None else min(until, project.count)
    if begin >= end:
        raise ValueError(NOTHING_LEFT)
    predictor = project.continuing(predictor)
    session = begun(begin)
    if session is None:
        session = _latest(project, predictor, begin)
    if session.index < begin:
        again(begin)
    try:
        for index in range(session.index, end):
            result = _step(project, session, index, peek(index))
            if index >= begin:
                if index == begin and any(later in project.confidence for later in range(begin, end)):
                    project.begin_ways("tracked forward", index)
                sure = {id: round(state.confidence, 4) for id, state in result.objects.items()}
                project.store(index, result.mask, result.matte(), sure)
                if session.index % _STATE_EVERY == 0 and session.index < end:
                    project.states.save(session)
                yield index
    except GeneratorExit:  # stopped by the user, who may continue from here
        project.states.save(session)
        raise
    project.states.save(session)


def run_up(
    project: Project,
    predictor: Predictor,
    index: int,
    peek: Callable[[int], EncodedFrame | None],
    stop: threading.Event,
) -> Session | None:
    """A session that has tracked the project up to `index`, and steps to it next; None if `stop` is set.

    Writes nothing. Arguments as for `track_forward`.
    """
    session = _latest(project, predictor.continuing(project.settings), index)
    while session.index < index:
        if stop.is_set():
            return None
        _step(project, session, session.index, peek(session.index))
    return session


def _latest(project: Project, predictor: Predictor, index: int) -> Session:
    """The latest session of a project whose next frame is at most `index`."""
    session = project.states.latest(index, predictor)
    # earlier frames have no objects
    return predictor.session(start=project.first or 0) if session is None else session


def _step(project: Project, session: Session, index: int, encoded: EncodedFrame | None) -> Result:
    """Track the next frame, and apply the mask given for the frame."""
    result = session.step(project.frame(index) if encoded is None else encoded)
    if index not in project.given:
        return result
    mask = project.given_mask(index)
    planes = {id: mask == id for id in project.given[index]}
    if new := {id: plane for id, plane in planes.items() if id not in session.ids and plane.any()}:
        result = session.add(new)
    if corrected := {id: plane for id, plane in planes.items() if id in session.ids and id not in new}:
        result = session.correct(corrected)
    return result


def track_ways(
    project: Project,
    predictor: Predictor,
    direction: Direction,
    frames: range,
    progress: Callable[[int], None] = lambda steps: None,
    stopping: Callable[[], bool] = lambda: False,
    passed: Callable[[int, Result], None] = lambda index, result: None,
) -> Iterator[int]:
    """Track in another direction than forward; yields the index of each frame once its mask is written.

    The masks equal those of `Predictor.propagate` over these frames, from all masks given in them. Can be
    undone. Nothing is written before the pass backward has ended.

    project: the project; its masks of these frames are replaced.
    direction: "backward" replaces only the masks before the first given one; "both" those of all frames.
    frames: the frames to track, in steps of one.
    progress: called with the number of steps so far, out of `steps_of`.
    stopping: whether to stop.
    passed: called with each frame and result of the pass backward, which is not written yet.

    Raises ValueError if no mask was given in these frames, an object was erased on one of them, or there is
    nothing to track.
    """
    given = _given(project, direction, frames)
    predictor = project.continuing(predictor)
    masks = {index - frames.start: project.given_objects(index) for index in given}
    most = steps_of(project, direction, frames)  # masks of later frames are read once more
    reel = _Reel(project, frames, lambda read: progress(min(read, most)), stopping)
    source = open_frames(reel)

    def begin(order: Sequence[int]) -> Session:
        session = predictor.session(order=order)
        if order[0] <= order[-1]:  # the pass forward, or the only frame of a pass
            return session
        return cast(Session, _Reporting(session, lambda time, result: passed(frames[order[time]], result)))

    if direction == "backward":
        results = propagate_backward(begin, source, masks)
    else:
        results = propagate_both(begin, source, masks, stop=predictor.settings.cuts == "stop")
    until = given[0] if direction == "backward" else frames.stop
    begun = False
    try:
        for result in results:
            index = frames.start + result.index
            if index >= until:
                break
            if not begun:
                if stopping():  # since the last frame was read
                    return
                project.begin_ways(f"tracked {'both ways' if direction == 'both' else 'backward'}", index)
                begun = True
            sure = {id: round(state.confidence, 4) for id, state in result.objects.items()}
            project.store(index, result.mask, result.matte(), sure, back=True)
            yield index
    except _Stopped:
        return


def steps_of(project: Project, direction: Direction, frames: range) -> int:
    """The number of steps of `track_ways`, for its progress. Raises ValueError as `track_ways` does."""
    back = _given(project, direction, frames)[-1] - frames.start + 1
    return back + (len(frames) if direction == "both" else 0)


def _given(project: Project, direction: Direction, frames: range) -> list[int]:
    given = sorted(index for index in project.given if index in frames)
    if not given:
        last = f"{frames.start} to {frames.stop - 1}"
        raise ValueError(f"no frame from {last} has a mask from you: paint the objects of one")
    if direction == "backward" and given[0] == frames.start:
        raise ValueError(f"frame {given[0]} has a mask from you, and no frame before it is to be tracked")
    for index in given:
        if absent := {*project.given[index]} - {*np.unique(project.given_objects(index)).tolist()}:
            raise ValueError(
                f"object {min(absent)} was erased on frame {index}, which only tracking forward can use; "
                f"leave frame {index} out with In and Out, or take back its mask"
            )
    return given


class _Stopped(Exception):
    """The user stopped the job."""


class _Reporting:
    """A session that reports the result of each step.

    report: called with the number of the step, from 0, and its result.
    """

    def __init__(self, session: Session, report: Callable[[int, Result], None]) -> None:
        self._session, self._report = session, report

    def step(self, frame: object, mask: object = None) -> Result:
        time, result = self._session.index, self._session.step(frame, mask)
        self._report(time, result)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class _Reel(Sequence[Pixels]):
    """Frames of a project, which count how often they are read."""

    def __init__(
        self, project: Project, frames: range, progress: Callable[[int], None], stopping: Callable[[], bool]
    ) -> None:
        self._project, self._frames = project, frames
        self._progress, self._stopping = progress, stopping
        self._read = 0

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: Any) -> Any:
        if self._stopping():
            raise _Stopped
        self._progress(self._read)
        self._read += 1
        return self._project.frame(self._frames[index])
