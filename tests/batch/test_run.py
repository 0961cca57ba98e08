from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fuzz
import kills
from emavos import Predictor, Session
from emavos.batch import Job, find_jobs, run_batch
from emavos.batch.run import Batch
from emavos.bridges import read_coco
from emavos.cli import main
from emavos.io import InputWarning, open_frames, read_mask, write_mask
from kills import tree


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained(device="cpu", size=64)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Three clips beside their masks in `data`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    kills.clips(tmp_path / "data", 3)
    return tmp_path


def batch(*more, out="out"):
    return main(["batch", "data", "--out", out, "--size", "64", "--device", "cpu", *more])


def status(name, out="out"):
    return json.loads(Path(out, "status", f"{name}.json").read_text())


def test_masks_are_those_of_segment_and_the_rest_agrees_with_them(here, capsys):
    pytest.importorskip("av")
    assert batch("--overlay", "--rle") == 0
    out, err = capsys.readouterr()
    assert "3 videos made, 12 frames" in out
    assert err == "clip0: done (1 of 3)\nclip1: done (2 of 3)\nclip2: done (3 of 3)\n"
    single = ["segment", "data/clip1", "--mask", "data/clip1.png", "--out", "one", "--rle", "one.json"]
    assert main([*single, "--overlay", "one.mp4", "--size", "64", "--device", "cpu", "--quiet"]) == 0
    assert tree(here / "out" / "masks" / "clip1") == tree(here / "one")
    for made, alone in (("overlays/clip1.mp4", "one.mp4"), ("rle/clip1.json", "one.json")):
        assert (here / "out" / made).read_bytes() == (here / alone).read_bytes()
    for name, mask in read_coco("out/rle/clip1.json"):
        np.testing.assert_array_equal(mask, read_mask(f"out/masks/clip1/{name}.png"))
    assert len(list(open_frames("out/overlays/clip1.mp4"))) == 4
    assert {path.name for path in (here / "out").iterdir()} == {"masks", "overlays", "rle", "status"}


@pytest.mark.parametrize("option", [["--decode-near"], ["--dtype", "bfloat16"]], ids=" ".join)
def test_shortcuts_and_types_are_those_of_segment(here, option):
    single = ["segment", "data/clip1", "--mask", "data/clip1.png", "--size", "64", "--device", "cpu"]
    assert batch("--quiet", *option) == 0
    assert main([*single, "--out", "with", "--quiet", *option]) == 0
    assert main([*single, "--out", "without", "--quiet"]) == 0
    assert tree(here / "out" / "masks" / "clip1") == tree(here / "with") != tree(here / "without")


def test_two_jobs_of_one_name_are_refused_before_one_writes_over_the_other(here, predictor):
    jobs = [Job("cat", Path("data", name), Path("data", f"{name}.png")) for name in ("clip0", "clip1")]
    with pytest.raises(ValueError, match="two videos called cat"):
        run_batch(jobs, predictor, "out")
    assert not Path("out").exists()


def test_a_job_takes_paths_as_text_and_frames_as_numbers(here, predictor):
    jobs = [Job("cat", "data/clip0", "data/clip0.png"), Job("dog", "data/clip1", {1: "data/clip1.png"})]
    outcomes = run_batch(iter(jobs), predictor, "out")
    assert [(outcome.error, outcome.frames) for outcome in outcomes] == [("", 4)] * 2
    assert not read_mask("out/masks/dog/00000.png").any()
    with pytest.raises(ValueError, match="cat: video and mask are paths"):
        Job("cat", "data/clip0", read_mask("data/clip0.png"))


def test_the_command_prints_a_line_for_each_video_that_is_finished(here, capsys):
    assert batch() == 0
    assert capsys.readouterr().err.splitlines() == [f"clip{i}: done ({i + 1} of 3)" for i in range(3)]
    Path("data/clip1.png").write_text("no picture\x1b[2J")
    assert batch() == 1
    first, second, third, last = capsys.readouterr().err.splitlines()
    assert (first, third) == ("clip0: already there (1 of 3)", "clip2: already there (3 of 3)")
    assert second.startswith("clip1: failed: ")
    assert second.endswith(" (2 of 3)")
    assert last.startswith("emavos: clip1: ")
    assert batch("--quiet") == 1
    assert capsys.readouterr().err == f"{last}\n"


