"""A project's folder that a stranger made: no path leads out of it, and nothing in it is without bounds."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from emavos.io import InputWarning, open_frames, write_mask
from emavos.ui import Project
from emavos.ui.downloads import write_masks, write_overlay
from emavos.ui.facts import MOST_EDITS, MOST_VERSIONS
from emavos.ui.folder import Folder
from emavos.ui.history import Tracked
from emavos.ui.image_files import mask_name

posix = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")

PLACES = [
    "drafts",
    "history",
    "track.jsonl",
    "project.json",
    ".unfinished",
    "frames",
    "masks",
    "soft",
    "given",
    "states",
    "frames/00000.jpg",
    "sound.mka",
]
PLACES += ["masks/00000.png", "masks/00001.png", "given/00000.png", "given/00001.png", "given/9.png"]


def tracked(project, masks):
    """As if it had been tracked, without a network."""
    project.give(0, masks[0])
    for index in range(project.count):
        project._files.append("track.jsonl", b'{"frame": %d, "sure": {"1": 0.5}}\n' % index)
        (project._files / "masks").write(
            f"{index:05d}.png", (project.folder / "given/00000.png").read_bytes()
        )
    return Project.open(project.folder)


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def use(folder):
    """Whatever the page does with a project, as far as it comes."""
    steps = [
        lambda p: p.give(1, np.ones(p.size, np.int32)),
        lambda p: p.mask(0),
        lambda p: p.matte(0),
        lambda p: p.frame(0),
        lambda p: p.frame_bytes(0),
        lambda p: p.states.files(),
        lambda p: p.states.forget(-1),
        lambda p: list(write_masks(p, p.folder.parent / "masks.zip")),
        lambda p: p.save_draft(2, np.ones(p.size, np.int32)),
        lambda p: p.draft(2),
        lambda p: p.undo(),
        lambda p: p.redo(),
        lambda p: p.remove(1),
        lambda p: p.take_back(0),
        lambda p: p.sweep(),
    ]
    for step in steps:
        with suppress(ValueError, OSError):
            step(Project.open(folder))


@posix
@pytest.mark.parametrize("name", PLACES)
def test_links_lead_nowhere(project, clip, tmp_path, name):
    tracked(project, clip[1])
    outside, place = tmp_path / "outside", project.folder / name
    outside.mkdir()
    if place.is_dir() or name == "states":
        shutil.copytree(place, outside / "x") if place.is_dir() else (outside / "x").mkdir()
        (outside / "x" / "000000.safetensors").write_bytes(b"mine")
        shutil.rmtree(place, ignore_errors=True)
    else:
        (outside / "x").write_bytes(place.read_bytes() if place.exists() else b"mine")
        place.unlink(missing_ok=True)
    place.symlink_to(outside / "x")
    before = everything(outside)
    use(project.folder)
    assert everything(outside) == before
    assert [path.name for path in outside.iterdir()] == ["x"]


@posix
def test_a_file_elsewhere_is_not_shown_as_a_frame(project, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (project.folder / "frames" / "00000.jpg").unlink()
    (project.folder / "frames" / "00000.jpg").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=r"00000\.jpg is a link, a pipe or a device"):
        project.frame_bytes(0)


@posix
@pytest.mark.parametrize("name", ["track.jsonl", "frames/00000.jpg", "given/00000.png", "masks/00000.png"])
def test_a_pipe_is_refused_and_not_waited_for(project, clip, name):
    tracked(project, clip[1])
    *below, last = name.split("/")
    (project.folder / name).unlink()
    os.mkfifo(project.folder / name)
    files = Folder(project.folder, *below)
    for act in (files.read, lambda name: files.append(name, b"x")):
        with pytest.raises(ValueError, match="a link, a pipe or a device"):
            act(last)
    use(project.folder)


@posix
def test_a_copy_by_hard_links_stays_as_it_is(project, tmp_path):
    Folder(project.folder).append("track.jsonl", b"a\n")
    os.link(project.folder / "track.jsonl", tmp_path / "copy")
    Folder(project.folder).append("track.jsonl", b"b\n")
    assert (tmp_path / "copy").read_bytes() == b"a\n"
    assert (project.folder / "track.jsonl").read_bytes() == b"a\nb\n"


@pytest.mark.parametrize(
    "change",
    [
        '"count": 1000000000000',
        '"count": 1e999',
        '"count": 9',
        '"count": -1',
        '"count": true',
        '"count": ' + "9" * 5000,
        '"fps": 1e999',
        '"fps": -1',
        '"fps": NaN',
        '"size": [1000000, 1000000]',
        '"size": [0, 5]',
        '"size": [1e999, 5]',
        '"size": "96"',
        '"names": ["../../../x", "b", "c", "d", "e", "f", "g", "h"]',
        '"names": ["a\\\\b", "b", "c", "d", "e", "f", "g", "h"]',
        '"names": ["a\\u001b[2J", "b", "c", "d", "e", "f", "g", "h"]',
        '"names": ["b", "b", "c", "d", "e", "f", "g", "h"]',
        '"names": ["", "b", "c", "d", "e", "f", "g", "h"]',
        '"names": [["a"], "b", "c", "d", "e", "f", "g", "h"]',
        '"names": {}',
        '"given": {"0": [1e999]}',
        '"given": {"8": [1]}',
        '"given": {"-1": [1]}',
        '"given": {"0": [256]}',
        '"given": {"../0": [1]}',
        '"given": []',
        '"revisions": {"0": "/../x"}',
        '"revisions": {"0": 1e999}',
        '"settings": 3',
        '"settings": [1]',
        '"settings": ' + '{"a": ' * 500 + "0" + "}" * 500,  # deeper than an edit could write
        '"settings": {"a": [[0]]}',
        '"settings": {"a": "' + "x" * 100_000 + '"}',
        '"given": {"0": [' + "1, " * 100_000 + "1]}",
        '"generation": 9007199254740992',
        '"revisions": {"0": 9007199254740992}',
        '"hidden": {"0": 9007199254740992}',
        '"name": 3',
    ],
)
def test_numbers_and_names_without_bounds_are_damage(project, change):
    text = (project.folder / "project.json").read_text()
    (project.folder / "project.json").write_text(f"{text[:-1]}, {change}}}")
    with pytest.raises(ValueError, match=r"project\.json is damaged"):
        Project.open(project.folder)


@pytest.mark.parametrize(
    "line",
    [
        '{"frame": 1e999, "sure": {}}',
        '{"frame": 8, "sure": {}}',
        '{"frame": -1, "sure": {}}',
        '{"frame": 0, "sure": {"1": 1e999}}',
        '{"frame": 0, "sure": {"1": NaN}}',
        '{"frame": 0, "sure": {"300": 0.5}}',
        '{"frame": 0, "sure": {"a": 0.5}}',
        '{"frame": 0, "sure": []}',
        '{"frame": 0, "sure": {}, "version": 9007199254740992}',
        "[" * 100_000,
        "\udcff",
        "0",
    ],
)
def test_what_is_said_of_frames_that_there_cannot_be_is_damage(project, line):
    (project.folder / "track.jsonl").write_text(line + "\n", errors="surrogateescape")
    with pytest.raises(ValueError, match=r"project\.json is damaged"):
        Project.open(project.folder)


@pytest.mark.parametrize("name", ["step", "generation", "masks", "given", "history"])
def test_a_project_whose_numbers_are_as_large_as_they_may_be_opens_again_after_every_edit(
    project, clip, name
):
    project = tracked(project, clip[1])
    project.give(1, clip[1][1])
    folder, last = project.folder, f"-{MOST_VERSIONS}.png"
    facts = json.loads((folder / "project.json").read_text())
    if name == "step":
        facts["step"] = MOST_EDITS
        for step in (MOST_EDITS - 1, MOST_EDITS, MOST_EDITS + 1):
            shutil.copy(folder / "history" / "000000.json", folder / "history" / f"{step:06d}.json")
    elif name == "generation":
        facts["generation"] = MOST_VERSIONS
    elif name == "history":
        state = json.loads((folder / "history" / "000001.json").read_text())
        state |= {"revisions": {"0": MOST_VERSIONS}, "hidden": {"0": MOST_VERSIONS}}
        (folder / "history" / "000001.json").write_text(json.dumps(state))
        shutil.copy(folder / "given" / "00000.png", folder / "given" / f"00000{last}")
    else:
        shutil.copy(folder / "given" / "00000.png", folder / name / f"00000{last}")
        shutil.copy(folder / "given" / "00000.png", folder / name / f"00000-{MOST_VERSIONS + 1}.png")
    (folder / "project.json").write_text(json.dumps(facts))
    erased = np.zeros(project.size, np.int32)
    steps = [
        *(Project.redo, Project.undo, Project.undo),
        lambda p: p.store(2, erased, erased.astype(np.float32), {}),
        *(lambda p: p.give(0, erased), lambda p: p.begin_ways("tracked", 0)),
        lambda p: p.store(3, erased, erased.astype(np.float32), {}),
        *(Project.undo, Project.redo, lambda p: p.remove(1), lambda p: p.take_back(1), Project.redo),
    ]
    for step in steps:
        project = Project.open(folder)
        project.sweep()
        with suppress(ValueError):
            step(project)
            assert project.step <= MOST_EDITS
            tracks = project.confidence
            again = Project.open(folder)
            assert (again.given, again.confidence) == (project.given, tracks)
        Project.open(folder)


def test_a_name_that_no_json_can_hold_is_shown_with_dashes(project):
    facts = json.loads((project.folder / "project.json").read_text())
    (project.folder / "project.json").write_text(json.dumps(facts | {"name": "a\ud800\x1b]0;x\x07b"}))
    assert Project.open(project.folder).name == "a__]0;x_b"


def test_a_mask_of_another_size_or_with_large_ids_is_damage(project, clip):
    project.give(0, clip[1][0])
    for mask, words in [(np.ones((5, 5), int), "it is 5x5"), (np.full(project.size, 300), "it has id 300")]:
        write_mask(project.folder / "given" / "00000.png", mask)
        with pytest.raises(ValueError, match=words):
            project.mask(0)


class Killed(BaseException):
    """A process that ends here."""


def edits(project, clip):
    """Each edit, as a function of an opened project."""
    other = np.where(clip[1][0] == 1, 0, clip[1][0])
    return {
        "another mask": lambda p: p.give(0, other),
        "a later mask": lambda p: p.give(3, clip[1][3]),
        "a mask taken back": lambda p: p.take_back(0),
        "an object removed": lambda p: p.remove(1),
        "an undo": Project.undo,
        "a name": lambda p: p.rename(1, "cow"),
        "tracking both ways": lambda p: p.begin_ways("tracked both ways", 0),
    }


@pytest.mark.parametrize(
    "name",
    [
        *("another mask", "a later mask", "a mask taken back", "an object removed"),
        *("an undo", "a redo", "a name", "tracking both ways"),
    ],
)
def test_an_edit_that_is_killed_is_made_or_not_made(project, clip, tmp_path, monkeypatch, name):
    project.give(0, clip[1][0])
    project.give(5, clip[1][5])

    def facts(project):
        masks = {i: project.given_mask(i).tobytes() for i in project.given}
        return project.given, masks, project.labels, project.step

    if name == "a redo":
        project.undo()
    edit, before = (edits(project, clip) | {"a redo": Project.redo})[name], facts(project)
    shutil.copytree(project.folder, tmp_path / "whole")
    edit(done := Project.open(tmp_path / "whole"))
    after = facts(done)
    for at in range(20):
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        shutil.copytree(project.folder, tmp_path / "killed")
        steps = iter(range(at))

        def counted(call, steps=steps):
            def step(*arguments, **named):
                if next(steps, None) is None:
                    raise Killed
                return call(*arguments, **named)

            return step

        with monkeypatch.context() as patch:
            for call in ("replace", "unlink"):
                patch.setattr(os, call, counted(getattr(os, call)))
            try:
                edit(Project.open(tmp_path / "killed"))
                ended = True
            except Killed:
                ended = False
        again = Project.open(tmp_path / "killed")
        again.sweep()
        assert facts(again) in (before, after), at
        left = {path.name for path in (tmp_path / "killed" / "given").iterdir()}
        states = [again._snapshot(), *again._history.all()]
        known = {mask_name(i, one.revisions.get(i, 0)) for one in states for i in one.given}
        assert left == known, at  # those of earlier states too, for undo
        assert not [path for path in (tmp_path / "killed").rglob("*") if "partial" in path.name]
        if ended:
            assert facts(again) == after
            return
    raise AssertionError("it did not end")


def test_an_edit_that_the_disk_does_not_take_is_not_made(project, clip, monkeypatch):
    project.give(0, clip[1][0])
    write = Folder.write

    def full(self, name, content):
        if name == "project.json":
            raise OSError(28, "No space left on device", name)
        write(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", full)
        for edit in edits(project, clip).values():
            with pytest.raises(OSError, match="No space"):
                edit(project)
    assert project.given == Project.open(project.folder).given == {0: (1, 2)}
    np.testing.assert_array_equal(project.mask(0), clip[1][0])


def test_frames_stay_tracked_if_the_disk_does_not_take_that_they_are_not(project, clip, monkeypatch):
    project = tracked(project, clip[1])
    write = Folder.write

    def full(self, name, content):
        if name == "track.jsonl":
            raise OSError(28, "No space left on device", name)
        write(self, name, content)

    monkeypatch.setattr(Folder, "write", full)
    for edit in edits(project, clip).values():
        before = project.confidence
        with suppress(OSError, ValueError):
            edit(project)
        assert project.confidence == before == Project.open(project.folder).confidence
        assert len(before) == project.count


@posix
def test_a_line_that_the_disk_takes_in_part_does_not_spoil_those_after_it(project, clip):
    import resource

    project = tracked(project, clip[1])
    lines = project.folder / "track.jsonl"
    before, limits = lines.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    for _ in range(3):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 11, limits[1]))
            with pytest.raises(OSError, match=r"track\.jsonl"):
                project._track.add(7, Tracked({1: 0.25}))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert lines.read_bytes().startswith(before)
        assert Project.open(project.folder).confidence[7] == {1: 0.5}
    project._track.add(7, Tracked({1: 0.25}))
    project._track.add(6, Tracked({1: 0.75}))
    sure = Project.open(project.folder).confidence
    assert (sure[5], sure[6], sure[7]) == ({1: 0.5}, {1: 0.75}, {1: 0.25})


def test_a_removed_object_does_not_come_back_with_a_stroke_on_an_outdated_frame(project, clip, tmp_path):
    project = tracked(project, clip[1])
    project.give(3, np.where(clip[1][0] == 2, 0, clip[1][0]))  # frames from here on are outdated
    project.remove(2)
    assert project.kind(5) == "outdated"
    assert set(np.unique(project.mask(5))) == {0, 1}
    stroke = project.mask(5)
    stroke[:9, :9] = 1
    assert project.give(5, stroke) == (1,)
    assert list(write_masks(project, tmp_path / "masks.zip"))
    with zipfile.ZipFile(tmp_path / "masks.zip") as archive:
        for name in archive.namelist():
            assert 2 not in np.asarray(Image.open(io.BytesIO(archive.read(name)))), name


def recorded(path, codec="aac", kind="matroska"):
    """A second of sound."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=48000)
        for begin in range(0, 48000, 1024):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
            samples.sample_rate, samples.pts = 48000, begin
            container.mux(stream.encode(samples))
        container.mux(stream.encode())
    return path.read_bytes()


