"""What the page may do to folders that are not its own."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest

from emavos.io import open_frames, write_mask, write_video
from emavos.ui import Desk, Project
from emavos.ui.importing import import_video
from emavos.ui.temporary import Temporary, sweep_temporary
from emavos.ui.tracking import track_forward


def test_a_folder_with_files_of_the_user_is_refused_and_left_as_it_is(tmp_path, predictor, video):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(ValueError, match="thesis is not empty"):
        Desk(predictor, tmp_path / "thesis", keeps=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_files_that_came_after_the_start_are_left_as_they_are(tmp_path, predictor, video):
    desk = Desk(predictor, tmp_path / "work", keeps=True)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "chapter.tex").write_text("years of work")
    with pytest.raises(ValueError, match="work is not empty"):
        desk.open_video(video, "clip")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["chapter.tex"]


def test_a_video_that_was_sent_leaves_no_folder(tmp_path, predictor, clip):
    pytest.importorskip("av")
    (tmp_path / "sent").mkdir()
    write_video(tmp_path / "sent" / "clip.mp4", clip[0], fps=10)
    desk = Desk(predictor, tmp_path / "work", keeps=True)
    desk.open_video(tmp_path / "sent" / "clip.mp4", "clip.mp4", sent=True)
    desk.job.join()
    assert desk.job.error is None
    assert desk.the_project().count == 8
    assert not (tmp_path / "sent").exists()


def test_what_is_odd_about_a_video_is_told_and_its_masks_may_lie_among_the_frames(
    tmp_path, predictor, video, clip
):
    write_mask(video / "shot3_mask.png", clip[1][0])
    (video / "shot99.heic").touch()
    desk = Desk(predictor, tmp_path / "work", keeps=True)
    with pytest.raises(ValueError, match="lies among the frames"):
        desk.open_video(video, "clip")
    desk.open_video(video, "clip", mask=video / "shot3_mask.png")
    desk.job.join()
    assert desk.job.error is None
    project = desk.the_project()
    assert (project.count, project.given) == (8, {0: (1, 2)})
    assert (project.mask(0) == clip[1][0]).all()
    (note,) = desk.state()["notes"]
    assert note.endswith(": left out: shot99.heic, the mask shot3_mask.png")


def test_a_damaged_video_is_refused_or_read_and_told(tmp_path, predictor, clip):
    pytest.importorskip("av")
    (tmp_path / "sent").mkdir()
    write_video(tmp_path / "whole.mp4", clip[0], fps=10)
    content = (tmp_path / "whole.mp4").read_bytes()
    for way in ("stop", "hold", "skip"):
        (tmp_path / way).mkdir()
        path = tmp_path / way / "a.mp4"
        path.write_bytes(content[: len(content) - 40])
        desk = Desk(predictor, tmp_path / f"{way}-work", keeps=True, on_damage=way)
        desk.open_video(path, "a.mp4", sent=True)
        desk.job.join()
        assert (desk.job.error is None) == (way != "stop")
        assert [note.split(":")[0] for note in desk.notes] == ["a.mp4"] * (way != "stop")
        assert not path.exists()


KILLED = """
import os, sys
from pathlib import Path
from emavos.io import open_frames
from emavos.ui import Project
from emavos.ui.importing import import_video
from emavos.ui.temporary import Temporary
base = Temporary().folder
(base / "upload-x").mkdir()
(base / "upload-x" / "video.mp4").write_bytes(bytes(999))
for name in ("001", "002"):
    list(import_video(base / name, open_frames(Path(sys.argv[1])), "clip"))
project = Project.open(base / "002")
mask = project.mask(0)
mask[:9] = 1
project.give(0, mask)
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed as POSIX does")
def test_what_a_killed_page_left_is_removed_by_the_next_but_for_painted_masks(tmp_path, video, monkeypatch):
    places = tmp_path / "tmp"
    places.mkdir()
    subprocess.run(
        [sys.executable, "-c", KILLED, video], check=False, env=os.environ | {"TMPDIR": str(places)}
    )
    monkeypatch.setattr(tempfile, "tempdir", str(places))
    (places / "emavos-ui-file").touch()
    (places / "emavos-ui-link").symlink_to(video)
    lives = Temporary()  # of a page that runs
    (lives.folder / "001").mkdir()
    (painted,) = sweep_temporary()
    assert Project.open(painted).given == {0: (1,)}
    left = {str(path.relative_to(painted.parent)) for path in painted.parent.iterdir()}
    assert left == {"002"}
    assert (lives.folder / "001").is_dir()
    lives.release()
    assert {path.name for path in places.iterdir()} == {
        "emavos-ui-file",
        "emavos-ui-link",
        painted.parent.name,
    }
    assert len([*video.iterdir()]) == 8


def test_a_full_folder_of_temporary_files_is_named_as_such(tmp_path, predictor, monkeypatch):
    def full(**options):
        raise OSError(errno.ENOSPC, "No space left on device", "x")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(OSError, match="have TMPDIR name a folder") as error:
        Desk(predictor, tmp_path / "work", keeps=True).upload_folder()
    assert error.value.filename == str(tmp_path)


@pytest.fixture
def other():
    """Starts another process that holds a folder as a page does; it is killed, not ended, at the end."""
    code = "import sys, pathlib, emavos.ui.hold as h; x = h.Hold(pathlib.Path(sys.argv[1])); print(); input()"
    with ExitStack() as stack:

        def start(folder):
            command = [sys.executable, "-c", code, str(folder)]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            assert process.stdout.readline() == "\n"
            return process

        yield start


