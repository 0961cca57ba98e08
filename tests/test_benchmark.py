from __future__ import annotations

import json

from emavos.benchmark import main
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
