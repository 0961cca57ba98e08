from __future__ import annotations

import json

from emavos.benchmark import attention
from emavos.benchmark.stages import main
from emavos.models import PRESETS, STCN


def test_the_benchmark_prints_and_writes_its_figures(tmp_path, capsys):
    options = ["--height", "48", "--width", "64", "--objects", "2", "--memory-frames", "3", "--repeats", "1"]
    main(["--model", "stcn-tiny", *options, "--json", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())
    (timing,) = figures["timings"]
    assert timing["parameters"] == sum(p.numel() for p in STCN(PRESETS["stcn-tiny"]).parameters())
    assert (timing["height"], timing["width"], timing["objects"], timing["memory_frames"]) == (48, 64, 2, 3)
    for stage in ("encode_key", "read", "decode", "encode_value", "stages_fps", "session_fps", "peak_mb"):
        assert timing[stage] > 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == figures["machine"]
    assert lines[-1].startswith("stcn-tiny")
    assert len(lines) == 4


def test_the_cost_of_attention_is_printed_and_written_for_each_size(tmp_path, capsys):
    attention.main(
        ["--channels", "16", "--sides", "2", "4", "--repeats", "1", "--json", str(tmp_path / "x.json")]
    )
    rows = json.loads((tmp_path / "x.json").read_text())
    assert [row["positions"] for row in rows] == [4, 16]
    assert all(row["external"] > 0 and row["self"] > 0 for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == 4
