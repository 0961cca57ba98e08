"""The sound of a video, from the video through the project into the overlay."""

from __future__ import annotations

import shutil
from contextlib import closing

import numpy as np
import pytest

from emavos.io import InputWarning, VideoWriter, open_frames
from emavos.ui import Desk, Project
from emavos.ui import sound as sounds
from emavos.ui.downloads import write_overlay
from emavos.ui.folder import Folder
from emavos.ui.importing import import_video

av = pytest.importorskip("av")
FPS, RATE = 10, 48000


def talkie(path, codec="aac", seconds=2, at=0.0):
    """A small video with a tone, which begins `at` seconds after the picture."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=FPS)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(codec, rate=RATE)
        for index in range(int(seconds * FPS)):
            pixels = np.full((48, 64, 3), index * 5, np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        for begin in range(int(at * RATE), int(seconds * RATE), 1024):
            wave = 9000 * np.sin(np.arange(begin, begin + 1024) / RATE * 2 * np.pi * 440)
            samples = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
            samples.sample_rate, samples.pts = RATE, begin
            container.mux(sound.encode(samples))
        container.mux(picture.encode())
        container.mux(sound.encode())
    return path


def packets(path):
    """(seconds, content) of the packets of sound of a file; empty without sound."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        (stream,) = container.streams.audio
        return [(float(p.pts * stream.time_base), bytes(p)) for p in container.demux(stream) if p.size]


def imported(folder, source):
    list(import_video(folder, source, "talkie"))
    project = Project.open(folder)
    mask = np.zeros(project.size, np.int32)
    mask[:9, :9] = 1
    project.give(project.count - 1, mask)
    return project


def overlay(project, path):
    list(write_overlay(project, path))
    assert open_frames(path).count == project.count
    assert not [*path.parent.glob(".*")]
    return packets(path)


def by_command_line(source, path):
    """What `emavos segment --overlay` does with the sound."""
    with VideoWriter(path, source.fps, source.sound) as video:
        for frame in source:
            video.write(frame)
    return packets(path)


@pytest.mark.parametrize(
    ("codec", "part"),
    [
        ("aac", {}),
        ("aac", {"start": 5, "stop": 14}),
        ("aac", {"start": 4, "step": 2}),
        ("mp3", {"start": 3}),
        ("ac3", {}),
        ("alac", {"stop": 9}),
        ("opus", {}),
    ],
)
def test_an_overlay_has_the_sound_that_the_command_line_copies(tmp_path, codec, part):
    try:
        talkie(tmp_path / "a.mp4", codec)
    except (ValueError, av.FFmpegError) as error:
        pytest.skip(f"this FFmpeg cannot encode it: {error}")
    project = imported(tmp_path / "project", open_frames(tmp_path / "a.mp4", **part))
    found = overlay(project, tmp_path / "page.mp4")
    expected = by_command_line(open_frames(tmp_path / "a.mp4", **part), tmp_path / "line.mp4")
    assert [content for _, content in found] == [content for _, content in expected]
    assert len(found) > 3
    for (at, _), (wanted, _) in zip(found, expected, strict=True):
        assert abs(at - wanted) <= 0.0011  # Matroska counts milliseconds
    assert open_frames(project.folder / "frames").count == project.count


def test_equal_imports_store_equal_sound(tmp_path):
    talkie(tmp_path / "a.mp4")
    for name in "bc":
        imported(tmp_path / name, open_frames(tmp_path / "a.mp4"))
    assert (tmp_path / "b/sound.mka").read_bytes() == (tmp_path / "c/sound.mka").read_bytes()


def test_sound_that_an_mp4_cannot_have_is_noted_and_none_is_not(tmp_path, recwarn):
    talkie(tmp_path / "a.mkv", "pcm_s16le")
    with pytest.warns(InputWarning, match="overlays of talkie will have no sound: pcm_s16le cannot be"):
        project = imported(tmp_path / "project", open_frames(tmp_path / "a.mkv"))
    recwarn.clear()
    assert overlay(project, tmp_path / "page.mp4") == []
    again = imported(tmp_path / "again", open_frames(tmp_path / "page.mp4"))  # has no sound
    for one in (project, again):
        assert {path.name for path in one.folder.iterdir()} == {"frames", "given", "history", "project.json"}
    assert not recwarn.list


