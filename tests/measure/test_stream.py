from __future__ import annotations

import json

import stream


def test_the_windows_of_a_stream_are_printed_and_compared(tmp_path, capsys):
    options = ["--frames", "12", "--windows", "3", "--every", "2", "--height", "32", "--width", "48"]
    stream.main([*options, "--max-frames", "2", "--json", str(tmp_path / "x.json")])
    windows = json.loads((tmp_path / "x.json").read_text())["windows"]
    assert [(row["first"], row["last"]) for row in windows] == [(1, 4), (5, 8), (9, 12)]
    assert windows[1]["bank_mb"] == windows[2]["bank_mb"] > 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("|") for line in lines[3:6]] == [6, 6, 6]
    assert lines[6].startswith("the last against the second: memory_mb ")
