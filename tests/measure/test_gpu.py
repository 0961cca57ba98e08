from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import gpu

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_one_command_leaves_figures_and_pictures_of_every_part(tmp_path):
    environment = os.environ | {"PYTHON": sys.executable, "TRITON_INTERPRET": "1", "OUT": str(tmp_path)}
    done = subprocess.run(
        [ROOT / ".ci/gpu", "--cpu", "--seconds", "3000"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "summary.json").read_text())["parts"]
    assert {name: part["ended"] for name, part in parts.items()} == dict.fromkeys(gpu.PARTS, "done")
    rows = {name: json.loads((tmp_path / f"{name}.json").read_text())["rows"] for name in gpu.PARTS}
    assert rows["tests"][0]["rc"] == 0
    assert [(row["objects"], row["frames"]) for row in rows["readout"]] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all(row["difference"] < 1e-4 and row["blocks_ms"] > 0 for row in rows["readout"])
    assert [row["objects"] for row in rows["speed"]] == [1, 2]
    assert all(row["fps"] > 0 for row in rows["speed"])
    if "triton_ms" in rows["readout"][0]:  # triton is installed
        assert rows["tiles"][-1]["entry"].startswith("None: Tiles(")
        assert all(row["difference"] < 1e-4 for row in rows["tiles"][:-1])
    for name in ("readout", "speed"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.width >= 640


def test_a_part_that_is_cut_or_fails_leaves_its_rows_and_says_why(tmp_path, monkeypatch):
    def half(size):
        yield {"x": 1}
        raise RuntimeError("the GPU fell off the bus")

    monkeypatch.setitem(gpu.PARTS, "speed", (half, 1))
    with pytest.raises(RuntimeError):
        gpu.run_part("speed", gpu.LITTLE, tmp_path)
    content = json.loads((tmp_path / "speed.json").read_text())
    assert content["rows"] == [{"x": 1}]
    assert content["state"] == "failed: RuntimeError: the GPU fell off the bus"
    assert gpu.run_apart("tests", tmp_path, 0.01, ["--cpu"]) == "cut after 0 s"


def test_no_part_runs_without_time_and_the_others_are_told(tmp_path, monkeypatch, capsys):
    ended = iter(["failed with 1: no", "done"])
    monkeypatch.setattr(gpu, "run_apart", lambda *arguments: next(ended))
    assert gpu.main([str(tmp_path), "--cpu", "--parts", "tests", "readout"]) == 1
    assert gpu.main([str(tmp_path), "--cpu", "--parts", "speed", "--seconds", "0"]) == 1
    assert "speed: no time was left" in capsys.readouterr().out


def test_a_folder_and_a_gpu_are_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OUT", raising=False)
    for argv, said in (([], "set OUT"), ([str(tmp_path)], "--cpu tries the script")):
        if argv and torch.cuda.is_available():
            continue
        with pytest.raises(SystemExit):
            gpu.main(argv)
        assert said in capsys.readouterr().err
