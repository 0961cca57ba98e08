from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from emavos.benchmark import stages
from emavos.benchmark.stages import measure
from emavos.cli import main
from emavos.memory import MemoryBank
from emavos.models import PRESETS, STCN
from emavos.predictor import Predictor
from emavos.session import Session


def test_the_benchmark_prints_writes_and_draws_its_figures(tmp_path, capsys):
    files = ["--json", str(tmp_path / "x.json"), "--plot", str(tmp_path / "x.png")]
    options = ["--frame", "48x64", "--objects", "1", "2", "--memory-frames", "3", "--repeats", "1"]
    assert main(["bench", "--model", "stcn-tiny", *options, "--device", "cpu", *files]) == 0
    figures = json.loads((tmp_path / "x.json").read_text())
    assert [timing["objects"] for timing in figures["timings"]] == [1, 2]
    for timing in figures["timings"]:
        assert timing["parameters"] == sum(p.numel() for p in STCN(PRESETS["stcn-tiny"]).parameters())
        assert (timing["height"], timing["width"], timing["memory_frames"]) == (48, 64, 3)
        for name in ("encode_key", "read", "decode", "encode_value", "stages_fps", "session_fps", "peak_mb"):
            assert timing[name] > 0
        share = timing["gflops"] / figures["gflops"]["conv"]
        assert timing["of_convolution"] == pytest.approx(share)
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(figures["machine"])
    assert {line.count("|") for line in out[3:]} == {14}
    assert all(float(cell) > 0 for line in out[5:] for cell in line.split(" | ")[4:8])
    assert len(out) == 3 + 2 + 2
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (760, 400)


def test_stages_and_steps_read_as_many_frames_as_is_told(monkeypatch):
    held, read = [], MemoryBank.read

    def counted(bank, *given):
        held.append((bank.policy.max_frames, len(bank)))
        return read(bank, *given)

    monkeypatch.setattr(MemoryBank, "read", counted)
    measure("stcn-tiny", height=48, width=64, memory_frames=7, repeats=2)
    assert {*held} == {(7, 7), (1, 1)}  # the latter to count operations
    assert held.count((7, 7)) >= 1 + 3 + 5  # to make a readout, to time it, in steps


def test_the_network_that_is_timed_is_the_one_that_a_predictor_computes_with(monkeypatch):
    timed = []
    monkeypatch.setattr(
        stages, "Session", lambda model, *given, **more: timed.append(model) or Session(model, *given, **more)
    )
    measure("stcn-tiny", height=48, width=64, memory_frames=2, repeats=1, dtype=torch.bfloat16)
    predictor = Predictor(STCN(PRESETS["stcn-tiny"]), dtype=torch.bfloat16)
    kinds = [{name: x.dtype for name, x in model.named_parameters()} for model in (*timed, predictor.network)]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frame", "480"], "'480' is not a height and a width"),
        (["--frame", "8x64"], "16 or more"),
        (["--model", "nobody"], "--model is one of stcn,"),
        (["--device", "cpu", "--dtype", "float16"], "a CPU cannot compute in float16"),
    ],
)
def test_what_cannot_be_measured_is_told(options, message, capsys):
    assert main(["bench", *options]) in (1, 2)
    assert message in capsys.readouterr().err
