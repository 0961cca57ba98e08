from __future__ import annotations

import sys

import pytest
import torch
from safetensors import safe_open

import gpu_train
import pack
from emavos.weights import load_model
from trees import davis_tree, stills_tree

FAST = ("--device", "cpu", "--quiet", "--workers", "0", "--save-every", "1")


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    root = tmp_path_factory.mktemp("train")
    davis_tree(root / "clips", {"one": 4}, size=(48, 64))
    stills_tree(root / "static", 2, size=(48, 64))
    return root


def settings(**values):
    fields = {"iterations": 2, "decay_from": 2, "batch": 1, "size": 32, "frames": 2, "leave_out": []} | values
    return [x for name, value in fields.items() for x in ("--set", f"{name}={value}")]


def test_a_run_is_taken_home_in_small_files_and_is_whole_again_there(train, tmp_path, capsys):
    run, home = tmp_path / "run", tmp_path / "home"
    arguments = [
        "--data",
        train,
        "--init",
        "tiny",
        "--run",
        run,
        "--out",
        home,
        "--file",
        4,
        "--room",
        500,
        "--",
    ]
    gpu_train.main([*map(str, arguments), "--stage", "mini", *settings(ema=0.5), *FAST])
    assert "the run is at its end" in capsys.readouterr().out
    assert max(path.stat().st_size for path in home.rglob("*.*")) <= 4 * gpu_train.MIB
    assert (home / "log.csv").read_text() == (run / "log.csv").read_text()
    gpu_train.main(["--join", str(home)])
    assert not list(home.rglob("*.part*"))
    checkpoint = home / "checkpoint.safetensors"
    assert checkpoint.read_bytes() == (run / "checkpoint.safetensors").read_bytes()
    model = load_model(home / "model")
    with safe_open(checkpoint, "pt") as file:
        for name, weight in model.named_parameters():
            average = file.get_tensor(f"average.{name}")
            torch.testing.assert_close(weight.detach(), average, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("model", "stage"), [("tiny", "tiny-6"), ("base", "base-3")])
def test_the_models_of_the_package_learn_on_from_a_pack(train, tmp_path, model, stage):
    """The commands of docs/training.md, with two iterations."""
    pack.main(["--data", str(train), "--out", str(tmp_path / "pack"), "--short-side", "48"])
    home = tmp_path / "home"
    arguments = ["--data", tmp_path / "pack", "--init", model, "--run", tmp_path / "run", "--out", home]
    more = ["--file", 500, "--room", 1, "--", "--stage", stage]
    small = settings(warmup=1, all_pixels_until=0, hardest_from=1, sources='["static", "clips"]')
    gpu_train.main([*map(str, [*arguments, *more]), *small, *FAST])
    learned, before = load_model(home / "model"), load_model(model)
    assert learned.config == before.config
    assert learned.state_dict().keys() == before.state_dict().keys()


def test_a_checkpoint_without_room_is_left_and_that_is_said(train, tmp_path, capsys):
    run, home = tmp_path / "run", tmp_path / "home"
    arguments = ["--data", train, "--init", "tiny", "--run", run, "--out", home, "--room", 30, "--"]
    gpu_train.main([*map(str, arguments), "--stage", "mini", *settings(iterations=1, decay_from=1), *FAST])
    assert "no room for checkpoint.safetensors: begin the next run from the model" in capsys.readouterr().out
    assert not (home / "checkpoint.safetensors").exists()
    load_model(home / "model")


def test_a_run_that_fails_takes_nothing_home(train, tmp_path):
    home = tmp_path / "home"
    arguments = ["--data", train, "--init", "tiny", "--run", tmp_path / "run", "--out", home, "--"]
    with pytest.raises(SystemExit) as ended:
        gpu_train.main([*map(str, arguments), "--stage", "none"])
    assert ended.value.code not in (0, None)
    assert not list(home.iterdir())


def test_a_command_is_stopped_after_its_time_and_killed_where_it_goes_on():
    ends = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); time.sleep(60)"
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    assert gpu_train.train_for(1.0, [sys.executable, "-c", ends]) in (143, -15)  # -15: before it listened
    assert gpu_train.train_for(60, [sys.executable, "-c", "raise SystemExit(3)"]) == 3
    with pytest.raises(TimeoutError, match=r"within 0\.2 s of SIGTERM"):
        gpu_train.train_for(3.0, [sys.executable, "-c", deaf], patience=0.2)


def test_parts_are_in_order_and_a_small_file_stays_whole(tmp_path):
    path = tmp_path / "x.safetensors"
    content = bytes(range(256)) * 10
    path.write_bytes(content)
    assert gpu_train.split(path, 2560) == [path]
    parts = gpu_train.split(path, 200)
    assert [part.name for part in parts] == [f"x.safetensors.part{i:02d}" for i in range(13)]
    assert not path.exists()
    assert gpu_train.join(tmp_path) == [path]
    assert path.read_bytes() == content


def test_what_is_missing_is_named(capsys):
    with pytest.raises(SystemExit):
        gpu_train.main(["--data", "x", "--run", "y"])
    assert "--init, --out missing" in capsys.readouterr().err
