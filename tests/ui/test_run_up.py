"""While a person mends a frame, the tracker comes up to it, and nothing else is different."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from emavos.io import open_frames
from emavos.ui import Desk, tracking
from emavos.ui.run_up import RunUp


@pytest.fixture
def desk(project, predictor, clip):
    """A tracked clip of eight frames; the only saved state is the last."""
    desk = Desk(predictor, project.folder, keeps=True)
    desk.give(0, clip[1][0])
    tracked(desk)
    yield desk
    desk.close()


def tracked(desk):
    desk.track()
    desk.queue.join()


def mended(desk, index=5):
    mask = desk.project.mask(index)
    mask[60:80, 100:130] = 1
    return mask


def expected(desk):
    masks = {i: desk.project.given_objects(i) for i in desk.project.given}
    frames = open_frames(desk.project.folder / "frames")
    return [result.mask for result in desk.predictor.propagate(frames, masks)]


def masks(desk):
    return [desk.project.mask(index) for index in range(8)]


@pytest.fixture
def stepped(monkeypatch):
    """The frames that are stepped through, and by which thread."""
    steps, step = [], tracking._step

    def noted(project, session, index, encoded):
        steps.append((threading.current_thread().name, index))
        return step(project, session, index, encoded)

    monkeypatch.setattr(tracking, "_step", noted)
    return steps


def test_the_steps_to_a_mended_frame_are_made_while_it_is_mended(desk, stepped):
    mask = mended(desk)
    desk.save_draft(5, mask)
    desk.give(5, mask)
    tracked(desk)
    assert [index for name, index in stepped if name == "emavos-run-up"] == [0, 1, 2, 3, 4]
    assert [index for name, index in stepped if name == "emavos-track"] == [5, 6, 7]
    np.testing.assert_array_equal(masks(desk), expected(desk))


def test_a_long_look_is_enough(desk, stepped):
    desk.mended(desk.project, 6)
    assert desk.run_up.take(desk.project, 6).index == 6
    assert stepped == [("emavos-run-up", index) for index in range(6)]


@pytest.mark.parametrize("undone", [False, True])
def test_an_edit_before_the_frame_makes_the_steps_again(desk, stepped, undone):
    desk.save_draft(5, mended(desk))
    desk.give(2, mended(desk, 2))
    if undone:
        desk.undo()
    assert desk.run_up.take(desk.project, 5) is None
    tracked(desk) if not undone else None
    desk.give(5, mended(desk))
    tracked(desk)
    np.testing.assert_array_equal(masks(desk), expected(desk))


def test_a_frame_that_tracking_does_not_begin_with_is_not_run_up_to(desk, clip, stepped):
    desk.save_draft(0, mended(desk, 0))
    desk.save_draft(5, None)
    desk.undo()  # nothing is tracked any more
    desk.save_draft(5, clip[1][5])
    desk.close()
    assert not stepped


def test_steps_that_fail_are_made_by_tracking_which_tells_why(desk, monkeypatch):
    def fails(*_):
        raise ValueError("a frame is damaged")

    monkeypatch.setattr(tracking, "_step", fails)
    desk.save_draft(5, mended(desk))
    assert desk.run_up.take(desk.project, 5) is None
    desk.give(5, mended(desk))
    tracked(desk)
    assert desk.job.error == "a frame is damaged"


def test_only_the_last_frame_is_run_up_to_and_closing_waits_for_the_step(project, clip):
    project.give(0, clip[1][0])
    for index in range(8):
        project.store(index, clip[1][index], np.zeros((96, 160), np.float32), {})
    begun, ended = [], []

    def steps(project, index, stop):
        begun.append(index)
        assert stop.wait(60)
        ended.append(index)

    run_up = RunUp(steps)
    for index in (3, 3, 5):
        run_up.begin(project, index)
    run_up.close()
    assert begun == [3, 5]
    assert sorted(ended)[-1] == 5
    assert run_up.take(project, 5) is None


def test_the_page_is_told_that_earlier_steps_are_repeated_until_the_first_frame_is_tracked(
    desk, stepped, monkeypatch
):
    step, said = tracking._step, []

    def noted(project, session, index, encoded):
        said.append((index, desk.job.facts["again"]))
        return step(project, session, index, encoded)

    desk.run_up.close()
    desk.give(5, mended(desk))
    desk.run_up.close()
    monkeypatch.setattr(tracking, "_step", noted)
    tracked(desk)
    assert said[-8:] == [*((index, 5) for index in range(6)), (6, None), (7, None)]


def test_waiting_for_the_steps_made_meanwhile_is_told(desk):
    go_on, waited = threading.Event(), []
    run_up = RunUp(lambda project, index, stop: go_on.wait(30) and None)
    run_up.begin(desk.project, 5)
    assert run_up.take(desk.project, 5, lambda index: (waited.append(index), go_on.set())) is None
    assert waited == [5]
