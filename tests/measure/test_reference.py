from __future__ import annotations

import json

import pytest

import reference


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


def test_shortcuts_are_measured_beside_the_references_method(tmp_path, capsys):
    options = ["--height", "96", "--width", "160", "--repeats", "1", "--threads", "1", "--near"]
    file = tmp_path / "x.json"
    reference.main(["--loads", "1x2", "--dtype", "bfloat16", *options, "--json", str(file)])
    (row,) = json.loads(file.read_text())["rows"]
    assert "differ" in row["bfloat16"]
    for name in ("bfloat16, decode_near", "bfloat16, encode_near too"):
        assert row["covered"] < row[name]["decoded"] < 1
        assert row[name]["ratio"] > 0
    assert {line.count("|") for line in capsys.readouterr().out.splitlines()[2:]} == {12}
