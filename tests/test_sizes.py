"""Frames and objects of any size: what a session promises of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emavos import MemoryPolicy, Session
from emavos.evaluation import region_similarity
from emavos.frames.preprocess import resize, working_size
from emavos.weights import load_model


@pytest.fixture(scope="module")
def model():
    return load_model()


def scene(height, width, box, frames=3):
    """A red box (top, left, height, width) that stands before soft gray, and its mask."""
    y, x = np.mgrid[0:height, 0:width]
    gray = 110 + 30 * np.sin(y / height * 7) * np.cos(x / width * 5)
    picture = np.repeat(gray[..., None], 3, axis=2).astype(np.uint8)
    top, left, tall, wide = box
    mask = np.zeros((height, width), np.int32)
    mask[top : top + tall, left : left + wide] = 7
    picture[mask == 7] = (220, 40, 30)
    return [picture] * frames, mask


def run(model, frames, mask, size, policy=None):
    session = Session(model, policy, size)
    results = [session.step(frame, mask if number == 0 else None) for number, frame in enumerate(frames)]
    return session, results


@pytest.mark.parametrize(
    ("height", "width", "size", "working"),
    [
        (2160, 3840, 96, (96, 171)),  # 4K
        (3840, 2160, 96, (171, 96)),  # and upright
        (160, 90, 96, (171, 96)),
        (32, 32, 96, (96, 96)),
        (32, 32, None, (32, 32)),
        (1, 1, 96, (96, 96)),
    ],
)
def test_results_have_the_size_of_any_frame_and_what_was_given_comes_back(
    model, height, width, size, working
):
    assert working_size(height, width, size) == working
    box = (height // 3, width // 3, max(height // 3, 1), max(width // 3, 1))
    frames, mask = scene(height, width, box, frames=2)
    _, results = run(model, frames, mask, size)
    assert np.array_equal(results[0].mask, mask)
    for result in results:
        assert result.ids == (7,)
        assert result.mask.shape == (height, width)
        assert result.prob.isfinite().all()


def test_one_pixel_does_not_vanish_where_its_frame_shrinks():
    for place in ((0, 0), (1000, 2001), (2159, 3839)):
        plane = torch.zeros(1, 2160, 3840)
        plane[0][place] = 1
        small = resize(plane, (480, 853))
        share = 480 * 853 / (2160 * 3840)  # of a pixel, that one of the source covers
        assert share / 4 < small.sum() < 2 * share  # by the border it counts for less


@pytest.mark.parametrize("size", [None, 32, 128])
def test_an_object_of_one_pixel_is_followed_or_lost_and_nothing_else(model, size):
    frames, mask = scene(64, 96, (30, 50, 1, 1), frames=7)
    session, results = run(model, frames, mask, size)
    assert np.array_equal(results[0].mask, mask)
    for result in results:
        assert result.ids == (7,)
        assert result.prob.isfinite().all()
        assert (result.mask == 7).sum() < 64  # of 6144: it does not spread over the frame
    assert session.correct({7: mask}).mask[30, 50] == 7  # and can be corrected whether lost or not


def test_an_object_smaller_than_a_cell_is_found_where_its_frame_is_enlarged(model):
    frames, mask = scene(64, 96, (22, 51, 7, 7))
    found = {size: run(model, frames, mask, size)[1][-1].mask == 7 for size in (None, 256)}
    assert region_similarity(found[256], mask == 7) > 0.6
    assert region_similarity(found[256], mask == 7) >= region_similarity(found[None], mask == 7)


def test_objects_by_the_border_and_in_the_corners_are_followed(model):
    for box in ((0, 0, 24, 24), (40, 72, 24, 24), (0, 30, 20, 30)):
        frames, mask = scene(64, 96, box)
        _, results = run(model, frames, mask, 128)
        assert region_similarity(results[-1].mask == 7, mask == 7) > 0.8


def test_a_bound_in_cells_holds_the_same_memory_at_any_size(model):
    policy = MemoryPolicy(every=1, max_cells=96)
    held = {}
    for height, width in ((32, 48), (64, 96)):  # 6 and 24 cells
        frames, mask = scene(height, width, (8, 8, 16, 16), frames=20)
        session, _ = run(model, frames, mask, None, policy)
        held[height] = session.nbytes
        assert [len(group.bank) for group in session.groups] == [96 // (height * width // 256)]
    assert held[32] == held[64]
