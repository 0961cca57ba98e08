"""Tracking backward, both ways and in a range, and the next frame to fix."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from emavos.ui import Desk, Project, tracking
from emavos.ui.reviewing import suggestions
from emavos.ui.tracking import steps_of, track_forward, track_ways


@pytest.fixture
def middle(project, clip):
    """The project with a mask of frame 4 only."""
    project.give(4, clip[1][4])
    return project


@pytest.fixture
def desk(middle, predictor):
    desk = Desk(predictor, middle.folder, keeps=True)
    yield desk
    desk.close()


def test_frames_before_the_first_mask_are_tracked_backward(middle, predictor, clip):
    list(track_forward(middle, predictor))
    after = [middle.mask(i) for i in range(4, 8)]
    assert list(track_ways(middle, predictor, "backward", range(8))) == [0, 1, 2, 3]
    assert [middle.kind(i) for i in range(5)] == ["tracked"] * 4 + ["given"]
    wanted = predictor.propagate(clip[0][:5], masks={4: clip[1][4]}, direction="backward")
    again = Project.open(middle.folder)
    for index, result in zip(range(4), wanted, strict=False):
        agree = (result.mask == again.mask(index)).mean()  # frames were stored as JPEGs
        assert agree > 0.97
        assert 0 < again.matte(index).max() <= 1
    for index, mask in enumerate(after, 4):
        np.testing.assert_array_equal(again.mask(index), mask)
    assert again.confidence == middle.confidence
    assert again.reached == 8


@pytest.mark.parametrize("direction", ["backward", "both"])
def test_masks_of_the_pass_backward_are_shown_before_they_are_written(
    desk, predictor, clip, monkeypatch, direction
):
    wanted = list(predictor.propagate(clip[0], masks={4: clip[1][4]}, direction="backward"))
    seen, step, passed = {}, tracking._Reporting.step, []

    def stepped(session, frame, mask=None):
        result = step(session, frame, mask)
        index = desk.job.facts["frame"]
        newest, seen[index] = desk.preview()
        assert newest == index
        passed.append(desk.job.facts["passed"])
        assert (desk.project.confidence, desk.project.kind(0)) == ({}, "none")
        return result

    monkeypatch.setattr(tracking._Reporting, "step", stepped)
    desk.track(direction=direction)
    desk.queue.join()
    assert desk.job.error is None
    assert [*seen] == [4, 3, 2, 1, 0]
    assert passed == [[first, 5] for first in seen]
    assert desk.job.facts["passed"] is None
    for index, mask in seen.items():
        assert (mask == wanted[index].mask).mean() > 0.97  # frames were stored as JPEGs
    assert desk.preview() is None
    assert desk.job.facts["frame"] is None
    assert desk.project.kind(0) == "tracked"


def test_tracking_backward_is_undone_and_done_again(middle, predictor):
    list(track_ways(middle, predictor, "backward", range(8)))
    masks = [middle.mask(i) for i in range(4)]
    assert middle.undo() == ("tracked backward", 0)
    assert middle.kind(2) == "none"
    middle.redo()
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(middle.mask(index), mask)


def test_a_later_mask_that_is_changed_takes_back_what_was_tracked_backward_from_it(middle, predictor, clip):
    list(track_ways(middle, predictor, "backward", range(8)))
    middle.give(6, clip[1][6])  # another: what was tracked did not depend on it
    assert middle.kind(0) == "tracked"
    middle.give(4, np.where(clip[1][4] == 2, 0, clip[1][4]))
    assert middle.kind(0) == "none"
    middle.undo()
    assert middle.kind(0) == "tracked"


def test_both_ways_equals_the_library_and_covers_the_range_only(middle, predictor, clip):
    middle.give(6, clip[1][6])
    list(track_forward(middle, predictor))
    before = middle.mask(7)
    told = []
    asked = range(2, 7)
    assert list(track_ways(middle, predictor, "both", asked, told.append)) == [*asked]
    assert max(told) <= steps_of(middle, "both", asked) == 5 + 5
    frames = [middle.frame(i) for i in asked]
    masks = {2: middle.mask(4), 4: middle.mask(6)}
    wanted = list(predictor.propagate(frames, masks=masks, direction="both"))
    np.testing.assert_array_equal(middle.mask(3), wanted[1].mask)
    np.testing.assert_array_equal(middle.mask(7), before)
    assert middle.kind(1) == "none"


@pytest.fixture
def recorder(monkeypatch):
    """A predictor that tracks nothing, and the masks that were given to it."""
    calls = []

    def propagate(begin, frames, masks, stop=False):
        calls.append(masks)
        return iter(())

    for name in ("propagate_backward", "propagate_both"):
        monkeypatch.setattr(tracking, name, propagate)
    settings = SimpleNamespace(auto_backend=False, cuts="ignore")
    predictor = SimpleNamespace(facts=dict, settings=settings)
    predictor.continuing = lambda facts: predictor
    return predictor, calls


@pytest.mark.parametrize("direction", ["backward", "both"])
def test_only_objects_that_were_given_are_annotations(middle, clip, recorder, direction):
    second = clip[1][5] * (clip[1][5] == 2)
    middle.store(5, clip[1][5] * (clip[1][5] == 1), second > 0, {1: 0.9})  # object 1 was tracked there
    assert middle.give(5, clip[1][5]) == (2,)
    predictor, calls = recorder
    list(track_ways(middle, predictor, direction, range(1, 8)))
    (masks,) = calls
    assert {*masks} == {3, 4}
    np.testing.assert_array_equal(masks[3], clip[1][4])
    np.testing.assert_array_equal(masks[4], second)


@pytest.mark.parametrize("direction", ["backward", "both"])
@pytest.mark.parametrize("erased", [{2}, {1, 2}])
def test_an_erased_object_is_refused_before_the_first_frame(desk, clip, recorder, direction, erased):
    desk.project.store(6, clip[1][6], clip[1][6] > 0, {1: 0.9, 2: 0.9})
    desk.give(6, np.where(np.isin(clip[1][6], [*erased]), 0, clip[1][6]))
    words = f"object {min(erased)} was erased on frame 6"
    with pytest.raises(ValueError, match=words):
        desk.track(direction=direction)
    predictor, calls = recorder
    with pytest.raises(ValueError, match=words):
        list(track_ways(desk.project, predictor, direction, range(8)))
    assert (desk.job, calls) == (None, [])
    list(track_ways(desk.project, predictor, direction, range(6)))  # without the frame
    assert len(calls) == 1


def test_undo_brings_back_masks_of_both_ways_that_tracking_forward_replaced(middle, predictor, clip):
    for index in (6, 7):
        middle.store(index, clip[1][index], clip[1][index] > 0, {1: 0.9, 2: 0.9}, back=True)
    before, step = [middle.mask(index) for index in range(8)], middle.step
    list(track_forward(middle, predictor, until=6))  # replaces none
    assert (middle.step, middle.reached) == (step, 8)
    middle.confidence.pop(5)
    list(track_forward(middle, predictor))
    assert (middle.step, middle.reached) == (step + 1, 8)
    assert any((middle.mask(index) != before[index]).any() for index in (6, 7))
    assert middle.undo() == ("tracked forward", 5)
    for index in (6, 7):
        np.testing.assert_array_equal(middle.mask(index), before[index])


@pytest.mark.parametrize("reads", [3, 5])  # 5: all frames of the pass are read
def test_a_pass_that_is_stopped_writes_nothing(middle, predictor, reads):
    steps, before = [], middle.edits
    stopped = track_ways(middle, predictor, "backward", range(8), steps.append, lambda: len(steps) >= reads)
    assert list(stopped) == []
    assert (middle.kind(0), middle.can_redo, middle.edits, len(steps)) == ("none", False, before, reads)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"direction": "sideways"}, "direction is one of"),
        ({"frames": 0}, "at least 1, not 0"),
        ({"last": 8}, "no frames from 0 to 8"),
        ({"first": 3, "last": 2}, "no frames from 3 to 2"),
        ({"first": 4, "direction": "backward"}, "no frame before it"),
        ({"first": 5, "direction": "both"}, "no frame from 5 to 7 has a mask"),
        ({"last": 3}, "begins at frame 4, after these frames"),
    ],
)
def test_frames_that_cannot_be_tracked_are_refused_with_the_reason(desk, asked, words):
    with pytest.raises(ValueError, match=words):
        desk.track(**asked)
    assert desk.job is None


def test_a_clip_that_is_tracked_stays_so_when_it_is_tracked_again(desk):
    desk.track()
    desk.job.join()
    done = desk.job
    for last in (None, 6):
        with pytest.raises(ValueError, match="nothing left to track"):
            desk.track(last=last)
    assert desk.job is done
    assert not desk.queue.errors  # which the list of clips would show


def test_some_frames_are_tracked_and_the_rest_later(desk):
    desk.track(frames=1)
    desk.job.join()
    assert (desk.project.reached, desk.job.total) == (5, 1)
    desk.track(last=6)
    desk.job.join()
    assert desk.project.reached == 7
    desk.track(direction="backward", frames=2)
    desk.job.join()
    assert [desk.project.kind(i) for i in range(4)] == ["none", "none", "tracked", "tracked"]
    assert desk.state()["project"]["tracked"] == 5
    desk.track()
    desk.job.join()
    assert desk.project.reached == 8
    assert desk.job.facts["seconds"] is None  # it has ended


def test_the_next_frame_to_fix_comes_with_its_reason(middle, predictor):
    with pytest.raises(ValueError, match="no frame is tracked yet"):
        suggestions(middle)
    list(track_forward(middle, predictor))
    for index in range(4, 8):
        middle.confidence[index] = {1: 0.9, 2: 0.2 if index == 6 else 0.9}
    first = suggestions(middle)[0]
    assert (first["frame"], first["object"], first["confidence"]) == (6, 2, 0.2)
    assert first["reason"]
    middle.confidence[6] = {1: 0.9, 2: 0.9}
    assert all(one["frame"] != 6 for one in suggestions(middle))


def test_ways_and_the_review_work_through_the_page(desk):
    pytest.importorskip("starlette")
    pytest.importorskip("httpx")
    from starlette.testclient import TestClient

    from emavos.ui.server.app import make_app

    client = TestClient(make_app(desk, "secret"), base_url="http://127.0.0.1:8321")
    client.get("/?token=secret")
    assert "no frame is tracked" in client.get("/api/review").json()["error"]
    for wrong in ("way=up", "frames=x", "first=-1", "frames=" + "9" * 5000):
        assert client.post(f"/api/track?{wrong}").status_code == 400
    assert client.post("/api/track?way=both&first=3&last=5").status_code == 200
    desk.job.join()
    assert desk.job.error is None
    assert sorted(desk.project.confidence) == [3, 4, 5]
    assert isinstance(client.get("/api/review").json(), list)


def test_the_runs_of_outdated_frames_are_those_of_that_kind(middle, predictor, clip):
    def agree():
        frames = [index for start, end in middle.outdated for index in range(start, end)]
        assert frames == [index for index in range(8) if middle.kind(index) == "outdated"]
        return middle.outdated

    assert agree() == []
    list(track_ways(middle, predictor, "backward", range(8)))
    assert agree() == []
    middle.give(7, clip[1][7])
    assert agree() == []  # frames that were never tracked are not outdated
    list(track_forward(middle, predictor))
    middle.give(1, clip[1][1])
    assert agree() == [(2, 4), (5, 7)]
    next(iter(track_forward(middle, predictor)))
    agree()
    middle.take_back(1)
    agree()
    middle.take_back(4)
    middle.take_back(7)
    assert agree() == []
    for _ in range(3):
        middle.undo()
        agree()
