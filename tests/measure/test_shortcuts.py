from __future__ import annotations

import pytest

import shortcuts


@pytest.mark.parametrize("objects", [1, 3])
def test_stages_are_timed_whole_and_near_objects(capsys, monkeypatch, objects):
    monkeypatch.setattr(shortcuts, "keep_freed_memory", lambda: None)  # a setting of the whole process
    size = ["--height", "96", "--width", "160", "--memory-frames", "2", "--repeats", "1"]
    shortcuts.main(["--model", "stcn-tiny", *size, "--objects", str(objects), "--dtype", "bfloat16"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "stcn-tiny, bfloat16, 96x160"
    assert len(lines[3].split()) == 6
    assert [line.split(":")[0] for line in lines[4:]] == ["whole", "decode near", "both near"]
