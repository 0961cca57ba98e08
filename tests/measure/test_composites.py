from __future__ import annotations

import numpy as np
import pytest

import composites
from emavos.data import Clips
from emavos.training.stages import DAVIS_HELD_OUT
from trees import davis_tree


def test_what_is_pasted_is_on_top_and_the_truth_says_so():
    ground, car = np.full((6, 9, 3), 10, np.uint8), np.full((6, 9, 3), 200, np.uint8)
    ids, mask = np.zeros((6, 9), np.int32), np.zeros((6, 9), np.int32)
    ids[1:5, 4:8], mask[1:5, 2:6] = 1, 1
    pixels, truth = composites.paste((ground, ids), (car, mask), shift=-1)
    assert (truth[1:5, 1:5] == 2).all()
    assert (truth[1:5, 5:8] == 1).all()
    assert not truth[0].any()
    assert not truth[:, 0].any()
    assert (pixels[2:4, 2:4] == 200).all()
    assert (pixels[truth != 2] == 10).all()


def test_an_object_moved_out_of_the_picture_is_not_in_the_truth():
    frame, mask = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.int32)
    mask[:, 3:] = 1
    _, truth = composites.paste((frame, np.zeros_like(mask)), (frame, mask), shift=1)
    assert (truth[:, 4] == 2).all()
    assert not truth[:, :4].any()


def test_composites_are_a_tree_of_clips_with_two_objects(tmp_path, capsys):
    data = davis_tree(tmp_path / "data", {"one": 4, "two": 3})
    composites.main(["--data", str(data), "--out", str(tmp_path / "out"), "--clips", "one", "two"])
    clips = Clips(tmp_path / "out")
    assert clips.names == ["one-twin", "one-with-two", "two-twin", "two-with-one"]
    assert [clips.length(i) for i in range(4)] == [4, 4, 3, 3]
    for video in range(4):
        assert set(clips.load(video, 0)[1].unique().tolist()) <= {0, 1, 2}
    assert len(capsys.readouterr().out.splitlines()) == 4
    with pytest.raises(SystemExit):
        composites.main(["--data", str(data), "--out", str(tmp_path / "out")])


def test_without_names_the_held_out_sequences_of_davis_are_composed(tmp_path, capsys):
    data = davis_tree(tmp_path / "data", dict.fromkeys(DAVIS_HELD_OUT, 1), size=(32, 48))
    composites.main(["--data", str(data), "--out", str(tmp_path / "out")])
    assert len(Clips(tmp_path / "out")) == 2 * len(DAVIS_HELD_OUT)
    assert len(capsys.readouterr().out.splitlines()) == 2 * len(DAVIS_HELD_OUT)
