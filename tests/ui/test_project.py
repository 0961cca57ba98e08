from __future__ import annotations

import json
import shutil
from contextlib import closing

import numpy as np
import pytest

from emavos import Predictor
from emavos.io import open_frames
from emavos.ui import Project, tracking
from emavos.ui.downloads import write_masks
from emavos.ui.importing import import_video
from emavos.ui.states import States
from emavos.ui.tracking import track_forward


def masks(project):
    return [project.mask(index) for index in range(project.count)]


def expected(project, predictor, given):
    """What the predictor alone says of the frames of the folder."""
    return [result.mask for result in predictor.propagate(open_frames(project.folder / "frames"), given)]


def test_tracking_is_what_the_predictor_gives(project, predictor, clip):
    assert project.give(0, clip[1][0]) == (1, 2)
    assert list(track_forward(project, predictor)) == [*range(8)]
    np.testing.assert_array_equal(masks(project), expected(project, predictor, clip[1][0]))
    assert project.reached == 8
    assert all(0 <= x <= 1 for sure in project.confidence.values() for x in sure.values())
    assert set(project.confidence[5]) == {1, 2}


def test_a_frame_that_is_mended_changes_those_after_it_alone(project, predictor, clip, monkeypatch):
    monkeypatch.setattr(tracking, "_STATE_EVERY", 2)
    project.give(0, clip[1][0])
    list(track_forward(project, predictor))
    before = masks(project)
    mended = before[5].copy()
    mended[60:80, 100:130] = 1
    assert project.give(5, mended) == tuple(sorted({1, *np.unique(before[5][60:80, 100:130])} - {0}))
    assert [project.kind(i) for i in (4, 5, 6)] == ["tracked", "given", "outdated"]
    assert list(track_forward(project, predictor)) == [5, 6, 7]
    np.testing.assert_array_equal(masks(project)[:5], before[:5])
    known = np.where(np.isin(mended, project.given[5]), mended, 0)
    np.testing.assert_array_equal(masks(project), expected(project, predictor, {0: clip[1][0], 5: known}))


def test_going_back_needs_no_state_on_disk(project, predictor, clip):
    project.give(0, clip[1][0])
    list(track_forward(project, predictor))
    before = masks(project)
    shutil.rmtree(project.folder / "states")
    project.give(4, np.where(before[4] == 2, 0, before[4]))
    assert list(track_forward(project, predictor)) == [4, 5, 6, 7]
    np.testing.assert_array_equal(masks(project)[:4], before[:4])
    assert 2 not in project.mask(4)


def test_an_object_may_come_later_and_what_comes_first_is_not_tracked(project, predictor, clip):
    project.give(2, clip[1][2] * (clip[1][2] == 1))
    assert project.give(5, clip[1][5] * (clip[1][5] == 2)) == (2,)  # says nothing of object 1
    assert list(track_forward(project, predictor)) == [*range(2, 8)]
    assert [project.kind(i) for i in (0, 1, 2, 3)] == ["none", "none", "given", "tracked"]
    assert not project.mask(1).any()
    assert [sorted(project.confidence[i]) for i in (4, 5, 7)] == [[1], [1, 2], [1, 2]]


def test_stopping_and_going_on_gives_the_same_masks(project, predictor, clip):
    project.give(0, clip[1][0])
    with closing(track_forward(project, predictor)) as tracked:
        assert [next(tracked), next(tracked), next(tracked)] == [0, 1, 2]
    assert project.reached == 3
    again = Project.open(project.folder)
    assert list(track_forward(again, predictor, until=5)) == [3, 4]
    assert list(track_forward(again, predictor)) == [5, 6, 7]
    np.testing.assert_array_equal(masks(again), expected(again, predictor, clip[1][0]))


def test_a_folder_opens_as_it_was_left_even_with_a_line_that_was_cut_off(project, predictor, clip):
    project.give(0, clip[1][0])
    list(track_forward(project, predictor))
    track = project.folder / "track.jsonl"
    track.write_text(track.read_text()[:-9])
    again = Project.open(project.folder)
    assert (again.given, again.reached, again.size) == ({0: (1, 2)}, 7, project.size)
    assert list(track_forward(again, predictor)) == [7]
    assert Project.open(project.folder).confidence == project.confidence


