"""The list of clips, and the queue that tracks one after another."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from emavos.io import open_frames
from emavos.ui import Busy, Desk, Outdated, Project
from emavos.ui.downloads import DOWNLOADS
from emavos.ui.importing import import_video
from emavos.ui.job import Job
from emavos.ui.queue import Queue
from emavos.ui.shelf import Shelf, origin_of, projects_folder


@pytest.fixture
def shelf(tmp_path, video):
    """A folder with the projects "one" and "two"."""
    for name in ("one", "two"):
        list(import_video(tmp_path / "clips" / name, open_frames(video), f"{name}.mp4"))
    return Shelf(tmp_path / "clips")


@pytest.fixture
def desk(shelf, predictor):
    desk = Desk(predictor, shelf.folder, keeps=False)
    yield desk
    desk.close()


def done(desk):
    while (job := desk.queue.now) is not None:
        job.join()
    return desk


def by_key(desk):
    return {clip["key"]: clip for clip in desk.clips()}


def test_clips_are_kept_in_the_data_directory_of_the_user(data_home, monkeypatch):
    assert projects_folder() == data_home / "emavos" / "projects"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert projects_folder().is_absolute()


def test_a_new_video_adds_a_clip_and_replaces_none(tmp_path, predictor, video, clip):
    desk = Desk(predictor, tmp_path / "work", keeps=False)
    for name in ("../clip.mp4", "clip.mp4", "..."):
        desk.open_video(video, name)
        desk.job.join()
        assert desk.job.error is None
        desk.give(0, clip[1][0])
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"clip", "clip-2", "video"}
    assert {key: one["given"] for key, one in by_key(desk).items()} == {"clip": 1, "clip-2": 1, "video": 1}
    desk.close()


def test_a_clip_is_opened_again_as_it_was_left(desk, clip):
    desk.open_clip("one")
    desk.give(0, clip[1][0])
    key = desk.key
    desk.open_clip("two", key)
    assert desk.project.given == {}
    with pytest.raises(Outdated):
        desk.open_clip("one", key)
    desk.open_clip("one")
    assert desk.project.given == {0: (1, 2)}
    assert by_key(desk)["one"]["shown"]


@pytest.mark.parametrize("name", ["three", "", "..", "../clips/one", "one/../two", "nul\0"])
def test_a_clip_that_there_is_not_is_refused(desk, name):
    for use in (desk.open_clip, desk.remove_clip, desk.thumbnail):
        with pytest.raises(ValueError, match="there is no clip"):
            use(name)


def test_a_single_project_has_no_list_of_clips(tmp_path, predictor, project):
    desk = Desk(predictor, project.folder, keeps=True)
    assert (desk.clips(), desk.state()["clips"]) == ([], None)
    for use in (desk.track_all, lambda: desk.open_clip("one")):
        with pytest.raises(ValueError, match="without --project"):
            use()
    desk.close()


def test_a_video_is_known_again_by_its_path_size_and_time(tmp_path, predictor, video):
    desk = Desk(predictor, tmp_path / "work", keeps=False)
    assert not desk.resume(video)
    desk.open_video(video, "clip")
    desk.job.join()
    folder = desk.project.folder
    desk.close()
    again = Desk(predictor, tmp_path / "work", keeps=False)
    assert again.resume(video)
    assert again.project.folder == folder
    assert again.has(video)
    assert not again.has(tmp_path)
    again.close()
    file = tmp_path / "a.mp4"
    file.write_bytes(b"0")
    first = origin_of(file)
    file.write_bytes(b"01")
    assert origin_of(file) != first


def test_a_damaged_clip_is_listed_with_its_problem_and_the_others_work(desk, shelf):
    (shelf.folder / "one" / "project.json").write_text("{")
    (shelf.folder / "not-a-clip").mkdir()
    (shelf.folder / "file").touch()
    clips = by_key(desk)
    assert {*clips} == {"one", "two"}
    assert "is damaged" in clips["one"]["problem"]
    assert not clips["two"]["problem"]


def test_the_thumbnail_shows_the_objects(desk, clip):
    plain = desk.thumbnail("one")
    assert plain[:2] == b"\xff\xd8"
    desk.open_clip("one")
    desk.give(0, clip[1][0])
    assert desk.thumbnail("one") != plain


def test_a_clip_that_is_open_is_not_read_again_for_the_list(desk, clip, monkeypatch):
    desk.open_clip("one")
    desk.clips()

    def unread(folder):
        raise AssertionError(f"{folder} was read")

    monkeypatch.setattr(Project, "open", unread)
    desk.give(0, clip[1][0])
    assert by_key(desk)["one"]["given"] == 1
    assert desk.thumbnail("one")
    desk.take_back(0)
    with pytest.raises(ValueError, match="no clip has"):
        desk.track_all()


def test_only_a_clip_that_nobody_works_on_is_deleted(desk, shelf, tmp_path):
    desk.open_clip("one")
    with pytest.raises(Busy, match="open another clip first"):
        desk.remove_clip("one")
    desk.remove_clip("two")
    assert [*by_key(desk)] == ["one"]
    assert not (shelf.folder / "two").exists()
    (tmp_path / "elsewhere").mkdir()
    os.rename(shelf.folder / "one", tmp_path / "elsewhere" / "one")
    (shelf.folder / "link").symlink_to(tmp_path / "elsewhere" / "one")
    with pytest.raises(ValueError, match="is a link"):
        desk.remove_clip("link")
    assert Project.open(tmp_path / "elsewhere" / "one").count == 8


def test_all_clips_with_masks_are_tracked_one_after_another(desk, shelf, clip):
    with pytest.raises(ValueError, match="no clip has masks"):
        desk.track_all()
    for name in ("one", "two"):
        desk.open_clip(name)
        desk.give(0, clip[1][0])
    assert desk.track_all() == 2
    done(desk)
    assert {key: (one["tracked"], one["left"]) for key, one in by_key(desk).items()} == {
        "one": (8, 0),
        "two": (8, 0),
    }
    assert Project.open(shelf.folder / "one").reached == 8
    desk.open_clip("one")  # the queue has let go of it
    assert desk.project.reached == 8


def test_another_clip_can_be_worked_on_while_one_is_tracked(desk, clip, monkeypatch):
    going, go_on = threading.Event(), threading.Event()
    step = Project._step

    def slow(self, session, index):
        going.set()
        assert go_on.wait(60)
        return step(self, session, index)

    monkeypatch.setattr(Project, "_step", slow)
    desk.open_clip("one")
    desk.give(0, clip[1][0])
    desk.track()
    assert going.wait(60)
    with pytest.raises(Busy, match="being tracked"):
        desk.give(0, clip[1][1])
    desk.open_clip("two")
    assert desk.state()["job"] is None
    assert desk.state()["queue"]["now"]["clip"] == "one"
    desk.give(0, clip[1][0])
    desk.track()
    assert desk.state()["job"]["waiting"]
    desk.open_clip("one")
    assert desk.state()["job"]["running"]
    go_on.set()
    done(desk)
    assert all(one["tracked"] == 8 for one in desk.clips())


def test_a_clip_that_cannot_be_tracked_says_why_and_the_next_is_tracked(desk, shelf, clip, monkeypatch):
    for name in ("one", "two"):
        desk.open_clip(name)
        desk.give(0, clip[1][0])
    step = Project._step

    def fails(self, session, index):
        if self.folder.name == "one":
            raise ValueError("no such luck")
        return step(self, session, index)

    monkeypatch.setattr(Project, "_step", fails)
    desk.track_all()
    done(desk)
    clips = by_key(desk)
    assert (clips["one"]["error"], clips["two"]["error"]) == ("no such luck", None)
    assert clips["two"]["tracked"] == 8


def test_a_video_that_is_only_added_leaves_the_shown_one(desk, video, shelf):
    desk.open_clip("one")
    key = desk.key
    for _ in range(2):
        desk.open_video(video, "more.mp4", show=False)
    done(desk)
    assert desk.key == key
    assert {*by_key(desk)} == {"one", "two", "more", "more-2"}


def test_jobs_of_the_queue_wait_and_are_dropped_or_stopped():
    began, queue, go_on = [], Queue(), threading.Event()

    def steps(name):
        began.append(name)
        for done in range(1, 101):
            assert go_on.wait(60)
            yield done

    jobs = [Job("track", steps(name), 100, Path(name)) for name in "abc"]
    for job in jobs:
        queue.add(job)
    assert (queue.of(Path("b")), queue.of(Path("x")), queue.of(None)) == (jobs[1], None, None)
    queue.stop(Path("b"))
    queue.stop(Path("a"))
    go_on.set()
    jobs[0].join()
    jobs[2].join()
    assert (began, jobs[0].stopped, jobs[2].stopped) == (["a", "c"], True, False)
    queue.close()


def test_a_job_and_a_claim_of_a_folder_never_meet():
    queue, inside, met = Queue(), {Path(name): 0 for name in "abc"}, []

    def steps(folder):
        inside[folder] += 1
        yield from range(20)
        inside[folder] -= 1

    def claims(folder):
        for _ in range(300):
            if queue.claim(folder):
                met.append(inside[folder])
                queue.leave(folder)

    jobs = [Job("track", steps(folder), 20, folder) for _ in range(20) for folder in inside]
    threads = [threading.Thread(target=claims, args=(folder,)) for folder in inside]
    for thread in threads:
        thread.start()
    for job in jobs:
        queue.add(job)
    for thread in threads:
        thread.join()
    while (now := queue.now) is not None:
        now.join()
    assert not queue.waiting
    assert {*met} <= {0}
    assert all(job.done == 19 for job in jobs)


@pytest.fixture
def turns(monkeypatch):
    """Each clip's tracking waits for its event; names of the clips whose tracking has begun."""
    go_on, began = {"one": threading.Event(), "two": threading.Event()}, []

    def track(self, predictor, until=None):
        began.append(self.folder.name)
        assert go_on[self.folder.name].wait(60)
        yield from range(self.count)

    monkeypatch.setattr(Project, "track", track)
    return go_on, began