@pytest.mark.parametrize(
    "change",
    [
        *({"settings": [1]}, {"settings": "a"}, {"settings": None}, {"ids": None}, {"ids": [1e999]}),
        *({"ids": {"1": 1}}, {"frames": "0"}, {"frames": False}, {"run": "r"}, {"run": "r", "tries": "1"}),
    ],
)
def test_a_status_with_odd_values_is_told_and_its_video_made_again(tmp_path, change):
    seed = fuzz.status_seeds(tmp_path)[0]
    with pytest.warns(InputWarning, match="a.json is damaged; a is made again"):
        fuzz.feed_status(tmp_path, json.dumps(json.loads(seed) | change).encode())
    assert (tmp_path / "batch" / "status" / "a.json").read_bytes() == seed


@pytest.mark.parametrize("content", ["", "{", "[]", '"done"'])
def test_a_damaged_status_is_told_and_its_video_made_again(here, capsys, content):
    assert batch("--quiet") == 0
    made = tree(here / "out")
    (here / "out" / "status" / "clip1.json").write_text(content)
    assert batch("--quiet") == 0
    assert capsys.readouterr().err == "emavos: note: out/status/clip1.json is damaged; clip1 is made again\n"
    assert tree(here / "out") == made


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
def test_a_pipe_among_the_inputs_fails_its_video_and_is_not_waited_for(here, predictor):
    os.mkfifo("pipe.png")
    jobs = [
        Job("video", "pipe.png", "data/clip0.png"),
        Job("mask", "data/clip0", "pipe.png"),
        Job("reference", "data/clip0", None, references=[("pipe.png", "data/clip0.png")]),
        Job("whole", "data/clip1", "data/clip1.png"),
    ]
    *failed, whole = run_batch(jobs, predictor, "out")
    assert all("pipe.png is a pipe or a device, not a" in outcome.error for outcome in failed)
    assert (whole.error, whole.frames) == ("", 4)


@pytest.mark.parametrize("named", ["first.png", {"00000": "first.png"}])
def test_a_mask_among_the_frames_is_none_and_is_told_as_by_segment(here, capsys, named):
    (here / "data" / "clip0.png").rename(here / "data" / "clip0" / "first.png")
    mask = {name: f"data/clip0/{file}" for name, file in named.items()} if isinstance(named, dict) else None
    job = {"video": "data/clip0", "mask": mask or f"data/clip0/{named}"}
    Path("jobs.jsonl").write_text(json.dumps(job))
    assert main(["batch", "jobs.jsonl", "--out", "out", "--size", "64", "--device", "cpu"]) == 0
    err = capsys.readouterr().err
    assert "note: clip0: data/clip0: left out: the mask first.png" in err.replace(f"{here}/", "")
    assert len(status("clip0")["notes"]) == 1
    single = ["segment", "data/clip0", "--mask", "data/clip0/first.png", "--out", "one", "--size", "64"]
    assert main([*single, "--device", "cpu", "--quiet"]) == 0
    assert "left out: the mask first.png" in capsys.readouterr().err
    assert tree(here / "out" / "masks" / "clip0") == tree(here / "one")


def test_a_bad_video_does_not_stop_the_rest_and_is_told_of_at_the_end(here, capsys):
    (here / "data" / "clip0" / "00002.png").write_bytes(b"no image")
    (here / "data" / "clip1.png").unlink()
    assert batch() == 1
    out, err = capsys.readouterr()
    assert "1 video made, 4 frames" in out
    assert "2 failed" in out
    errors = [line for line in err.splitlines() if line.startswith("emavos: ")]
    assert [line.split(": ")[1] for line in errors] == ["clip0", "clip1"]
    assert "00002.png is not an image" in err
    assert "clip1.png does not exist" in err
    assert [status(f"clip{i}")["state"] for i in range(3)] == ["failed", "failed", "done"]
    assert "does not exist" in status("clip1")["error"]
    assert not (here / "out" / "masks" / "clip0").exists()


