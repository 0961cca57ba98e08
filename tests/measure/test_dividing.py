from __future__ import annotations

import json

import dividing


def test_a_bank_for_each_object_takes_more_memory_but_shares_the_keys(tmp_path, capsys):
    options = ["--objects", "2", "--height", "32", "--width", "48", "--memory-frames", "2", "--repeats", "2"]
    dividing.main([*options, "--json", str(tmp_path / "x.json")])
    (row,) = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert row["one_mb"] < row["each_mb"] < 1.2 * row["one_mb"]
    assert row["clone"] >= 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("| 2 | ")
