"""The list of clips, and the queue that tracks one after another."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from emavos.io import open_frames, write_video
from emavos.ui import Busy, Desk, Outdated, Project, opening, tracking, working
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
    desk.queue.join()
    desk.adding.join()
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


def test_a_folder_with_other_frames_is_another_video(video):
    first = origin_of(video)
    assert origin_of(video) == first
    frame = video / "shot3.png"
    os.utime(frame, ns=(0, max(one.stat().st_mtime_ns for one in video.iterdir()) + 1))
    second = origin_of(video)
    frame.unlink()
    assert len({first, second, origin_of(video)}) == 3


def test_the_error_of_a_deleted_clip_is_not_told_of_the_next_of_its_name(desk, shelf, clip, monkeypatch):
    desk.open_clip("one")
    desk.give(0, clip[1][0])
    desk.open_clip("two")
    monkeypatch.setattr(tracking, "_step", lambda *_: 1 / 0)
    desk.track_all()
    done(desk)
    assert by_key(desk)["one"]["error"]
    desk.remove_clip("one")
    assert desk.queue.errors == {}


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


class Killed(BaseException):
    """A process that ends here."""


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", range(0, 24, 2))
def test_a_clip_whose_deletion_is_killed_is_whole_or_is_removed_by_the_next_page(
    desk, shelf, predictor, clip, monkeypatch, place
):
    desk.open_clip("one")
    desk.give(0, clip[1][0])
    desk.open_clip("two")
    whole, steps, others = files_of(shelf.folder / "one"), iter(range(place)), files_of(shelf.folder / "two")

    def counted(call):
        def step(*arguments, **named):
            if next(steps, None) is None:
                raise Killed
            return call(*arguments, **named)

        return step

    with monkeypatch.context() as patch:
        for call in ("replace", "unlink", "rmdir"):
            patch.setattr(os, call, counted(getattr(os, call)))
        with suppress(Killed):
            desk.remove_clip("one")
    listed = "one" in by_key(desk)
    Desk(predictor, shelf.folder, keeps=False).close()
    left = {path.name for path in shelf.folder.iterdir()}
    assert left == ({"one", "two"} if listed else {"two"})
    if listed:
        assert {name: body for name, body in files_of(shelf.folder / "one").items() if name in whole} == whole
        desk.open_clip("one")
        assert files_of(shelf.folder / "one") == whole
    assert files_of(shelf.folder / "two") == others


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed as POSIX does")
@pytest.mark.parametrize("count", [0, 3])
def test_a_video_whose_reading_is_killed_is_removed_by_the_next_page(shelf, predictor, video, count):
    code = """if True:
        import os, sys
        from pathlib import Path
        from emavos.io import open_frames
        from emavos.ui.importing import import_video
        for number in import_video(Path(sys.argv[1]), open_frames(sys.argv[2]), "three"):
            if number > int(sys.argv[3]):
                os.kill(os.getpid(), 9)
    """
    places = {name: shelf.folder / name for name in ("three", "mine", "link")}
    subprocess.run([sys.executable, "-c", code, places["three"], video, str(count)], check=False)
    assert (places["three"] / ".unfinished").exists()
    places["mine"].mkdir()
    (places["mine"] / "frames").mkdir()  # of the user: nothing says that it is unfinished
    places["link"].symlink_to(video)
    (video / ".unfinished").touch()
    reading = import_video(
        shelf.folder / "four", open_frames([*map(str, sorted(video.glob("*.png")))]), "four"
    )
    assert next(reading) == 1  # another page reads it now
    kept = files_of(video)
    Desk(predictor, shelf.folder, keeps=False).close()
    assert {path.name for path in shelf.folder.iterdir()} == {"one", "two", "mine", "link", "four"}
    assert files_of(video) == kept
    assert [*reading][-1] == 8
    assert {clip.key for clip in shelf.clips()} == {"one", "two", "four"}


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
    step = tracking._step

    def slow(project, session, index, encoded):
        going.set()
        assert go_on.wait(60)
        return step(project, session, index, encoded)

    monkeypatch.setattr(tracking, "_step", slow)
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
    step = tracking._step

    def fails(project, session, index, encoded):
        if project.folder.name == "one":
            raise ValueError("no such luck")
        return step(project, session, index, encoded)

    monkeypatch.setattr(tracking, "_step", fails)
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


def test_whoever_waits_for_a_job_hears_of_its_progress_and_of_its_end():
    turns = threading.Semaphore(0)

    def steps():
        for done in (1, 2):
            turns.acquire()
            yield done
        turns.acquire()

    job = Job("track", steps(), 2)
    job.start()
    heard = []
    for done in (None, 1, 2):
        waiter = threading.Thread(
            target=lambda done=done: (job.wait_beyond(done, 60), heard.append(job.done))
        )
        waiter.start()
        turns.release()
        waiter.join(30)
    assert heard == [1, 2, 2]
    assert not job.running  # whoever hears of the end sees it
    job.join()
    job.wait_beyond(2, 60)  # it has ended
    job = Job("track", iter(()), None)
    job.wait_beyond(None, 0.01)  # it has not begun


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
    queue.join()
    assert not queue.waiting
    assert {*met} <= {0}
    assert all(job.done == 19 for job in jobs)


@pytest.fixture
def turns(monkeypatch):
    """Each clip's tracking waits for its event; names of the clips whose tracking has begun."""
    go_on, began = {"one": threading.Event(), "two": threading.Event()}, []

    def track(project, predictor, until=None, *_):
        began.append(project.folder.name)
        assert go_on[project.folder.name].wait(60)
        yield from range(project.count)

    monkeypatch.setattr(working, "track_forward", track)
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