def test_sound_after_the_last_frame_with_a_mask_is_left_out(tmp_path):
    try:
        talkie(tmp_path / "a.mkv", "ac3", at=1)
    except (ValueError, av.FFmpegError) as error:
        pytest.skip(f"this FFmpeg cannot encode it: {error}")
    assert by_command_line(open_frames(tmp_path / "a.mkv", stop=5), tmp_path / "line.mp4") == []
    list(import_video(tmp_path / "project", open_frames(tmp_path / "a.mkv"), "talkie"))
    project = Project.open(tmp_path / "project")
    project.give(4, np.ones(project.size, np.int32))
    list(write_overlay(project, tmp_path / "page.mp4"))
    assert packets(tmp_path / "page.mp4") == []
    assert open_frames(tmp_path / "page.mp4").count == 5


def test_sound_that_is_too_large_is_not_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(sounds, "LARGEST", 2000)
    talkie(tmp_path / "a.mp4")
    with pytest.warns(InputWarning, match="no sound: the sound of talkie has more than 2,000 bytes"):
        project = imported(tmp_path / "project", open_frames(tmp_path / "a.mp4"))
    assert not (project.folder / "sound.mka").exists()
    assert overlay(project, tmp_path / "page.mp4") == []


def test_an_import_killed_while_it_copies_sound_is_begun_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(sounds, "_STEP", 3)
    talkie(tmp_path / "a.mp4")
    source = open_frames(tmp_path / "a.mp4")
    with closing(import_video(tmp_path / "killed", source, "talkie")) as building:
        while not [*(tmp_path / "killed").glob(".sound.mka.*/sound.mka")]:
            next(building)
        shutil.copytree(tmp_path / "killed", tmp_path / "partial")  # as a kill would leave it
    assert not (tmp_path / "killed").exists()
    write = Folder.write

    def last(self, name, content):
        if name == "project.json" and not (tmp_path / "whole").exists():
            shutil.copytree(self.path, tmp_path / "whole")
        write(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", last)
        expected = overlay(imported(tmp_path / "one", source), tmp_path / "page.mp4")
    assert (tmp_path / "whole" / "sound.mka").exists()
    for name in ("partial", "whole"):
        project = imported(tmp_path / name, source)
        assert {path.name for path in project.folder.iterdir() if path.name[0] == "."} == set()
        assert overlay(project, tmp_path / "page.mp4") == expected


def test_an_import_of_a_silent_video_removes_the_sound_of_a_killed_one(tmp_path, video):
    (tmp_path / "left").mkdir()
    for name in (".unfinished", "sound.mka", ".sound.mka.01234567.partial"):
        (tmp_path / "left" / name).write_bytes(b"x")
    list(import_video(tmp_path / "left", open_frames(video), "clip"))
    assert {path.name for path in (tmp_path / "left").iterdir()} == {"frames", "project.json"}


def test_a_note_on_the_page_tells_that_an_overlay_has_no_sound(tmp_path, predictor):
    talkie(tmp_path / "a.mp4")
    project = imported(tmp_path / "project", open_frames(tmp_path / "a.mp4"))
    desk = Desk(predictor, project.folder, keeps=True)
    desk.download("overlay.mp4", outdated=True)
    desk.job.join()
    with desk.open_download("overlay.mp4") as file:
        (tmp_path / "got.mp4").write_bytes(file.read())
    assert packets(tmp_path / "got.mp4")
    assert desk.state()["notes"] == []
    (project.folder / "sound.mka").write_bytes(b"no sound")
    for _ in range(2):
        desk.download("overlay.mp4", outdated=True)
        desk.job.join()
    assert desk.job.error is None
    (note,) = desk.state()["notes"]
    assert note.startswith("overlay.mp4 has no sound: sound.mka is damaged: Invalid data")
    desk.close()
