from __future__ import annotations

import json

import direction


def test_directions_are_measured(drifting, tmp_path):
    options = ["--data", str(drifting), "--size", "48"]
    direction.main([*options, "--frames", "6", "--json", str(tmp_path / "d.json")])
    assert set(json.loads((tmp_path / "d.json").read_text())["one"]) == set(direction.METHODS)


def test_a_clip_without_a_frame_between_is_left_out(drifting, capsys):
    direction.main(["--data", str(drifting), "--size", "48", "--frames", "2"])
    out = capsys.readouterr().out
    assert "| one | no frame lies between its first and its last |" in out
    assert "nan" not in out