@pytest.fixture
def slow_reading(monkeypatch):
    """Videos are read once the event is set."""
    go_on = threading.Event()
    read = opening.import_video

    def slow(folder, source, name, origin=""):
        assert go_on.wait(60)
        yield from read(folder, source, name, origin)

    monkeypatch.setattr(opening, "import_video", slow)
    return go_on


def test_a_video_is_listed_while_it_waits_and_until_its_failure_is_dismissed(
    desk, video, tmp_path, slow_reading
):
    bad = tmp_path / "bad"
    bad.mkdir()
    for index, size in enumerate([(32, 32), (32, 48)]):
        Image.new("RGB", size).save(bad / f"{index}.png")
    desk.open_video(bad, "bad.mp4", show=False)
    desk.open_video(video, "good.mp4", show=False)
    clips = by_key(desk)
    assert [*clips][:2] == ["bad", "good"]
    assert all(clips[key]["job"]["kind"] == "import" for key in ("bad", "good"))
    assert (clips["good"]["video"], clips["good"]["count"]) == ("good.mp4", 8)
    assert desk.state()["clips"] == 4
    slow_reading.set()
    done(desk)
    clips = by_key(desk)
    assert "resize it" in clips["bad"]["problem"]
    assert not clips["bad"]["job"]
    assert (clips["good"]["adding"], clips["good"]["problem"]) == (False, "")
    (failed,) = desk.state()["failed"]
    assert (failed["video"], "resize it" in failed["error"]) == ("bad.mp4", True)
    desk.open_video(video, "bad.mp4", show=False)  # does not hide it
    done(desk)
    assert {"bad", "bad-2"} <= {*by_key(desk)}
    desk.remove_clip("bad")
    assert "bad" not in by_key(desk)
    assert desk.state()["failed"] == []


def test_what_is_odd_about_a_video_in_the_background_is_told_when_it_is_opened(desk, video):
    (video / "shot99.heic").touch()
    desk.open_video(video, "odd.mp4", show=False)
    done(desk)
    assert not by_key(desk)["odd"]["adding"]
    desk.open_clip("one")
    assert desk.state()["notes"] == []
    desk.open_clip("odd")
    assert "left out: shot99.heic" in desk.state()["notes"][0]


