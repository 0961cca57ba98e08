"""A video on a GPU: `python -m pytest tests/cuda`, where torch finds one."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from emavos import MemoryPolicy, Predictor
from emavos.demo import synthetic_clip

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

DEVICE = "cuda"
FRAMES, TRUTHS = synthetic_clip(12)


def predictor(device=DEVICE, **settings) -> Predictor:
    return Predictor.from_pretrained(device=device, size=240, **settings)


def masks_of(predictor: Predictor) -> list[np.ndarray]:
    return [result.mask for result in predictor.propagate(FRAMES, TRUTHS[0])]


def agreement(some: list[np.ndarray], others: list[np.ndarray]) -> float:
    """The least IoU of an object's pixels in a frame."""
    return min(
        ((a == id) & (b == id)).sum() / max(((a == id) | (b == id)).sum(), 1)
        for a, b in zip(some, others, strict=True)
        for id in np.unique(TRUTHS[0])[1:]
    )


@pytest.fixture(scope="module")
def on_a_cpu() -> list[np.ndarray]:
    return masks_of(predictor("cpu"))


@pytest.mark.parametrize("backend", ["blocks", "triton", "auto"])
def test_masks_are_those_of_a_cpu(on_a_cpu, backend):
    assert agreement(masks_of(predictor(policy=MemoryPolicy(backend=backend))), on_a_cpu) > 0.98


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, "auto"])
def test_halves_give_nearly_the_masks_of_a_cpu(on_a_cpu, dtype):
    assert agreement(masks_of(predictor(dtype=dtype)), on_a_cpu) > 0.9


@pytest.mark.parametrize("eviction", ["oldest", "least-used", "consolidate"])
def test_a_memory_that_evicts_is_that_of_a_cpu(eviction):
    policy = MemoryPolicy(every=1, max_frames=3, eviction=eviction)
    there, here = (masks_of(predictor(device, policy=policy)) for device in (DEVICE, "cpu"))
    assert agreement(there, here) > 0.95


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # says once that it is a prototype
def test_a_frame_is_waited_for_once():
    session = predictor().session()
    session.step(FRAMES[0], TRUTHS[0])
    session.step(FRAMES[1])
    torch.cuda.set_sync_debug_mode("warn")
    try:
        for frame in FRAMES[2:]:
            with warnings.catch_warnings(record=True) as waits:
                warnings.simplefilter("always")
                session.step(frame)
            assert len(waits) == 1, [str(wait.message) for wait in waits]
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_video_on_another_stream_gets_the_same_masks():
    there = predictor()
    expected, stream = masks_of(there), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = masks_of(there)
    assert agreement(found, expected) > 0.999


def test_videos_on_streams_of_their_own_do_not_disturb_each_other():
    there = predictor()
    expected = masks_of(there)
    torch.cuda.synchronize()

    def one(_: int) -> list[np.ndarray]:
        with torch.cuda.stream(torch.cuda.Stream()):
            return masks_of(there)

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(one, range(8)):
            assert agreement(found, expected) > 0.999


def test_a_frame_that_its_owner_overwrites_was_taken_before():
    there, buffer = predictor(), np.empty_like(np.asarray(FRAMES[0]))

    def one_buffer():
        for frame in FRAMES:
            buffer[:] = np.asarray(frame)
            yield buffer

    found = [result.mask for result in there.propagate(one_buffer(), TRUTHS[0])]
    assert agreement(found, masks_of(there)) > 0.999


def test_edits_give_the_masks_of_a_cpu():
    found = []
    for device in (DEVICE, "cpu"):
        session = predictor(device).session()
        session.step(FRAMES[0], TRUTHS[0])
        session.step(FRAMES[1])
        session.correct({1: TRUTHS[1] == 1})
        session.remember(FRAMES[5], TRUTHS[5], 5)
        session.pin()
        found.append([session.step(frame).mask for frame in FRAMES[2:]])
    assert agreement(*found) > 0.95


def test_memory_stays_flat():
    session = predictor(policy=MemoryPolicy(every=1, max_frames=3)).session()
    session.step(FRAMES[0], TRUTHS[0])
    held = []
    for frame in [*FRAMES[1:]] * 6:
        session.step(frame)
        held.append(torch.cuda.memory_allocated())
    assert max(held[30:]) <= max(held[10:20])
