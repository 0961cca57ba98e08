from __future__ import annotations

import json

import files


def test_all_ways_to_the_files_are_measured(tmp_path, capsys):
    sizes = ["--frames", "3", "--height", "48", "--width", "64", "--size", "32", "--repeats", "1"]
    files.main([*sizes, "--json", str(tmp_path / "x.json")])
    ways = json.loads((tmp_path / "x.json").read_text())["ways"]
    assert all(way["seconds"] > 0 for way in ways.values())
    assert [line.count("|") for line in capsys.readouterr().out.splitlines()[2:]] == [5, 5, 5, 5, 5]
