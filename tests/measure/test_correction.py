from __future__ import annotations

import pytest

import correction


def test_corrections_are_measured(drifting, tmp_path, capsys):
    options = ["--data", str(drifting), "--size", "48"]
    correction.main([*options, "--json", str(tmp_path / "c.json")])
    assert "| one |" in capsys.readouterr().out


def test_a_clip_too_short_to_score_a_correction_is_told(drifting):
    with pytest.raises(ValueError, match="one shows its object in no frame with 20 behind it"):
        correction.main(["--data", str(drifting), "--size", "48", "--frames", "21"])
