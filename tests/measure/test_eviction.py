from __future__ import annotations

import json

import torch

import eviction
from emavos.models import PRESETS, STCN
from trees import davis_tree


def test_every_eviction_is_scored_beside_a_memory_without_bound(tmp_path, capsys):
    data = davis_tree(tmp_path / "clips", {"one": 4})
    files = ["--json", str(tmp_path / "x.json")]
    eviction.main(["--data", str(data), "--bounds", "2", "--passes", "3", "--size", "48", *files])
    row = json.loads((tmp_path / "x.json").read_text())["one"]
    assert list(row["all"]) == ["unbounded", "2 oldest", "2 least-used", "2 consolidate"]
    assert all(0 < value <= 1 for value in row["all"].values())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| one", "| one", "| mean", "| mean"]


def test_a_clip_played_there_and_back_doubles_no_end():
    assert eviction.there_and_back(3, 4) == [0, 1, 2, 1, 0, 1, 2, 1, 0]
    assert eviction.there_and_back(1, 4) == [0]


def test_a_frame_that_comes_again_is_encoded_once():
    model = eviction.EncodesOnce(STCN(PRESETS["stcn-tiny"]).eval())
    frame = torch.rand(1, 3, 32, 48)
    assert model.encode_key(frame) is model.encode_key(frame.clone())
    assert model.encode_key(frame) is not model.encode_key(frame + 1)