def test_a_project_that_is_read_is_not_written(project, clip):
    project.give(0, clip[1][0])
    for index in range(3):
        project.store(index, clip[1][index], clip[1][index] > 0, {1: 0.9, 2: 0.9})
    track = project.folder / "track.jsonl"
    track.write_text(track.read_text()[:-9])  # another process writes the line
    (project.folder / ".unfinished").touch()
    (project.folder / "states").mkdir()
    (project.folder / "states" / "000003.safetensors").touch()
    files = {path: path.stat().st_mtime_ns for path in project.folder.rglob("*")}
    reader = Project.open(project.folder)
    assert reader.reached == 2
    assert {path: path.stat().st_mtime_ns for path in project.folder.rglob("*")} == files
    reader.store(2, clip[1][2], clip[1][2] > 0, {1: 0.5, 2: 0.5})  # as the one that holds it
    reader.sweep()
    assert not (project.folder / ".unfinished").exists()
    assert Project.open(project.folder).confidence == reader.confidence
    assert len(track.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "name": 3}', "[" * 100_000, "null"]
)
def test_a_damaged_folder_is_told_as_such(project, text):
    (project.folder / "project.json").write_text(text)
    with pytest.raises(ValueError, match=r"project\.json is damaged"):
        Project.open(project.folder)


def test_a_folder_without_a_project_is_told_as_such(tmp_path):
    with pytest.raises(ValueError, match="holds no project"):
        Project.open(tmp_path)


def test_a_new_project_never_writes_into_a_folder_of_something_else(tmp_path, video):
    with pytest.raises(ValueError, match="is not empty"):
        next(import_video(video, open_frames(video), "clip"))


def test_what_was_given_can_be_taken_back(project, predictor, clip):
    project.give(0, clip[1][0])
    list(track_forward(project, predictor))
    before = masks(project)
    project.give(4, np.zeros_like(clip[1][4]))
    assert project.given[4] == (1, 2)  # they are known to be absent
    project.take_back(4)
    assert project.reached == 4
    list(track_forward(project, predictor))
    np.testing.assert_array_equal(masks(project), before)
    with pytest.raises(ValueError, match="no mask was given for frame 4"):
        project.take_back(4)


def test_a_removed_object_is_on_no_frame(project, predictor, clip):
    project.give(0, clip[1][0])
    list(track_forward(project, predictor))
    project.remove(2)
    assert project.ids == (1,)
    list(track_forward(project, predictor))
    assert not any(2 in mask for mask in masks(project))
    project.remove(1)
    assert (project.given, project.first, project.kind(0)) == ({}, None, "none")
    with pytest.raises(ValueError, match="object 1 was given on no frame"):
        project.remove(1)


@pytest.mark.parametrize("way", ["remove", "take_back"])
def test_an_object_that_is_gone_is_on_no_frame_that_was_given_for_another(project, predictor, clip, way):
    project.give(0, np.where(clip[1][0] == 2, 2, 0))
    list(track_forward(project, predictor))
    mended = project.mask(3)
    mended[:9, :9] = 1
    assert 2 in mended
    assert project.give(3, mended) == (1,)
    project.remove(2) if way == "remove" else project.take_back(0)
    assert project.given == {3: (1,)}
    assert np.unique(project.mask(3)).tolist() == [0, 1]


def test_a_frame_that_was_mended_for_one_object_waits_for_the_others_to_be_tracked(
    project, predictor, clip, tmp_path
):
    project.give(0, clip[1][0])
    list(track_forward(project, predictor))
    mended = project.mask(5)
    mended[:9, :9] = 1
    project.give(5, mended)
    list(track_forward(project, predictor))
    gone = project.mask(2)
    gone[gone == 2] = 0
    project.give(2, gone)  # so frame 5, whose mask shows it as it was tracked before, is outdated
    before = project.mask(5)
    assert 2 in before
    assert [project.is_current(i) for i in range(8)] == [True] * 2 + [False] * 6
    assert list(write_masks(project, tmp_path / "masks.zip")) == [1, 2]
    list(track_forward(project, predictor))
    assert all(project.is_current(i) for i in range(8))
    assert not np.array_equal(project.mask(5) == 2, before == 2)


