"""A session on tensors that have a size, a type and a device, but no numbers.

What goes wrong on a GPU for want of a `.to(device)`, and where the CPU waits for one, is seen without one.
A number that somebody asks for is 0.5.
"""

from __future__ import annotations

import traceback
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

import emavos
from emavos import Predictor
from emavos import predictor as predictor_module
from emavos.data import Clips, MixedSamples, StaticImages
from emavos.data.device_samples import draw_plans
from emavos.data.loaded import Loaded
from emavos.data.stacked_plans import stack_plans
from emavos.frames import preprocess
from emavos.memory import MemoryPolicy
from emavos.models import PRESETS, STCN, folded
from emavos.session import Session, references
from emavos.session import session as session_module
from trees import training_tree

PACKAGE = str(Path(emavos.__file__).parent)
SIZE = (64, 96)
FRAME = np.zeros((*SIZE, 3), np.uint8)
MASK = np.zeros(SIZE, np.uint8)


class Waits(TorchDispatchMode):
    """In `places`, the functions of emavos in which the CPU waits for the GPU: for a number or a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.name()
        if name == "aten::_pin_memory":
            return args[0]
        if name == "aten::_local_scalar_dense":
            self.asked(args[0])
            return 0.5
        if name == "aten::_to_copy" and not kwargs.get("non_blocking"):
            device = kwargs.get("device")
            if device is not None and torch.device(device).type != args[0].device.type:
                self.wait()
        return func(*args, **kwargs)

    def asked(self, x: torch.Tensor) -> None:
        if x.is_cuda:
            self.wait()

    def wait(self) -> None:
        ours = [frame.name for frame in traceback.extract_stack() if frame.filename.startswith(PACKAGE)]
        self.places.append(ours[-1])


@pytest.fixture
def waits(monkeypatch):
    """All is done on a GPU that is not there; masks show objects 1 and 2."""
    seen = Waits()

    def tolist(x):  # torch's own asks for its numbers one by one where there are none
        seen.asked(x)
        return np.full(x.shape, 0.5).tolist()

    def ids_of(mask):
        seen.asked(mask)
        return 1, 2

    monkeypatch.setattr(FakeTensor, "tolist", tolist)
    for module in (preprocess, references):
        monkeypatch.setattr(module, "ids_of", ids_of)
    monkeypatch.setattr(session_module, "planes_of", lambda masks, size: torch.zeros(len(masks), *size))
    with FakeTensorMode(allow_non_fake_inputs=True), seen:
        yield seen


NETWORKS = {
    dtype: folded(STCN(PRESETS["stcn-tiny"]).eval(), dtype) for dtype in (torch.float32, torch.float16)
}


def session(policy: MemoryPolicy | None = None, dtype: torch.dtype = torch.float32) -> Session:
    network = moved(NETWORKS[dtype])
    policy = MemoryPolicy(every=2, backend="blocks") if policy is None else policy
    return Session(network, policy, min(SIZE), network=network)


def moved(module: torch.nn.Module) -> torch.nn.Module:
    """The module with tensors on the GPU in place of its own."""
    module = copy(module)
    module._parameters = {
        name: p if p is None else torch.nn.Parameter(empty_like(p), False)
        for name, p in module._parameters.items()
    }
    module._buffers = {name: b if b is None else empty_like(b) for name, b in module._buffers.items()}
    module._modules = {name: m if m is None else moved(m) for name, m in module._modules.items()}
    return module


def empty_like(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")


@pytest.mark.parametrize("dtype", NETWORKS)
def test_a_step_waits_once_and_reading_the_confidences_again(waits, dtype):
    followed = session(dtype=dtype)
    followed.step(FRAME, MASK)
    for _ in range(5):
        waits.places.clear()
        result = followed.step(FRAME)
        assert result.prob.is_cuda
        assert waits.places == ["probabilities"]
        assert len(result.confidences) == 2
        assert {*waits.places} == {"probabilities", "confidences"}


POLICIES = [
    MemoryPolicy(every=1, max_frames=3, eviction=eviction, backend="blocks")
    for eviction in ("oldest", "least-used", "consolidate")
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.eviction)
def test_what_is_remembered_stays_on_the_gpu(waits, policy):
    followed = session(policy)
    followed.step(FRAME, MASK)
    for _ in range(8):
        assert followed.step(FRAME).prob.is_cuda
    buffers = [buffer for group in followed.groups for buffer in group.bank._buffers]
    assert all(buffer.is_cuda for buffer in buffers)


def test_edits_stay_on_the_gpu(waits):
    followed = session()
    followed.step(FRAME, MASK)
    followed.step(FRAME)
    followed.remember(FRAME, MASK, 7)
    for result in (
        followed.correct({2: MASK}),
        followed.add({9: MASK}),
        followed.undo(),
        followed.add({8: MASK}),
        followed.remove([1]),
        followed.step(FRAME),
    ):
        assert result.prob.is_cuda
    followed.pin()
    followed.forget(1)
    assert followed.step(FRAME).ids == (2, 8)


@pytest.mark.parametrize(
    ("name", "capability", "dtype"),
    [
        ("stcn-tiny-scene", (9, 0), torch.float32),  # which waits for Python more than for the GPU
        ("stcn", (9, 0), torch.bfloat16),
        ("stcn", (7, 5), torch.float16),
    ],
)
def test_auto_computes_in_the_dtype_that_is_fastest_for_the_model(
    request, monkeypatch, name, capability, dtype
):
    model = STCN(PRESETS[name]).eval()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(predictor_module, "choose_device", torch.device)
    monkeypatch.setattr(predictor_module, "load_model", lambda *_, **__: model)
    predictor = Predictor.from_pretrained(device="cuda", dtype="auto")
    assert predictor.dtype == dtype
    request.getfixturevalue("waits")
    network = moved(predictor.network)
    followed = Session(network, MemoryPolicy(every=1, backend="blocks"), min(SIZE), network=network)
    followed.step(FRAME, MASK)
    assert followed.step(FRAME).prob.is_cuda
    (group,) = followed.groups
    assert {buffer.dtype for buffer in group.bank._buffers} >= {dtype}


def test_a_batch_of_samples_is_drawn_without_waiting(tmp_path, waits):
    root = training_tree(tmp_path)
    with unset_fake_temporarily():
        here = [Loaded(StaticImages(root / "static")), Loaded(Clips(root / "clips"))]
        samples = MixedSamples(*here, count=8, batch=8, size=32, frames=3, lookalike=0.5, blur=1.0)
        plans = stack_plans([samples.plan(i) for i in range(8)], 32)
    stills, clips = (videos.to(torch.device("cuda")) for videos in here)
    waits.places.clear()
    sample = draw_plans(plans, stills, clips, 32, torch.device("cuda"))
    assert all(x.is_cuda for x in sample)
    assert sample.frames.shape == (8, 3, 3, 32, 32)
    assert waits.places == []
