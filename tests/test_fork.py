"""A forked process computes: what a pool of multiprocessing does on Linux up to Python 3.13."""

from __future__ import annotations

import gc
import multiprocessing
import sys

import numpy as np
import pytest

from emavos import Predictor
from emavos.io import open_frames, write_video


def follow(predictor):
    frame = np.full((32, 48, 3), 90, np.uint8)
    frame[8:24, 8:24] = 220, 40, 30
    return [
        int((result.mask > 0).sum()) for result in predictor.propagate([frame, frame], frame[..., 0] > 100)
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("used", [False, True])
def test_a_forked_pool_follows_with_a_predictor_of_its_parent(used):
    predictor = Predictor.from_pretrained(size=32)
    expected = follow(predictor) if used else None
    with multiprocessing.get_context("fork").Pool(1) as pool:
        areas = pool.apply_async(follow, (predictor,)).get(120)
    assert areas[0] == 256
    assert expected is None or areas == expected


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_the_threads_of_a_video_that_its_parent_read(tmp_path):
    pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", [np.full((48, 64, 3), 30 * i, np.uint8) for i in range(5)], 5)
    gc.disable()  # the decoder is garbage, and its threads wait, when the process forks
    try:
        assert len([*open_frames(tmp_path / "a.mp4")]) == 5
        child = multiprocessing.get_context("fork").Process(target=gc.collect)
        child.start()
    finally:
        gc.enable()
    child.join(60)
    hangs = child.is_alive()
    child.kill()
    assert not hangs
    assert len([*open_frames(tmp_path / "a.mp4")]) == 5
