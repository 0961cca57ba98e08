"""What a step takes, counted: calls of the network and bytes of tensors. No machine changes it."""

from __future__ import annotations

import weakref
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from emavos import MemoryPolicy, Session
from emavos.memory import MemoryBank
from emavos.models import PRESETS, STCN

MB = 1 << 20
HEIGHT, WIDTH = 96, 160


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that were made under it and live, and the most there were."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {
            x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)
        }
        out = function(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if not isinstance(x, torch.Tensor):
                continue
            storage = x.untyped_storage()
            if storage._cdata in given or storage._cdata in self.known:
                continue
            self.known[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, storage._cdata)
        return out

    def _free(self, key):
        self.now -= self.known.pop(key)


def video(objects):
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.int32)
    for i in range(objects):
        mask[:, 40 * i : 40 * i + 30] = i + 1
    return frame, mask


def session(preset, **policy):
    torch.manual_seed(0)
    return Session(STCN(PRESETS[preset]).eval(), MemoryPolicy(**policy), size=None)


def counted(monkeypatch, calls, owner, name):
    real = getattr(owner, name)

    def count(*args, **kwargs):
        calls[name] += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, count)


def test_a_step_encodes_a_key_once_and_values_only_when_they_are_due(monkeypatch):
    calls = Counter()
    for owner, name in (
        (STCN, "encode_key"),
        (STCN, "encode_value"),
        (STCN, "decode"),
        (MemoryBank, "read"),
        (MemoryBank, "adding"),
    ):
        counted(monkeypatch, calls, owner, name)
    frame, mask = video(3)
    steps = session("stcn-tiny", every=4)
    steps.step(frame, np.where(mask < 3, mask, 0))
    assert calls == {"encode_key": 1, "encode_value": 1, "adding": 1}
    for _ in range(3):
        steps.step(frame)
    assert calls == {"encode_key": 4, "encode_value": 1, "decode": 3, "read": 3, "adding": 1}
    steps.step(frame)  # due: once for both objects
    assert (calls["encode_value"], calls["adding"]) == (2, 2)
    before = calls.copy()
    steps.step(frame, np.where(mask == 3, mask, 0))  # another object, so another bank
    assert calls - before == {"encode_key": 1, "encode_value": 1, "decode": 1, "read": 1, "adding": 2}
    before = calls.copy()
    steps.step(frame)
    assert calls - before == {"encode_key": 1, "decode": 1, "read": 2}


@pytest.mark.parametrize(
    ("preset", "objects", "most"),
    [("stcn-tiny", 1, 4), ("stcn-tiny", 3, 9.5), ("stcn", 1, 9), ("stcn", 3, 43)],
)
def test_a_step_holds_so_many_bytes_of_tensors_at_most(preset, objects, most):
    frame, mask = video(objects)
    steps = session(preset, every=2)
    steps.step(frame, mask)
    with LiveBytes() as live:
        for _ in range(2):
            _ = steps.step(frame).mask
    assert 0.8 * most * MB < live.peak <= most * MB


def test_steps_hold_no_more_when_the_memory_is_full_than_before():
    frame, mask = video(2)
    steps = session("stcn-tiny", every=1, max_frames=3)
    peaks = []
    with LiveBytes() as live:
        steps.step(frame, mask)
        for _ in range(4):
            steps.step(frame)
        for _ in range(3):
            live.peak = live.now
            for _ in range(3):
                steps.step(frame)
            peaks.append(live.peak)
    assert len(set(peaks)) == 1
