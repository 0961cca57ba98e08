from __future__ import annotations

from emavos.benchmark import correction


def test_corrections_are_measured(drifting, tmp_path, capsys):
    options = ["--data", str(drifting), "--size", "48"]
    correction.main([*options, "--json", str(tmp_path / "c.json")])
    assert "| one |" in capsys.readouterr().out
