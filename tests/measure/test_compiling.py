from __future__ import annotations

import json
import os
import shutil

import pytest

import compiling


@pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="there is no C++ compiler here"
)
def test_a_part_is_measured_as_it_is_and_compiled(tmp_path, monkeypatch, capsys):
    folders = []

    def here(threads, *arguments):  # in this process: a new one would load torch again
        folders.append(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        return compiling._measure(*arguments)

    monkeypatch.setattr(compiling, "_apart", here)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    file = tmp_path / "x.json"
    size = ["--height", "32", "--width", "48", "--repeats", "2"]
    options = ["--model", "tiny", "--dtype", "float32", "--part", "decode", "--objects", "2"]
    compiling.main([*options, *size, "--json", str(file)])
    (row,) = json.loads(file.read_text())["rows"]
    assert (row["model"], row["part"], row["dtype"], row["objects"]) == ("tiny", "decode", "float32", 2)
    assert row["first"] > row["again"] > 0  # the second time dynamo knows the function
    assert row["difference"] < 1e-5
    assert row["ms"] > 0 < row["compiled_ms"]
    assert len({*folders}) == 1
    assert folders[0] != str(tmp_path)  # an empty one
    assert not os.path.exists(folders[0])
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
    assert {line.count("|") for line in capsys.readouterr().out.splitlines()[2:]} == {11}
