from __future__ import annotations

import json
from dataclasses import astuple

import numpy as np
import pytest

import where_lost
from emavos import Predictor
from emavos.demo import synthetic_clip
from trees import davis_tree


def test_a_coarser_map_loses_more_and_a_map_of_pixels_nothing():
    mask = synthetic_clip(frames=1, size=(96, 128))[1][0]
    ids = [1, 2, 3]
    found = [where_lost.coarse(mask, ids, stride, None) for stride in (1, 2, 4, 16)]
    wrong = [np.count_nonzero(one != mask) for one in found]
    assert wrong[0] == 0
    assert wrong == sorted(wrong)
    assert wrong[-1] > wrong[1] > 0


def test_an_id_that_is_not_followed_is_background_in_a_ceiling():
    mask = np.zeros((32, 32), np.int32)
    mask[:16], mask[16:] = 7, 9
    assert np.unique(where_lost.coarse(mask, [9], 4, None)).tolist() == [0, 9]


def test_truth_in_memory_and_drawing_lose_less_than_tracking_a_wrong_start():
    frames, truth = synthetic_clip(frames=12, size=(96, 128))
    wrong = [np.roll(truth[0], 24, axis=1), *truth[1:]]
    losses = where_lost.where_lost(Predictor.from_pretrained(device="cpu", size=None), frames, wrong, step=3)
    assert losses.memory > losses.tracked
    assert losses.drawing > losses.memory
    assert losses.stride_2 > losses.stride_4
    assert all(0 <= value <= 1 for value in astuple(losses))


def test_a_clip_without_object_or_second_frame_is_refused():
    frames, truth = synthetic_clip(frames=2, size=(48, 64))
    predictor = Predictor.from_pretrained(device="cpu", size=None)
    for clip in ((frames[:1], truth[:1]), (frames, [np.zeros_like(truth[0]), truth[1]])):
        with pytest.raises(ValueError, match="an object in its first mask and two frames or more"):
            where_lost.where_lost(predictor, *clip)


def test_the_command_prints_every_clip_and_their_mean(tmp_path, capsys):
    data = davis_tree(tmp_path / "data", {"one": 3, "two": 3}, size=(48, 64))
    out = tmp_path / "lost.json"
    where_lost.main(["--data", str(data), "--size", "48", "--step", "1", "--out", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["J", "one", "two", "mean"]
    found = json.loads(out.read_text())
    assert [len(losses) for losses in found.values()] == [5, 5]
    where_lost.main(["--data", str(data), "--size", "48", "--clip", "two"])
    assert "one" not in capsys.readouterr().out