def test_what_surprises_in_one_video_does_not_stop_the_rest(here, predictor, monkeypatch):
    real = Predictor._forward

    def propagate(self, frames, masks, session):
        if any((np.asarray(mask) == 9).any() for mask in masks.values()):
            raise RuntimeError("out of luck")
        return real(self, frames, masks, session)

    write_mask("data/clip1.png", np.full((64, 96), 9, np.uint8))
    monkeypatch.setattr(Predictor, "_forward", propagate)
    outcomes = run_batch(find_jobs("data"), predictor, "out")
    assert [outcome.error for outcome in outcomes] == ["", "RuntimeError: out of luck", ""]


def test_a_second_run_makes_only_what_is_not_done(here, capsys):
    (here / "data" / "clip1.png").rename(here / "clip1.png")
    assert batch() == 1
    times = {path: path.stat().st_mtime_ns for path in (here / "out" / "masks").rglob("*.png")}
    (here / "clip1.png").rename(here / "data" / "clip1.png")
    assert batch() == 0
    assert "1 video made, 4 frames" in capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert batch() == 0
    assert "0 videos made" in capsys.readouterr().out
    assert status("clip1")["state"] == "done"


def test_a_video_is_made_again_where_its_inputs_changed_or_its_outputs_are_gone(here, predictor):
    def made():
        return [outcome.made for outcome in run_batch(find_jobs("data"), predictor, "out", rle=True)]

    assert made() == [True] * 3
    whole = tree(here / "out")
    (here / "out" / "masks" / "clip0" / "00001.png").unlink()
    (here / "out" / "rle" / "clip1.json").unlink()
    (here / "out" / "status" / "clip2.json").write_text("{")
    with pytest.warns(InputWarning, match="clip2.json is damaged; clip2 is made again"):
        assert made() == [True] * 3
    assert tree(here / "out") == whole
    (here / "data" / "clip0" / "00003.png").unlink()
    write_mask("data/clip1.png", np.where(read_mask("data/clip1.png") == 1, 5, 0))
    assert made() == [True, True, False]
    assert not (here / "out" / "masks" / "clip0" / "00003.png").exists()
    assert status("clip1")["ids"] == [5]


def test_masks_of_other_settings_are_refused_and_made_anew_by_force(here, capsys):
    assert batch("--rle", "--quiet") == 0
    before = tree(here / "out")
    assert batch("--every", "2", "--quiet") == 1
    assert "holds 'clip0' made with other settings (every, rle);" in capsys.readouterr().err
    assert tree(here / "out") == before
    assert batch("--every", "2", "--quiet", "--force") == 0
    assert status("clip0")["settings"]["every"] == 2
    assert not (here / "out" / "rle" / "clip0.json").exists()


def test_a_batch_knows_whether_it_is_compiled_and_leaves_other_cores_alone(here, predictor, monkeypatch):
    same = predictor.policy, predictor.size, predictor.shortcuts
    other = Predictor(predictor.model, *same, compile=True)
    assert Batch.of(other, "x").settings == Batch.of(predictor, "x").settings | {"compile": True}
    monkeypatch.setattr("emavos.predictor.has_spare_core", lambda threads: True)
    monkeypatch.setattr(Session, "preprocess", lambda *arguments: pytest.fail("preprocessed beside"))
    assert not any(outcome.error for outcome in run_batch(find_jobs("data"), predictor, "out"))