def two_waits_behind_one(desk, clip):
    for name in ("one", "two"):
        desk.open_clip(name)
        desk.give(0, clip[1][0])
        desk.track()
    return desk.queue.now, desk.job


def test_an_edit_ends_before_the_tracking_that_waits_begins(desk, clip, turns):
    go_on, began = turns
    first, second = two_waits_behind_one(desk, clip)
    with desk._changing(0, desk.key, None) as project:
        go_on["one"].set()
        first.join()
        assert (desk.queue.now, desk.queue.waiting, began) == (None, [second], ["one"])
        project.give(0, clip[1][1])
    assert desk.queue.now is second
    with pytest.raises(Busy, match="being tracked"):
        desk.give(0, clip[1][0])
    go_on["two"].set()
    done(desk)
    assert (began, second.error) == (["one", "two"], None)


def test_an_edit_that_fails_lets_the_tracking_begin_that_waits(desk, clip, turns):
    go_on, _began = turns
    first, second = two_waits_behind_one(desk, clip)

    def fails():
        with desk._changing(0, desk.key, None):
            go_on["one"].set()
            first.join()
            raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="disk is full"):
        fails()
    assert desk.queue.now is second
    go_on["two"].set()
    done(desk)


def test_a_download_ends_before_the_tracking_that_waits_begins(desk, clip, turns, monkeypatch):
    go_on, began = turns
    first, second = two_waits_behind_one(desk, clip)
    writing = threading.Event()

    def write(project, path, outdated):
        assert writing.wait(60)
        path.write_bytes(b"0")
        yield 1

    monkeypatch.setitem(DOWNLOADS, "masks.zip", write)
    desk.download("masks.zip")
    go_on["one"].set()
    first.join()
    assert (desk.queue.now, desk.queue.waiting, began) == (None, [second], ["one"])
    go_on["two"].set()
    writing.set()
    desk.job.join()
    done(desk)
    assert (desk.job.error, began) == (None, ["one", "two"])
