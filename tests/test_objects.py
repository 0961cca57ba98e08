from __future__ import annotations

import numpy as np
import pytest
import torch

from emavos import MemoryPolicy, Session
from emavos.models import STCN
from emavos.session import frame as current_frame
from emavos.weights import load_model
from objects import grid


@pytest.fixture(scope="module")
def model():
    return load_model()


FRAMES = np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8)


def run(model, mask, frames=FRAMES):
    video = Session(model, MemoryPolicy(every=1), size=None)
    return [video.step(frame, mask if number == 0 else None) for number, frame in enumerate(frames)]


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_objects_in_chunks_get_what_they_get_together(model, monkeypatch, at_once):
    together = run(model, grid(5, 64, 96))
    monkeypatch.setattr(current_frame, "OBJECTS_AT_ONCE", at_once)
    for one, other in zip(run(model, grid(5, 64, 96)), together, strict=True):
        torch.testing.assert_close(one.prob, other.prob, atol=1e-5, rtol=1e-4)
        assert np.array_equal(one.mask, other.mask)


def test_no_more_objects_than_a_chunk_go_through_the_network_at_once(model, monkeypatch):
    seen = []
    for name, shape in (("encode_value", 2), ("decode", 0)):
        plain = getattr(STCN, name)

        def watched(self, *args, plain=plain, shape=shape):
            seen.append(args[shape].shape[1])
            return plain(self, *args)

        monkeypatch.setattr(STCN, name, watched)
    run(model, grid(20, 64, 96), FRAMES[:2])
    assert max(seen) == current_frame.OBJECTS_AT_ONCE
    assert sum(seen) == 3 * 20  # values of both frames, and the second decoded


def test_two_hundred_objects_are_followed_from_one_mask(model):
    mask = grid(200, 64, 96)
    first, second = run(model, mask, FRAMES[:2])
    assert np.array_equal(first.mask, mask)
    assert second.ids == tuple(range(1, 201))
    torch.testing.assert_close(second.prob.sum(dim=0), torch.ones(64, 96))


def test_two_hundred_objects_may_come_in_any_order_with_any_ids(model):
    video = Session(model, size=None)
    ids = [int(i) for i in np.random.default_rng(1).permutation(np.arange(-100, 400, 2)) if i][:200]
    mask = grid(200, 64, 96)
    video.step(FRAMES[0], np.where(mask <= 120, np.array([0, *ids])[mask], 0))
    video.step(FRAMES[1])
    video.add({id: mask == number for number, id in enumerate(ids[120:], 121)})
    assert sorted(video.ids) == sorted(ids)
    video.remove(ids[::2])
    assert set(video.step(FRAMES[2]).ids) == set(ids[1::2])
