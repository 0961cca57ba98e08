from __future__ import annotations

import json

import groups


def test_objects_that_begin_on_different_frames_store_each_key_once(tmp_path, capsys):
    options = ["--objects", "2", "--groups", "1", "2", "--frames", "3", "--height", "3", "--width", "4"]
    options += ["--backends", "blocks", "--repeats", "1", "--json", str(tmp_path / "x.json")]
    groups.main(options)
    one, two = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert one["together_mb"] == one["apart_mb"] == two["together_mb"]
    assert two["apart_mb"] > 1.5 * two["together_mb"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("| blocks | 2 | ")
