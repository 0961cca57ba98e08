from __future__ import annotations

import json

import pytest
import torch

import cuts
from emavos.memory import MemoryPolicy
from trees import davis_tree


def test_cuts_are_measured_on_splices_and_whole_clips(tmp_path, capsys):
    davis_tree(tmp_path / "clips", {"one": 8, "two": 7}, size=(48, 64))
    options = ["--size", "48", "64", "--before", "6", "--after", "1", "--keys", str(tmp_path / "keys")]
    said = []
    for _ in range(2):  # the second time with the keys of the first
        cuts.main(["--data", str(tmp_path), *options, "--json", str(tmp_path / "x.json")])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    figures = json.loads((tmp_path / "x.json").read_text())
    assert (figures["clips"], figures["uncut_frames"], figures["splices"]) == (2, 13, 2)
    assert [row["threshold"] for row in figures["rows"]] == [*cuts.THRESHOLDS]
    assert all(0 <= row[name] <= 1 for row in figures["rows"] for name in ("recall", "precision"))
    with pytest.raises(SystemExit):
        cuts.main(["--data", str(tmp_path / "clips")])
    assert "has no folder clips/" in capsys.readouterr().err


def test_a_frame_that_was_seen_is_known_and_another_is_not():
    g = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 64, 4, 6, generator=g)
    keys = torch.stack([one, one, other, one, other, other])
    assert cuts.unmatched(keys, MemoryPolicy()) == [0, 1, 0, 1, 1]  # frames 0 and 5 are stored
    figures = cuts.measure([torch.stack([one] * 6), torch.stack([other] * 6)], before=3, after=2)
    assert all(row["recall"] == row["precision"] == 1 for row in figures["rows"])
    assert all(row["alarms"] == 0 for row in figures["rows"])