def has_sound(project, path):
    """Whether an overlay has sound; it has all frames in any case."""
    import av

    list(write_overlay(project, path))
    assert open_frames(path).count == project.count
    assert not [*path.parent.glob(".*")]
    with av.open(str(path)) as container:
        return bool(container.streams.audio)


@pytest.mark.parametrize(
    "name", ["a link", "a pipe", "a folder", "too large", "another format", "a list", "none"]
)
def test_a_sound_of_a_stranger_costs_at_most_the_sound(project, clip, tmp_path, monkeypatch, name):
    project = tracked(project, clip[1])
    place = project.folder / "sound.mka"
    content = recorded(tmp_path / "sound.mka")
    place.write_bytes(content)
    assert has_sound(project, tmp_path / "overlay.mp4")
    place.unlink()
    if name in ("a link", "a pipe") and sys.platform == "win32":
        pytest.skip("links and pipes of POSIX")
    if name == "a link":
        place.symlink_to(tmp_path / "sound.mka")
    elif name == "a pipe":
        os.mkfifo(place)
    elif name == "a folder":
        place.mkdir()
    elif name == "too large":
        place.write_bytes(content)
        monkeypatch.setattr("emavos.ui.sound.LARGEST", len(content) - 1)
    elif name == "another format":
        recorded(place, kind="mp4")
    elif name == "a list":  # that would have FFmpeg open another file
        place.write_text(f"ffconcat version 1.0\nfile {tmp_path / 'sound.mka'}\n")
    if name == "none":
        assert not has_sound(project, tmp_path / "overlay.mp4")
        return
    with pytest.warns(InputWarning, match=r"overlay\.mp4 has no sound: "):
        assert not has_sound(project, tmp_path / "overlay.mp4")


@pytest.mark.filterwarnings("ignore::emavos.io.InputWarning")
@pytest.mark.parametrize("codec", ["aac", "mp3", "ac3", "eac3", "flac", "opus"])
def test_a_damaged_sound_never_costs_the_overlay(project, clip, tmp_path, codec):
    av = pytest.importorskip("av")
    project = tracked(project, clip[1])
    place, random = project.folder / "sound.mka", np.random.default_rng(0)
    try:
        content = np.frombuffer(recorded(tmp_path / "sound.mka", codec), np.uint8)
    except (ValueError, av.FFmpegError) as error:
        pytest.skip(f"this FFmpeg cannot encode it: {error}")
    place.write_bytes(content.tobytes())
    assert has_sound(project, tmp_path / "overlay.mp4")
    for turn in range(12):
        harmed = content.copy()
        span = len(content) if turn % 2 else min(700, len(content))  # half of them in the header
        harmed[random.integers(0, span, 1 + turn)] = random.integers(0, 256, 1 + turn)
        place.write_bytes(harmed[: len(harmed) if turn % 3 else random.integers(1, len(harmed))].tobytes())
        has_sound(project, tmp_path / "overlay.mp4")
