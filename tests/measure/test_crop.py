from __future__ import annotations

import json

import crop
from trees import davis_tree


def test_a_window_is_scored_beside_whole_frames(tmp_path, capsys):
    data = davis_tree(tmp_path / "clips", {"one": 3})
    files = ["--json", str(tmp_path / "x.json")]
    crop.main(["--data", str(data), "--scaled", "48", "--size", "32", *files])
    row = json.loads((tmp_path / "x.json").read_text())["one"]
    assert list(row) == ["enlarged", "whole at 32", "whole at 64", "window at 32"]
    assert row["enlarged"] >= 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("| mean | | ")
