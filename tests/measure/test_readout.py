from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

import readout
from emavos.memory import topk_readout
from emavos.weights import load_model


def test_the_cost_of_a_readout_is_printed_written_and_drawn(tmp_path, capsys):
    files = ["--json", str(tmp_path / "x.json"), "--plot", str(tmp_path / "x.png")]
    options = [
        "--objects",
        "2x8",
        "--frames",
        "1",
        "3",
        "--cells",
        "40",
        "--dense-up-to",
        "1",
        "--repeats",
        "1",
    ]
    readout.main([*options, *files])
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [row["frames"] for row in rows] == [1, 3]
    assert all(row["auto_ms"] > 0 for row in rows)
    assert ["reference_ms" in row for row in rows] == [True, False]
    assert rows[0]["difference"] <= 1e-5
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("|") for line in lines[2:]] == [8, 8, 8, 8]
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (640, 800)


def test_the_reference_of_the_benchmark_is_the_definition():
    g = torch.Generator().manual_seed(0)
    query, keys = torch.randn(4, 7, generator=g), torch.randn(50, 4, generator=g)
    values = torch.randn(50, 2, 3, generator=g)
    expected = topk_readout(query, keys, values, 9, "dense")
    found = readout.reference_method(query, keys.T, values.permute(1, 2, 0), 9)
    torch.testing.assert_close(found, expected)


def test_objects_that_are_no_numbers_are_refused(capsys):
    with pytest.raises(SystemExit):
        readout.main(["--objects", "3"])
    assert "like 3x512, not '3'" in capsys.readouterr().err


def test_a_readout_is_measured_on_the_keys_of_a_clip_too(monkeypatch):
    monkeypatch.setattr(readout, "_DISTINCT", 1)
    row = readout.measure(2, 1, 4, keys_of="clip", repeats=1)
    assert row["difference"] <= 1e-3  # similarities are differences of large numbers
    keys, query = readout.clip_keys(2)
    channels = load_model().config.key_channels
    assert keys.shape == (2 * readout.CELLS, channels)
    assert query.shape == (channels, readout.CELLS)
    assert 0 < (keys[: readout.CELLS] - keys[readout.CELLS :]).std() < 0.2
    with pytest.raises(SystemExit):
        readout.main(["--keys", "clip", "--cells", "40"])
