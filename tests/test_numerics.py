"""What docs/numerics.md says: which masks are the same to the bit, and how far others may differ."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from emavos import MemoryPolicy, Predictor
from emavos.demo import synthetic_clip
from emavos.evaluation import region_similarity
from emavos.memory import readout, topk_readout
from emavos.models import PRESETS, STCN, efficientnet_lite
from emavos.session import frame as current_frame
from emavos.training.start import mean_of_weights
from emavos.weights import load_model
from emavos.weights.click_head import load_clicks

BACKENDS = ["dense", "blocks", *(["native"] if shutil.which("c++") else [])]
FRAMES, MASKS = synthetic_clip(frames=10, size=(120, 214))  # the demo's scene
PROBABILITY, PIXELS = 5e-5, 1e-4  # as the page says: at most, of any pixel; of all, that have another id


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def follow(model, dtype=None, frames=FRAMES, **policy):
    """prob (T, 1 + O, H, W) and mask (T, H, W) of the clip."""
    predictor = Predictor(model, MemoryPolicy(every=2, max_frames=3, **policy), size=None, dtype=dtype)
    results = list(predictor.propagate(frames, MASKS[0]))
    return torch.stack([r.prob for r in results]), np.stack([r.mask for r in results])


BYTES = """
import hashlib, torch
from emavos import MemoryPolicy, Predictor, Shortcuts
from emavos.demo import synthetic_clip
from emavos.weights import load_model

frames, masks = synthetic_clip(frames=5, size=(96, 128))
for _ in range(2):
    digest = hashlib.sha256()
    for dtype in (torch.float32, torch.bfloat16):
        for shortcuts in (None, Shortcuts(decode_near=True, encode_near=True)):
            predictor = Predictor.from_pretrained(
                device="cpu", size=80, dtype=dtype, policy=MemoryPolicy(every=2, max_frames=2),
                shortcuts=shortcuts,
            )
            for result in predictor.propagate(frames, masks[0]):
                digest.update(result.prob.numpy().tobytes() + repr(result.confidences).encode())
    print(digest.hexdigest())
