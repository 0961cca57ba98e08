from __future__ import annotations

import json

import pytest
from PIL import Image

import annotator


def test_annotators_are_measured_drawn_and_merged(drifting, tmp_path, capsys):
    options = ["--data", str(drifting), "--size", "48"]
    files = ["--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.png")]
    annotator.main([*options, "--frames", "6", "--rounds", "2", *files])
    rows = json.loads((tmp_path / "a.json").read_text())["one"]
    assert set(rows) == set(annotator.CHOICES)
    assert all(len(line) == 3 and line[-1] >= line[0] - 0.05 for line in rows.values())
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (640, 400)
    annotator.main([*options, "--frames", "6", "--rounds", "2", "--merge", str(tmp_path / "a.json")])
    assert "| oracle |" in capsys.readouterr().out


def test_more_rounds_than_frames_are_told(drifting):
    with pytest.raises(ValueError, match="one has 3 frames to correct, too few for --rounds 4"):
        annotator.main(["--data", str(drifting), "--size", "48", "--frames", "4"])
