from __future__ import annotations

import numpy as np
import pytest

from emavos.demo import synthetic_clip


def test_a_clip_has_three_objects_and_their_masks():
    frames, masks = synthetic_clip(3, size=(60, 100))
    assert len(frames) == len(masks) == 3
    for frame, mask in zip(frames, masks, strict=True):
        assert frame.shape == (60, 100, 3)
        assert frame.dtype == np.uint8
        assert mask.shape == (60, 100)
        assert mask.dtype == np.int32
    assert np.unique(masks[0]).tolist() == [0, 1, 2, 3]


def test_equal_seeds_give_equal_clips_and_others_do_not():
    (a, truth_a), (b, truth_b), (c, _) = (synthetic_clip(2, size=(60, 100), seed=s) for s in (5, 5, 6))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(truth_a, truth_b)
    assert (a[0] != c[0]).any()


def test_objects_move_and_cover_one_another():
    _, masks = synthetic_clip(48, size=(48, 84))
    areas = np.array([[(mask == i).sum() for i in (1, 2, 3)] for mask in masks])
    assert (areas[0] > 20).all()
    assert (areas.min(axis=0)[:2] < 0.5 * areas[0, :2]).all()  # hidden behind what is above
    assert (masks[0] != masks[-1]).any()


def test_a_shorter_clip_shows_the_beginning():
    long, short = (synthetic_clip(n, size=(48, 84))[1] for n in (6, 3))
    np.testing.assert_array_equal(long[:3], short)


@pytest.mark.parametrize("size", [(16, 16), (31, 90), (90, 31)])
def test_a_clip_of_any_size_shows_all_objects_at_first(size):
    _, masks = synthetic_clip(1, size=size)
    assert np.unique(masks[0]).tolist() == [0, 1, 2, 3]


def test_a_clip_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        synthetic_clip(0)
    with pytest.raises(ValueError, match="16x16"):
        synthetic_clip(1, size=(8, 100))