def test_a_job_has_options_of_its_own(here, predictor):
    lines = [
        {"video": "data/clip0", "mask": "data/clip0.png", "name": "plain"},
        {"video": "data/clip0", "mask": {"0": "data/clip0.png"}, "name": "small", "size": 32, "every": 1},
    ]
    Path("jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    plain, small = run_batch(find_jobs("jobs.jsonl"), predictor, "out")
    assert (plain.frames, small.frames) == (4, 4)
    results = list(
        Predictor(predictor.model, predictor.policy.__class__(every=1), 32).propagate(
            "data/clip0", "data/clip0.png"
        )
    )
    np.testing.assert_array_equal(read_mask("out/masks/small/00003.png"), results[3].mask)
    assert (read_mask("out/masks/plain/00003.png") != results[3].mask).any()


def test_shards_together_give_what_one_process_gives(here, capsys, monkeypatch):
    assert batch("--quiet", out="whole") == 0
    assert batch("--shard", "0/2") == 0
    assert "shard 0 of 2 (--shard): 2 of 3 videos" in capsys.readouterr().out
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert batch() == 0
    assert "shard 1 of 2 (SLURM_PROCID, SLURM_NTASKS): 1 of 3 videos" in capsys.readouterr().out
    assert tree(here / "out") == tree(here / "whole")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "0")
    assert batch() == 1
    assert "RANK and WORLD_SIZE" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["2/2", "1", "-1/2", "a/b", "1/2/3"])
def test_a_shard_that_is_none_is_wrong_usage(here, capsys, text):
    assert batch(f"--shard={text}") == 2
    assert "I/N" in capsys.readouterr().err


def test_outputs_stay_out_of_inputs_and_of_other_folders(here, capsys):
    before = tree(here)
    assert batch(out="data") == 1
    assert "data is not empty and not of a batch" in capsys.readouterr().err
    assert batch("--force", out="data") == 1
    assert "lies among the outputs" in capsys.readouterr().err
    assert batch(out="data/clip0.png") == 1
    assert "is a file, not a folder" in capsys.readouterr().err
    assert tree(here) == before


