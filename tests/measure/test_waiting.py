from __future__ import annotations

import json
import shutil

import pytest

import waiting


def test_each_wait_of_a_person_at_the_page_is_measured(tmp_path, capsys):
    for package in ("selenium", "av", "uvicorn"):
        pytest.importorskip(package)
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("there is no chromium with chromedriver")
    small = ["--frame", "96x160", "--repeats", "1", "--size", "96", "--pause", "0.5"]
    waiting.main([*small, "--json", str(tmp_path / "x.json")])
    (waits,) = json.loads((tmp_path / "x.json").read_text())["ms"].values()
    assert {name: len(ms) for name, ms in waits.items() if name != "move"} == {
        "first": 1,
        "again": 1,
        "click": 1,
        "up": 3,
        "keep": 1,
        "jump": 3,
        "keep and jump": 1,
    }
    assert waits["move"]  # the browser joins moves that come close together
    assert all(ms > 0 for each in waits.values() for ms in each)
    assert [line.count("|") for line in capsys.readouterr().out.splitlines()[2:]] == [3] * 10


def test_a_browser_that_is_not_there_is_named(tmp_path, monkeypatch):
    pytest.importorskip("selenium")
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(RuntimeError, match="no chromium with chromedriver"),
        waiting.browser_at(tmp_path / "work"),
    ):
        pass
