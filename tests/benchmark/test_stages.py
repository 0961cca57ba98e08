from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from emavos.benchmark import stages
from emavos.benchmark.stages import measure
from emavos.cli import main
from emavos.models import PRESETS, STCN, folded


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_timed_is_the_network_of_a_predictor(monkeypatch, dtype):
    seen, encode = [], STCN.encode_key

    def encode_key(self, frame):
        seen.append(self)
        return encode(self, frame)

    monkeypatch.setattr(STCN, "encode_key", encode_key)
    monkeypatch.setattr(
        stages, "gflop", lambda *_, **__: dict.fromkeys(("encode_key", "decode", "encode_value"), 1.0)
    )
    measure("stcn-tiny", height=32, width=48, memory_frames=2, repeats=1, dtype=dtype)
    plain = STCN(PRESETS["stcn-tiny"])
    expected = {name: x.dtype for name, x in folded(plain, dtype).state_dict().items()}
    assert expected.keys() != plain.state_dict().keys()
    for network in seen:
        assert {name: x.dtype for name, x in network.state_dict().items()} == expected


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--frame", "480"], "'480' is not a height and a width"),
        (["--frame", "8x64"], "16 or more"),
        (["--model", "nobody"], "--model is one of stcn,"),
        (["--device", "cpu", "--dtype", "float16"], "float16 is no type for a CPU"),
    ],
)
def test_what_cannot_be_measured_is_told(options, told, capsys):
    assert main(["bench", *options]) in (1, 2)
    assert told in capsys.readouterr().err
