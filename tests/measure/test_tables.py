from __future__ import annotations

import pytest

import tables


def test_the_tables_are_made_of_what_the_commands_print(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "TABLES", [("Attention", ("attention.py", "--sides", "2"))])
    file = tmp_path / "tables.md"
    tables.main([str(file), "--threads", "1"])
    text = file.read_text()
    command = "python docs/measure/speed/attention.py --sides 2 --threads 1"
    assert f"## Attention\n\n```\n{command}\n```" in text
    assert "| float16 | fused |" in text.replace("| 10 ", "").replace("| 100 ", "")
    monkeypatch.setattr(tables, "TABLES", [("None", ("attention.py", "--no-such"))])
    with pytest.raises(RuntimeError, match="unrecognized arguments: --no-such"):
        tables.main([str(tmp_path / "none.md")])
    assert not (tmp_path / "none.md").exists()
