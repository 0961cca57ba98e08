from __future__ import annotations

import numpy as np
import pytest

import jumps
import suite
from emavos import Predictor
from emavos.demo import synthetic_clip


def test_frames_after_the_jump_are_scored_against_mirrored_masks():
    frame = np.full((64, 96, 3), 90, np.uint8)
    frame[20:44, 12:36] = (220, 40, 60)
    mask = np.zeros((64, 96), np.int32)
    mask[20:44, 12:36] = 3
    predictor = Predictor.from_pretrained(device="cpu", size=None).with_settings(locality=False)
    scores = jumps.after_jump(predictor, [frame] * 16, [mask] * 16)
    assert len(scores) == len(jumps.SCORED)
    assert min(scores) > 0.8


def test_the_table_has_a_line_for_each_clip_and_a_mean(tmp_path, capsys, monkeypatch):
    clips = dict.fromkeys(["one", "two"], "single")
    for seed, name in enumerate(clips):
        frames, masks = synthetic_clip(frames=16, size=(48, 80), seed=seed)
        suite.write_clip(tmp_path, name, lambda pair=(frames, masks): zip(*pair, strict=True))
    monkeypatch.setattr(suite, "make_clips", lambda data, cache, groups: clips)
    monkeypatch.setattr(suite, "SIZE", 48)
    jumps.main(["--data", "data", "--model", "tiny", "--cache", str(tmp_path)])
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in lines[2:]] == ["one", "two", "mean"]
    one, two, mean = ([float(value.strip(" |")) for value in line[2:]] for line in lines[2:])
    assert np.allclose(np.mean([one, two], axis=0), mean, atol=1e-3)


def test_data_that_is_missing_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        jumps.main(["--data", str(tmp_path / "x"), "--model", "tiny", "--cache", str(tmp_path / "clips")])
    assert str(tmp_path / "x") in capsys.readouterr().err