"""


def test_the_same_frames_give_the_same_bytes_again_and_in_another_process():
    runs = [subprocess.run([sys.executable, "-c", BYTES], capture_output=True, check=True) for _ in range(2)]
    digests = b"".join(run.stdout for run in runs).split()
    assert len(digests) == 4
    assert len(set(digests)) == 1


@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.float64, 0.999), (torch.float16, 0.99), (torch.bfloat16, 0.99)], ids=str
)
def test_masks_of_each_type_are_near_those_of_single_precision(model, dtype, least):
    single, other = follow(model)[1], follow(model, dtype)[1]
    for id in (1, 2, 3):
        overlap = [region_similarity(a == id, b == id) for a, b in zip(single, other, strict=True)]
        assert min(overlap) >= least


def near(a, b):
    assert (a[0] - b[0]).abs().max() <= PROBABILITY
    assert np.mean(a[1] != b[1]) <= PIXELS


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (current_frame, "OBJECTS_AT_ONCE", 1),
        (current_frame, "OBJECTS_AT_ONCE", 2),
        (readout, "_CPU_BLOCK", (7, 50)),
        (efficientnet_lite, "_LARGE", 1 << 14),
    ],
    ids=["objects one by one", "objects two by two", "small blocks of the readout", "many strips"],
)
def test_how_the_work_is_cut_hardly_matters(model, monkeypatch, module, name, value):
    whole = follow(model)
    monkeypatch.setattr(module, name, value)
    near(follow(model), whole)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_number_of_threads_hardly_matters(model, threads, number):
    threads(4)
    expected = follow(model)
    threads(number)
    near(follow(model), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_readout_gives_nearly_the_same_masks(model, backend):
    near(follow(model, backend=backend), follow(model))


@pytest.fixture
def odd_settings():
    """Turns on what a caller may have set for the whole process, and does not leave it so."""

    def turn_on():
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)

    yield turn_on
    torch.set_default_dtype(torch.float32)
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_callers_default_type_and_wish_for_determinism_change_nothing(model, odd_settings, backend):
    expected = follow(model, frames=FRAMES[:5], backend=backend)
    odd_settings()
    result = follow(model, frames=FRAMES[:5], backend=backend)
    assert result[0].dtype == torch.float32
    assert torch.equal(result[0], expected[0])


def test_frames_of_which_nothing_is_known_have_probabilities_in_single_precision_too(model, odd_settings):
    odd_settings()
    results = Predictor(model, size=None).propagate(FRAMES[:2], MASKS[0], direction="backward")
    assert [result.prob.dtype for result in results] == [torch.float32] * 2


def draw(cells, scale=1.0):
    g = torch.Generator().manual_seed(0)
    query, keys = torch.randn(64, 30, generator=g), torch.randn(cells, 64, generator=g)
    return scale * query, scale * keys, torch.randn(cells, 2, 5, generator=g)


def zeros():
    query, keys, values = draw(700)
    return 0 * query, 0 * keys, values


def identical():
    query, keys, values = draw(15)  # fewer than top_k, so that it is known which count
    return query, keys[:1].expand(15, -1), values


def far():
    query, keys, values = draw(700)
    return query + 1e4, keys - 1e4, values


def far_and_identical():
    query, keys, values = identical()
    return query + 1e4, keys - 1e4, values


def one_near():
    query, keys, values = draw(700, 1e4)
    keys[600] = query[:, 3]
    return query, keys, values


EXTREMES = {
    "1e4": lambda: draw(700, 1e4),
    "1e15": lambda: draw(700, 1e15),
    "1e-30": lambda: draw(15, 1e-30),
    "zeros": zeros,
    "no query": lambda: (0 * draw(700)[0], *draw(700, 1e4)[1:]),
    "identical": identical,
    "far": far,
    "far and identical": far_and_identical,
    "one near": one_near,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", EXTREMES)
def test_a_readout_of_extreme_keys_is_a_mean_of_values(backend, case):
    query, keys, values = EXTREMES[case]()
    received = torch.zeros(len(keys))
    out = topk_readout(query, keys, values, 20, backend, received=received)
    assert (out <= values.amax(dim=0)[..., None] + 1e-5).all()  # which NaN is not
    assert (out >= values.amin(dim=0)[..., None] - 1e-5).all()
    assert received.sum() == pytest.approx(30, rel=1e-4)
    assert (received > 0).sum() <= 20 * 30
    rounded = backend == "native" and case == "far and identical"  # it turns keys, each with its own rounding
    if len(keys) <= 20 and not rounded:
        expected = values.mean(dim=0)[..., None].expand_as(out)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
    if case == "one near":
        torch.testing.assert_close(out[:, :, 3], values[600])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["dense", "blocks"])
def test_the_largest_halves_do_not_overflow(backend, dtype):
    query, keys, values = (x.to(dtype) for x in draw(700))
    largest = torch.finfo(torch.float16).max
    query, keys = query.sign() * largest, keys.sign() * largest
    out = topk_readout(query, keys, values, 20, backend).float()
    assert (out.abs() <= values.float().abs().amax() * 1.01).all()


@pytest.mark.parametrize("unit_keys", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_keys_whose_squares_are_no_number_are_an_error_that_names_frame_and_object(model, backend, unit_keys):
    plain = {"unit_keys": False, "fine_key_channels": 0, "scene_key_channels": 0, "key_channels": 64}
    network = STCN(model.config if unit_keys else replace(model.config, **plain)).eval()
    network.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        for weight in network.key_encoder.key_proj.parameters():
            weight *= 1e25
    with pytest.raises(FloatingPointError, match="frame 1: the network gives NaN or infinity for object 1"):
        follow(network, frames=FRAMES[:2], backend=backend)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_callers_default_dtype_rounds_no_weight(dtype):
    expected, head = load_model("tiny").state_dict(), load_clicks(load_model("tiny")).state_dict()
    torch.set_default_dtype(dtype)
    try:
        model = load_model("tiny")
        loaded = (
            model.state_dict(),
            load_clicks(model).state_dict(),
            mean_of_weights([model, model]).state_dict(),
        )
    finally:
        torch.set_default_dtype(torch.float32)
    for state, wanted in zip(loaded, (expected, head, expected), strict=True):
        assert all(torch.equal(state[name], x) and state[name].dtype == x.dtype for name, x in wanted.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_callers_default_dtype_changes_no_mask_and_no_confidence(model, dtype):
    video, masks = synthetic_clip(frames=5, size=(96, 160))

    def follow_objects():
        session = Predictor(model, size=None).with_settings(locality=True, cuts="tell").session()
        results = [session.step(video[0], masks[0]), *map(session.step, video[1:])]
        assert session._now.before.penalty((96, 160)).max() > 1
        return [(result.prob, result.confidences, result.unmatched) for result in results]

    expected = follow_objects()
    torch.set_default_dtype(dtype)
    try:
        found = follow_objects()
    finally:
        torch.set_default_dtype(torch.float32)
    for (prob, *states), (expected_prob, *expected_states) in zip(found, expected, strict=True):
        assert torch.equal(prob, expected_prob)
        assert states == expected_states


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_callers_default_device_changes_nothing(model, backend):
    """Where "meta" is no device that computes, every tensor has to be made on that of the network."""
    expected = follow(model, frames=FRAMES[:3], backend=backend)
    torch.set_default_device("meta")
    try:
        result = follow(model, frames=FRAMES[:3], backend=backend)
    finally:
        torch.set_default_device(None)
    assert torch.equal(result[0], expected[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("unit_keys", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_keys_are_projected_in_single_precision(dtype, unit_keys, autocast):
    config = replace(PRESETS["stcn-tiny-none"], unit_keys=unit_keys)
    model = STCN(config).eval()
    frames = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=autocast):
        key = (
            (model if autocast else model.to(dtype)).encode_key(frames if autocast else frames.to(dtype)).key
        )
    assert key.dtype == torch.float32
    assert not torch.equal(key, key.to(dtype).float())
