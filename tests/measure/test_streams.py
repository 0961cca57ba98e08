from __future__ import annotations

import json

import pytest

import streams


def test_whole_streams_are_timed_on_a_busy_machine_too(tmp_path, capsys):
    file = tmp_path / "x.json"
    methods = ["reference", "stcn:float32:blocks", "tiny:bfloat16:blocks"]
    options = ["--height", "64", "--width", "96", "--repeats", "2", "--threads", "1", "--json", str(file)]
    streams.main(["--streams", "7x1", "2x3", "--busy", "0", "1", "--methods", *methods, *options])
    rows = json.loads(file.read_text())["rows"]
    cases = [(row["others"], row["frames"], row["objects"]) for row in rows[::3]]
    assert cases == [(0, 7, 1), (1, 7, 1), (0, 2, 3)]
    assert [row["method"] for row in rows[:3]] == methods
    assert all(
        row["ms"] > 0 < row["cpu"] and ("ratio" in row) == row["method"].startswith("stcn") for row in rows
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 + 9
    assert {line.count("|") for line in lines[2:]} == {11}


def test_the_reference_plays_a_stream_as_ours_does(tmp_path):
    mask = streams._write_clip(tmp_path / "clip", 7, 3, (64, 96))
    ours = [*streams.player("stcn:float32:blocks")(tmp_path / "clip", mask)]
    theirs = [*streams.player("reference")(tmp_path / "clip", mask)]
    assert len(ours) == len(theirs) == 7
    assert all((a != b).mean() < 0.02 for a, b in zip(ours, theirs, strict=True))
    assert len({mask.tobytes() for mask in theirs}) > 1


@pytest.mark.parametrize(
    "wrong", [["--streams", "3x9"], ["--methods", "tiny"], ["--methods", "tiny:float16:native"]]
)
def test_what_is_no_stream_or_method_is_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        streams.main(wrong)
    assert f"not '{wrong[1]}'" in capsys.readouterr().err