def test_what_is_painted_as_it_was_says_nothing(project, predictor, clip):
    project.give(0, clip[1][0])
    list(track_forward(project, predictor))
    assert project.give(3, project.mask(3)) == ()
    assert (project.reached, list(project.given)) == (8, [0])


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((4, 4), np.int32), "mask is 4x4 but frame is 96x160"),
        (np.full((96, 160), 256), "ids from 1 to 255, not 256"),
        (np.full((96, 160), -1), "ids from 1 to 255, not -1"),
        (np.arange(5, 5 + 96 * 160).reshape(96, 160), f"not {4 + 96 * 160}"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(project, mask, words):
    with pytest.raises(ValueError, match=words):
        project.give(0, mask)
    assert not project.given


def test_ids_can_be_asked_for_while_another_thread_gives_a_mask(project):
    class Slow(tuple):
        def __iter__(self):
            project.given[len(project.given)] = (9,)
            return super().__iter__()

    project.given = {0: Slow((1, 2)), 1: (2,)}
    assert project.ids == (1, 2)


def test_there_must_be_something_to_track_and_frames_must_exist(project, predictor):
    with pytest.raises(ValueError, match="no frame has a mask yet"):
        next(track_forward(project, predictor))
    for index in (-1, 8):
        with pytest.raises(ValueError, match="there is no frame"):
            project.mask(index)


def test_other_settings_are_refused_where_frames_are_tracked(project, predictor, clip):
    project.give(0, clip[1][0])
    list(track_forward(project, predictor, until=3))
    other = Predictor(predictor.model, predictor.policy, size=64)
    with pytest.raises(ValueError, match="begun with size 96"):
        next(track_forward(project, other))
    assert json.loads((project.folder / "project.json").read_text())["settings"]["size"] == 96


def test_states_thin_out_where_they_take_too_much(tmp_path, predictor, clip):
    states = States(tmp_path / "states", limit=1)
    session = predictor.session()
    session.step(clip[0][0], clip[1][0])
    for frame in clip[0][1:]:
        states.save(session)
        session.step(frame)
    kept = [int(file.stem) for file in states.files()]
    assert len(kept) == 2
    assert kept[-1] == 7
    assert states.latest(7, predictor).index == 7
    states.forget(6)
    assert states.latest(7, predictor) is None or states.latest(7, predictor).index <= 6


def test_frames_of_two_sizes_are_no_video(tmp_path, clip):
    frames = open_frames([clip[0][0], clip[0][1][:50]])
    with pytest.raises(ValueError, match="frame 1 is 50x160 but the video began with 96x160"):
        list(import_video(tmp_path / "project", frames, "clip"))


def test_an_import_that_fails_removes_what_it_made_and_nothing_else(tmp_path, clip):
    odd = open_frames([clip[0][0], clip[0][1][:50]])
    (tmp_path / "there").mkdir()
    for name, remains in (("there", True), ("new", False)):
        with pytest.raises(ValueError, match="frame 1 is 50x160"):
            list(import_video(tmp_path / name, odd, "clip"))
        assert (tmp_path / name).exists() == remains
    assert not list((tmp_path / "there").iterdir())


def test_an_import_that_was_stopped_leaves_nothing(tmp_path, video):
    with closing(import_video(tmp_path / "new", open_frames(video), "clip")) as building:
        next(building)
        assert (tmp_path / "new" / "frames" / "00000.jpg").exists()
    assert not (tmp_path / "new").exists()


def test_an_import_that_was_killed_is_begun_anew(tmp_path, project, video):
    killed = tmp_path / "killed"
    building = import_video(killed, open_frames(video), "clip")
    next(building)
    shutil.copytree(killed, tmp_path / "left")  # as a kill would leave it
    building.close()
    (tmp_path / "left" / ".project.json.0123abcd.partial").touch()
    (tmp_path / "left" / "..unfinished.0123abcd.partial").touch()
    with pytest.raises(ValueError, match="holds no project"):
        Project.open(tmp_path / "left")
    list(import_video(tmp_path / "left", open_frames(video), "clip"))
    again = Project.open(tmp_path / "left")
    assert again.count == 8
    assert {path.name for path in again.folder.iterdir()} == {"frames", "project.json"}


def test_frames_of_the_user_are_not_taken_for_those_of_a_killed_import(tmp_path, video, clip):
    (tmp_path / "mine" / "frames").mkdir(parents=True)
    (tmp_path / "mine" / "frames" / "00000.jpg").write_bytes(b"mine")
    with pytest.raises(ValueError, match="is not empty"):
        next(import_video(tmp_path / "mine", open_frames(video), "clip"))
    assert (tmp_path / "mine" / "frames" / "00000.jpg").read_bytes() == b"mine"
