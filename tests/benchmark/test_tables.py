from __future__ import annotations

from emavos.benchmark import tables
from emavos.cli import main


def test_the_tables_are_made_of_what_the_commands_print(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "TABLES", [("Attention", ("emavos.benchmark.attention", "--sides", "2"))])
    file = tmp_path / "tables.md"
    assert main(["bench", "--threads", "1", "--tables", str(file)]) == 0
    text = file.read_text()
    assert "## Attention\n\n```\npython -m emavos.benchmark.attention --sides 2 --threads 1\n```" in text
    assert "| float16 | fused |" in text.replace("| 10 ", "").replace("| 100 ", "")
    monkeypatch.setattr(tables, "TABLES", [("None", ("emavos.benchmark.attention", "--no-such"))])
    assert main(["bench", "--tables", str(tmp_path / "none.md")]) == 1
    assert "unrecognized arguments: --no-such" in capsys.readouterr().err
    assert not (tmp_path / "none.md").exists()
