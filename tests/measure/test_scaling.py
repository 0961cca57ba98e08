from __future__ import annotations

import json

import pytest

import scaling


def test_ways_are_compared_with_the_first_in_each_round():
    times = {"1": [(4.0, 4.0), (8.0, 4.0), (4.0, 4.0)], "2": [(2.0, 6.0), (4.0, 6.0), (4.0, 4.0)]}
    one, two = scaling.rows_of(times, frames=8)
    assert (one["fps"], one["faster"], one["cpu"]) == (2.0, 1.0, 1.0)
    assert (two["fps"], two["faster"], two["cpu"]) == (2.0, 2.0, 1.5)


def test_streams_are_timed_with_each_number_of_threads(tmp_path, capsys):
    options = ["--threads", "1", "2", "--ways", "--videos", "1", "--frames", "2", "--size", "32"]
    scaling.main([*options, "--rounds", "1", "--json", str(tmp_path / "x.json")])
    found = json.loads((tmp_path / "x.json").read_text())
    assert [row["way"] for row in found["stream, threads"]] == ["1", "2"]
    assert "| stream, threads | 1 | " in capsys.readouterr().out


@pytest.mark.slow
def test_a_batch_is_timed_as_shards(tmp_path):
    options = ["--threads", "--ways", "2x1", "--videos", "2", "--frames", "2", "--size", "32"]
    scaling.main([*options, "--rounds", "1", "--json", str(tmp_path / "x.json")])
    (row,) = json.loads((tmp_path / "x.json").read_text())["batch, processes x threads"]
    assert row["fps"] > 0
    assert row["faster"] == 1
