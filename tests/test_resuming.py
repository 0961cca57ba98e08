"""A long `segment` that was stopped: the same command continues, and ends with the same bytes."""

from __future__ import annotations

import json
from operator import attrgetter

import numpy as np
import pytest
from PIL import Image

import emavos.io
import emavos.visualize
from emavos.cli import main, resuming
from emavos.demo import synthetic_clip
from emavos.io import write_mask
from emavos.session import Session
from kills import tree

FRAMES = 7


@pytest.fixture
def here(tmp_path, monkeypatch):
    frames, masks = synthetic_clip(FRAMES, (64, 96))
    (tmp_path / "clip").mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "clip" / f"{index:05d}.png")
    write_mask(tmp_path / "first.png", masks[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resuming, "SECONDS", 0.0)
    return tmp_path


def command(out, *more):
    argv = ["segment", "clip", "--mask", "first.png", "--out", f"{out}/masks", "--size", "64", "--quiet"]
    return [*argv, "--rle", f"{out}/rle.json", "--confidence", f"{out}/sure.csv", *more]


def run(*argv, stop=None, error=KeyboardInterrupt):
    """The exit code of a command, interrupted at a frame if asked for, and the frames of its steps."""
    steps, step = [], Session.step

    def counted(session, *arguments):
        if session.index == stop:
            raise error
        steps.append(session.index)
        return step(session, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "step", counted)
        return main([*argv]), steps


@pytest.mark.parametrize("stop", [1, 5])
def test_the_same_command_continues_to_the_same_bytes(here, stop):
    assert run(*command("whole"))[0] == 0
    code, steps = run(*command("out"), stop=stop)
    assert (code != 0, steps) == (True, [*range(stop)])
    assert not (here / "out/masks").exists()
    code, rest = run(*command("out"))
    assert code == 0
    assert rest[-1] == FRAMES - 1
    assert stop - 3 <= rest[0] <= stop  # what was saved is not computed again
    assert tree(here / "out") == tree(here / "whole")
    assert not [*here.rglob(".*")]


def test_it_continues_with_objects_that_come_later_and_an_overlay(here):
    masks = synthetic_clip(FRAMES, (64, 96))[1]
    (here / "masks").mkdir()
    write_mask(here / "masks/00000.png", np.where(masks[0] == 1, 1, 0))
    write_mask(here / "masks/00003.png", np.where(masks[3] == 2, 2, 0))
    more = ["--mask", "masks", "--overlay"]
    assert run(*command("whole"), *more, "whole/show")[0] == 0
    assert run(*command("out"), *more, "out/show", stop=5)[0] != 0
    assert run(*command("out"), *more, "out/show")[0] == 0
    assert tree(here / "out") == tree(here / "whole")


def test_a_stopped_run_that_writes_mattes_starts_over(here, capsys):
    assert run(*command("whole"), "--matte", "whole/matte", "--cutout", "whole/cutout")[0] == 0
    more = ["--matte", "out/matte", "--cutout", "out/cutout"]
    assert run(*command("out"), *more, stop=4)[0] != 0
    assert not [*here.rglob(".*")]
    assert run(*command("out"), *more) == (0, [*range(FRAMES)])
    assert tree(here / "out") == tree(here / "whole")
    assert run(*command("other"), stop=4)[0] != 0
    assert run(*command("other"), "--matte", "other/matte")[0] == 1  # the kept frames have no opacities
    assert "frames of a stopped run with other matte; repeat that command" in capsys.readouterr().err


def test_other_settings_or_inputs_are_refused_with_a_remedy(here, capsys):
    assert run(*command("out"), stop=4)[0] != 0
    assert run(*command("out", "--size", "48"))[0] == 1
    said = capsys.readouterr().err
    assert "frames of a stopped run with other size; repeat that command" in said
    assert "--force to start over" in said
    assert run(*command("out", "--direction", "both"))[0] == 1
    assert "with other direction" in capsys.readouterr().err
    write_mask(here / "first.png", np.eye(64, 96, dtype=np.uint8))
    assert run(*command("out"))[0] == 1
    assert "with other mask" in capsys.readouterr().err
    code, steps = run(*command("out", "--force"))
    assert (code, steps) == (0, [*range(FRAMES)])
    assert not [*here.rglob(".*")]


@pytest.mark.parametrize("pattern", ["{}/*.png", "{}/%05d.png"])
def test_the_frames_of_a_pattern_are_compared_too(here, capsys, pattern):
    argv = command("out")
    argv[1] = pattern.format("clip")
    assert run(*argv, stop=3)[0] != 0
    (here / "other").mkdir()
    for path in (here / "clip").iterdir():
        Image.open(path).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(here / "other" / path.name)
    argv[1] = pattern.format("other")
    assert run(*argv)[0] == 1
    assert "frames of a stopped run with other video; repeat that command" in capsys.readouterr().err
    argv[1] = pattern.format("clip")
    code, steps = run(*argv)
    assert (code, steps[-1]) == (0, FRAMES - 1)
    assert steps[0] > 0


def test_a_short_run_leaves_nothing_to_continue(here, monkeypatch):
    monkeypatch.setattr(resuming, "SECONDS", 60.0)
    assert run(*command("out"), stop=4)[0] != 0
    assert not [*here.rglob(".*")]
    assert run(*command("out"))[1] == [*range(FRAMES)]


def test_a_place_that_cannot_be_written_stops_no_run(here, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Session, "save", full)
    assert run(*command("out"))[0] == 0
    assert capsys.readouterr().err.count("(No space left on device); if this run is stopped") == 1
    assert len([*(here / "out/masks").iterdir()]) == FRAMES


def test_an_error_says_that_frames_are_kept(here, capsys):
    assert run(*command("out"), stop=4, error=ValueError("the network is tired"))[0] == 1
    said = capsys.readouterr().err
    assert "the network is tired; nothing was written to out/masks, but" in said
    assert "frames are kept and the same command continues after them" in said


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("the last packet is damaged")])
def test_finished_frames_are_written_if_asked_for(here, capsys, error):
    assert run(*command("whole"))[0] == 0
    assert run(*command("out", "--keep-partial"), stop=4, error=error)[0] != 0
    whole, out = tree(here / "whole/masks"), tree(here / "out/masks")
    assert out == {name: whole[name] for name in [f"{i:05d}.png" for i in range(4)]}
    assert (here / "out/sure.csv").read_text().count("00003,") == len(np.unique(Image.open("first.png"))) - 1
    if isinstance(error, ValueError):
        assert "the last packet is damaged; out/masks has the 4 frames before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("broken", "frame"),
    [("io.write_mask", 3), ("io.write_mask", FRAMES - 1), ("visualize.overlay", 3), ("io.write_mask", 0)],
)
def test_frames_after_one_that_could_not_be_written_are_left_out(here, monkeypatch, broken, frame):
    monkeypatch.setattr(resuming, "SECONDS", 60.0)
    write, calls = attrgetter(broken)(emavos), []

    def full_once(*arguments):
        calls.append(arguments)
        if len(calls) == frame + 1:
            raise OSError(28, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr(f"emavos.{broken}", full_once)
    assert run(*command("out", "--keep-partial", "--overlay", "out/shown"))[0] != 0
    if not frame:
        assert not (here / "out").exists()
        return
    names = [f"{index:05d}.png" for index in range(frame)]
    for folder in ("masks", "shown"):
        assert sorted(path.name for path in (here / "out" / folder).iterdir()) == names
    assert [
        image["file_name"] for image in json.loads((here / "out/rle.json").read_text())["images"]
    ] == names
    rows = (here / "out/sure.csv").read_text().splitlines()[1:]
    assert [f"{name}.png" for name in dict.fromkeys(row.partition(",")[0] for row in rows)] == names


def test_two_runs_into_folders_of_one_name_do_not_mix(here):
    assert run(*command("out"), stop=4)[0] != 0
    assert run(*command("other"), stop=2)[0] != 0
    (here / "out").mkdir()  # made meanwhile
    assert 1 <= run(*command("out"))[1][0] <= 4
    assert run(*command("other"))[1][0] <= 2
    assert tree(here / "out") == tree(here / "other")


def test_a_damaged_progress_is_refused_and_a_half_written_one_is_none(here, capsys):
    assert run(*command("out"), stop=4)[0] != 0
    (folder,) = here.glob(".out.masks.resume")
    (folder / "progress.json").write_text("{")
    assert run(*command("out"))[0] == 1
    assert "is damaged; remove this folder to start over" in capsys.readouterr().err
    (folder / "progress.json").unlink()
    assert run(*command("out"))[1] == [*range(FRAMES)]


def test_a_reference_stands_for_the_mask_on_the_command_line(here, capsys):
    argv = ["segment", "clip", "--reference", "clip/00002.png", "first.png", "--out", "out", "--size", "64"]
    assert main([*argv, "--quiet"]) == 0
    assert len([*(here / "out").iterdir()]) == FRAMES
    assert main([*argv, "--direction", "both", "--force"]) == 1
    assert "--reference tracks forward" in capsys.readouterr().err
    assert main([*argv, "--force", "--matte", "m", "--matte-of", "1,9"]) == 1
    assert "--matte-of 9 is not an object; the masks have 1" in capsys.readouterr().err
    assert not (here / "m").exists()
    write_mask(here / "small.png", np.ones((9, 9), np.uint8))
    argv[3:5] = ["clip/00002.png", "small.png"]
    assert main([*argv, "--force"]) == 1
    assert "--reference clip/00002.png: mask is 9x9 but frame is 64x96" in capsys.readouterr().err


def test_a_cut_is_told_by_its_frame(here, capsys):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 2, (8, 12, 1), dtype=np.uint8) * np.array([255, 0, 180], np.uint8)
    for index in (5, 6):
        Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)).save(here / "clip" / f"{index:05d}.png")
    assert main([*command("tell")]) == 0
    assert "note: another scene begins at 00005: masks from there on may be wrong" in capsys.readouterr().err
    assert main([*command("stop", "--cuts", "stop")]) == 0
    assert "the frames until the scene returns have no masks" in capsys.readouterr().err
    assert not np.asarray(Image.open(here / "stop/masks/00005.png")).any()
    assert main([*command("ignore", "--cuts", "ignore", "--drop-absent", "9")]) == 0
    assert "scene" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"done": 1e999},
        {"done": -1},
        {"done": 3},
        {"ids": [1e999]},
        {"cuts": [[]]},
        {"states": [[["a"]], []]},
        {"states": [[[1, True, "a", 2]], []]},
        {"facts": 3},
    ],
)
def test_a_progress_that_cannot_be_is_damage(tmp_path, change):
    content = {"facts": {}, "done": 2, "ids": [1], "cuts": [], "states": [[[1, True, 0.5, 40]], []]}
    (tmp_path / ".out.resume").mkdir()
    place = tmp_path / ".out.resume" / "progress.json"
    place.write_text(json.dumps(content))
    assert resuming.Progress(tmp_path / "out", {}, force=False).states[0][1].area == 40
    place.write_text(json.dumps(content | change))
    with pytest.raises(ValueError, match=r"\.out\.resume is damaged; remove this folder"):
        resuming.Progress(tmp_path / "out", {}, force=False)


def test_a_progress_of_another_session_is_damage(here, capsys):
    run(*command("out"), stop=5)
    (folder,) = here.glob("**/.*.resume")
    sessions = sorted(folder.glob("session-*"))
    content = json.loads((folder / "progress.json").read_text())
    content |= {"done": content["done"] - 1, "states": content["states"][:-1]}
    sessions[-1].rename(folder / f"session-{content['done']}.safetensors")
    (folder / "progress.json").write_text(json.dumps(content))
    assert main([*command("out")]) == 1
    assert f"{folder.name} is damaged" in capsys.readouterr().err