def test_stopping_all_tracking_still_reads_the_videos_that_wait(desk, clip, video, slow_reading, turns):
    go_on, _began = turns
    first, second = two_waits_behind_one(desk, clip)
    for name in ("three", "four"):
        desk.open_video(video, f"{name}.mp4", show=False)
    desk.stop(all=True)
    slow_reading.set()  # while one is still tracked
    desk.adding.join()
    assert {"three", "four"} <= {*by_key(desk)}
    assert not any(one["adding"] for one in desk.clips())
    go_on["one"].set()
    done(desk)
    assert (first.stopped, second.stopped) == (True, True)


def test_a_sent_video_that_is_no_longer_wanted_is_deleted_unread(desk, clip, slow_reading, tmp_path):
    pytest.importorskip("av")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / "clip.mp4", clip[0][:2], fps=10)
        desk.open_video(tmp_path / name / "clip.mp4", f"{name}.mp4", sent=True, show=False)
    desk.remove_clip("b")
    assert not (tmp_path / "b").exists()
    assert {*by_key(desk)} == {"a", "one", "two"}
    desk.remove_clip("a")
    slow_reading.set()
    done(desk)
    assert not (tmp_path / "a").exists()
    assert {*by_key(desk)} == {"one", "two"}


def test_a_clip_whose_video_is_being_read_is_not_edited(desk, clip, monkeypatch):
    desk.open_clip("one")
    monkeypatch.setattr(desk.adding, "has", lambda folder: folder.name == "one")
    with pytest.raises(Busy, match="still being read"):
        desk.give(0, clip[1][0])


def test_stopping_one_clip_lets_the_tracking_of_another_go_on(desk, clip, turns):
    go_on, _began = turns
    desk.open_clip("one")
    desk.give(0, clip[1][0])
    desk.track()
    job = desk.job
    desk.open_clip("two")
    desk.stop()
    assert not job.stopping
    desk.open_clip("one")
    desk.stop()
    assert job.stopping
    go_on["one"].set()
    done(desk)


def test_a_video_that_is_opened_and_one_that_is_added_have_folders_of_their_own(desk, video, slow_reading):
    desk.open_video(video, "same.mp4")
    desk.open_video(video, "same.mp4", show=False)
    slow_reading.set()
    desk.job.join()
    done(desk)
    assert desk.job.error is None
    assert {*by_key(desk)} == {"one", "two", "same", "same-2"}


def test_a_video_for_the_list_is_refused_by_a_single_project(tmp_path, predictor, video):
    desk = Desk(predictor, tmp_path / "work", keeps=True)
    with pytest.raises(ValueError, match="a single project, and has one video"):
        desk.open_video(video, "clip", show=False)
    assert not (tmp_path / "work").exists()
    desk.close()


@pytest.mark.parametrize("leave", [lambda desk: desk.open_clip("two"), lambda desk: desk.close()])
def test_a_clip_that_is_left_keeps_no_encoded_frames(desk, leave):
    desk.open_clip("one")
    desk.look(0)
    desk.click(0, [(80, 48)], [1])
    (answer,) = desk.clicker._answers.values()
    kept = [
        weakref.ref(x)
        for x in (
            *(frame.result() for frame in desk.ahead._frames.values()),
            *desk.clicker._seen.values(),
            answer,
        )
    ]
    assert len(kept) >= 3
    del answer
    gc.collect()
    assert all(one() is not None for one in kept)
    leave(desk)
    gc.collect()
    assert [one() for one in kept] == [None] * len(kept)


def test_the_rest_of_a_look_at_a_clip_that_was_left_encodes_nothing(desk, monkeypatch):
    desk.open_clip("one")
    look = desk.clicker.look
    monkeypatch.setattr(desk.clicker, "look", lambda *frame: (look(*frame), desk.open_clip("two")))
    desk.look(0)
    assert not desk.ahead._frames
