from __future__ import annotations

import numpy as np

import sequences


def test_a_window_leaves_the_object_and_comes_back():
    truths = [np.zeros((40, 100), np.int32) for _ in range(30)]
    for truth in truths:
        truth[10:20, 10:20] = 1
    frames = [np.repeat(truth[..., None] * 200, 3, axis=2).astype(np.uint8) for truth in truths]
    clip = sequences.leaving(sequences.Clip("x", frames, truths))
    there = [bool(truth.any()) for truth in clip.truths]
    assert there[:10] == [True] * 10
    assert there[20:25] == [False] * 5
    assert there[-1]
    for frame, truth in zip(clip.frames, clip.truths, strict=True):
        assert np.array_equal(frame[..., 0] > 0, truth > 0)