def test_an_output_that_cannot_be_written_is_one_line(here, capsys):
    if not Path("/proc/self").exists():
        pytest.skip("there is no /proc here, where nobody may write")
    assert batch(out="/proc/emavos/out") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "/proc/emavos" in err
    argv = ["segment", "data/clip0", "--mask", "data/clip0.png", "--out", "/proc/emavos"]
    assert main([*argv, "--size", "64"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "/proc/emavos cannot be written" in err


@pytest.mark.parametrize("name", ["batch", "segment"])
def test_a_disk_that_is_full_is_one_line_and_leaves_nothing_half_written(here, name, capsys, monkeypatch):
    real, saved = Path.write_bytes, []

    def write(self, content):
        saved.extend([self] if content.startswith(b"\x89PNG") else [])
        if len(saved) == 6:
            raise OSError(28, "No space left on device")
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", write)
    if name == "batch":
        assert batch("--quiet") == 1
        assert sorted(tree(here / "out")) == [
            *(f"masks/clip0/0000{i}.png" for i in range(4)),
            "status/.run.json",
            "status/clip0.json",
        ]
        expected = "emavos: error: out: No space left on device\n"
    else:
        saved += [""] * 2
        argv = ["segment", "data/clip0", "--mask", "data/clip0.png", "--out", "out", "--size", "64"]
        assert main([*argv, "--quiet"]) == 1
        expected = f"emavos: error: {here}/out/00003.png: No space left on device\n"
        assert not (here / "out").exists()
    assert capsys.readouterr().err == expected
    assert not [path for path in here.rglob("*") if "partial" in path.name]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked and killed")
@pytest.mark.parametrize(
    "arguments",
    [
        "batch",
        "segment --signal SIGINT",
        pytest.param("segment", marks=pytest.mark.slow),
        pytest.param("batch --signal SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_killed_ends_with_the_bytes_of_one_that_was_not(arguments):
    pytest.importorskip("av")
    done = subprocess.run(
        [sys.executable, kills.__file__, *arguments.split(), "--rounds", "3", "--seed", "1"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_references_stand_for_masks_for_all_videos_or_one(here, capsys):
    for mask in Path("data").glob("*.png"):
        mask.rename(mask.name)
    picture = sorted(Path("data/clip0").iterdir())[0]
    assert batch("--reference", str(picture), "clip0.png") == 0
    assert "3 videos made" in capsys.readouterr().out
    frames = open_frames("data/clip1")
    session = Predictor.from_pretrained(device="cpu", size=64).session()
    session.remember(open_frames("data/clip0")[0], read_mask("clip0.png"))
    for index, frame in enumerate(frames):
        mask = read_mask(f"out/masks/clip1/{frames.name(index)}.png")
        np.testing.assert_array_equal(mask, session.step(frame).mask)
    assert batch("--reference", str(picture), "clip0.png") == 0
    assert "0 videos made" in capsys.readouterr().out
    write_mask("clip0.png", np.fliplr(read_mask("clip0.png")))
    line = {"video": "data/clip1", "reference": [[str(picture), "clip0.png"]]}
    Path("jobs.jsonl").write_text(json.dumps(line))
    assert main(["batch", "jobs.jsonl", "--out", "out", "--size", "64", "--device", "cpu"]) == 0
    assert "1 video made" in capsys.readouterr().out  # as the mask of the reference changed
    write_mask("clip0.png", np.ones((3, 3), np.uint8))
    assert main(["batch", "jobs.jsonl", "--out", "out", "--size", "64", "--device", "cpu"]) == 1
    assert f"clip1: reference {picture}: mask is 3x3 but frame is" in capsys.readouterr().err


DAMAGED = [b"", b"{", b"\0" * 40, b"[]", b'{"settings": 3}', b'{"settings": {"backend": "fast"}}', b"\xff"]


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_settings_of_a_run_are_told_and_replaced_by_those_of_its_videos(here, predictor, content):
    jobs, agreed = find_jobs("data"), Path("out/status/.run.json")
    dense = predictor.with_settings(policy=replace(predictor.policy, backend="dense"))
    run_batch(jobs[:1], dense, "out")  # a run that began with another readout than "auto" is now
    agreed.write_bytes(content)
    batch = Batch.of(predictor, "out")
    with pytest.warns(
        InputWarning, match=r"status/\.run\.json was damaged and is replaced; .* the dense readout"
    ):
        assert batch.agreed(predictor).settings["backend"] == "dense"
    assert json.loads(agreed.read_text())["settings"]["backend"] == "dense"
    assert Batch.of(predictor, "out").agreed(predictor).settings["backend"] == "dense"  # warns once
    assert [path.name for path in agreed.parent.iterdir() if "partial" in path.name] == []


def test_settings_that_another_process_has_written_meanwhile_are_kept(here, predictor, monkeypatch):
    agreed = Path("out/status/.run.json")
    agreed.parent.mkdir(parents=True)
    agreed.write_bytes(b"")
    batch = Batch.of(predictor, "out")
    theirs = json.dumps({"settings": {**batch.settings, "backend": "dense"}})

    @contextmanager
    def waits(folder):
        agreed.write_text(theirs)
        yield

    monkeypatch.setattr("emavos.batch.run.alone_in", waits)
    assert batch.agreed(predictor).settings["backend"] == "dense"
    assert agreed.read_text() == theirs


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_settings_that_cannot_be_read_now_are_not_taken_for_damaged(here, predictor, monkeypatch, code):
    run_batch(find_jobs("data")[:1], predictor, "out")
    agreed = Path("out/status/.run.json")
    before, batch = agreed.read_bytes(), Batch.of(predictor, "out")

    def fails(path, what):
        raise OSError(code, os.strerror(code), str(path))

    with monkeypatch.context() as patch:
        patch.setattr("emavos.batch.run.read_json", fails)
        with pytest.raises(OSError, match=os.strerror(code)):
            batch.agreed(predictor)
        with pytest.raises(OSError, match=os.strerror(code)):
            Batch.of(predictor, "out")
    assert agreed.read_bytes() == before


def test_shards_that_find_damaged_settings_agree_on_one_readout(here, predictor):
    agreed = Path("out/status/.run.json")
    agreed.parent.mkdir(parents=True)
    agreed.write_bytes(b"")
    shards = [Batch.of(predictor, "out") for _ in range(2)]
    chosen = [
        replace(shard, settings={**shard.settings, "backend": backend})
        for shard, backend in zip(shards, ("dense", "blocks"), strict=True)
    ]
    with pytest.warns(InputWarning, match="was damaged") as warned:
        backends = [shard.agreed(predictor).settings["backend"] for shard in chosen]
    assert backends == ["dense", "dense"]
    assert len(warned) == 1
