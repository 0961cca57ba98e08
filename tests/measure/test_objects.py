from __future__ import annotations

import json

import numpy as np
import pytest

import objects


def test_the_cost_of_objects_is_printed_and_written(tmp_path, capsys):
    options = ["--objects", "1", "3", "--height", "32", "--width", "48", "--memory-frames", "2"]
    objects.main([*options, "--json", str(tmp_path / "x.json")])
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [row["objects"] for row in rows] == [1, 3]
    assert rows[1]["bank_mb"] > rows[0]["bank_mb"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("| one more | ")


@pytest.mark.parametrize("number", [1, 2, 5, 16, 100, 200])
def test_a_grid_shows_each_of_its_objects(number):
    mask = objects.grid(number, 64, 96)
    assert mask.shape == (64, 96)
    assert set(np.unique(mask)) == set(range(number + 1))