@pytest.mark.skipif(sys.platform == "win32", reason="the lock of Windows was tried with a stand-in alone")
def test_a_project_that_another_process_works_on_is_refused_until_that_is_gone(project, predictor, other):
    process = other(project.folder)
    before = {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="project is open in another page"):
        Desk(predictor, project.folder, keeps=True)
    assert before == {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}
    process.kill()
    process.wait()
    desk = Desk(predictor, project.folder, keeps=True)
    assert desk.the_project().count == 8
    desk.close()


@pytest.mark.skipif(sys.platform == "win32", reason="the lock of Windows was tried with a stand-in alone")
def test_a_folder_that_another_process_reads_a_video_into_is_refused(tmp_path, predictor, video, other):
    desk = Desk(predictor, tmp_path / "work", keeps=True)  # nothing is there yet
    (tmp_path / "work" / "frames").mkdir(parents=True)
    (tmp_path / "work" / ".unfinished").touch()
    (tmp_path / "work" / "frames" / "00000.jpg").write_bytes(b"of the other")
    other(tmp_path / "work")
    desk.open_video(video, "clip")
    desk.job.join()
    assert "work is open in another page" in desk.job.error
    with pytest.raises(ValueError, match="work is open in another page"):
        Desk(predictor, tmp_path / "work", keeps=True)
    assert (tmp_path / "work" / "frames" / "00000.jpg").read_bytes() == b"of the other"


def test_a_desk_that_was_closed_lets_another_go_on(project, predictor, clip):
    first = Desk(predictor, project.folder, keeps=True)
    first.give(0, clip[1][0])
    first.close()
    second = Desk(predictor, project.folder, keeps=True)
    assert second.the_project().ids == (1, 2)
    second.close()


@pytest.fixture
def windows(monkeypatch):
    """Python as it is there, as far as locks go: no fcntl, and msvcrt, which locks bytes of files."""
    locked = set()

    def locking(file, mode, count):
        assert (os.lseek(file, 0, os.SEEK_CUR), count) == (0, 1)
        place = os.fstat(file).st_ino
        if mode == 0:  # LK_UNLCK
            locked.remove(place)
        elif place in locked:
            raise PermissionError(errno.EACCES, "Permission denied")
        else:
            locked.add(place)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_UNLCK=0, LK_NBLCK=2))
    return locked


def test_on_windows_too_a_project_is_of_one_page_at_a_time(windows, project, predictor):
    before = {path.name for path in project.folder.iterdir()}
    (project.folder / ".held").touch()  # of a page that was killed
    first = Desk(predictor, project.folder, keeps=True)
    with pytest.raises(ValueError, match="project is open in another page"):
        Desk(predictor, project.folder, keeps=True)
    assert len(windows) == 1
    first.close()
    assert not windows
    assert {path.name for path in project.folder.iterdir()} == before
    Desk(predictor, project.folder, keeps=True).close()


def test_on_windows_too_a_folder_that_a_video_is_read_into_is_of_that_page(
    windows, tmp_path, predictor, video
):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".held").touch()  # of a page that was killed
    desk = Desk(predictor, tmp_path / "work", keeps=True)
    reading = import_video(tmp_path / "work", open_frames(video), "clip")
    next(reading)
    with pytest.raises(ValueError, match="work is open in another page"):
        Desk(predictor, tmp_path / "work", keeps=True)
    reading.close()
    assert not [*(tmp_path / "work").iterdir()]
    desk.open_video(video, "clip")
    desk.job.join()
    assert desk.the_project().count == 8
    desk.close()


def test_a_folder_that_was_made_for_a_video_that_cannot_be_read_goes_again(windows, tmp_path, video):
    reading = import_video(tmp_path / "work", open_frames(video), "clip")
    next(reading)
    reading.close()
    assert not (tmp_path / "work").exists()


def test_where_a_disk_has_no_locks_nothing_is_held(monkeypatch, project, predictor):
    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setitem(sys.modules, "fcntl", SimpleNamespace(flock=flock, LOCK_EX=2, LOCK_NB=4))
    desks = [Desk(predictor, project.folder, keeps=True) for _ in range(2)]
    for desk in desks:
        desk.close()


def test_a_project_on_a_read_only_disk_is_shown_and_refuses_edits_by_name(
    project, predictor, clip, monkeypatch
):
    project.give(0, clip[1][0])
    project.give(2, clip[1][2])
    (project.folder / "masks").mkdir()
    (project.folder / "masks" / "00001-9.png").touch()  # which a killed page left
    before = {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}

    def refuse(call, writes=lambda *arguments: True):
        def refused(path, *arguments, **named):
            if writes(*arguments):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
            return call(path, *arguments, **named)

        return refused

    for name in ("unlink", "mkdir", "rmdir", "rename", "replace"):
        monkeypatch.setattr(os, name, refuse(getattr(os, name)))
    monkeypatch.setattr(os, "open", refuse(os.open, lambda flags, *more: flags & (os.O_WRONLY | os.O_RDWR)))
    desk = Desk(predictor, project.folder, True)
    shown = desk.the_project()
    assert np.array_equal(shown.mask(0), clip[1][0])
    assert shown.can_undo
    for edit in (
        lambda: desk.give(3, clip[1][3]),
        lambda: desk.take_back(0),
        lambda: desk.remove(1),
        desk.undo,
        lambda: desk.save_draft(3, clip[1][3]),
        lambda: [*track_forward(shown, predictor)],
    ):
        with pytest.raises(OSError, match="Read-only file system") as told:
            edit()
        assert os.fspath(project.folder) in str(told.value.filename)
    assert (shown.given, shown.step, shown.drafts) == (project.given, project.step, set())
    desk.close()
    assert {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()} == before
