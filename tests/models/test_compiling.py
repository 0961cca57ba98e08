from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from emavos import Predictor
from emavos.models import PRESETS, STCN, compiled

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="there is no C++ compiler here"
)
MASK = np.zeros((48, 80), np.uint8)
MASK[8:40, 8:40] = 7
TWO = np.where(np.arange(80) >= 48, 9, MASK).astype(np.uint8)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return STCN(PRESETS["stcn-tiny"]).eval()


@pytest.fixture(scope="module")
def predictors(model):
    """Of one model, as it is and compiled, for all tests: a size is compiled once."""
    return Predictor(model, size=None), Predictor(model, size=None, compile=True)


def follow(predictor, masks):
    rng = np.random.default_rng(0)
    session = predictor.session()
    return [session.step(rng.integers(0, 256, (48, 80, 3), dtype=np.uint8), mask) for mask in masks]


def test_masks_are_those_of_the_model(predictors):
    theirs, ours = (follow(predictor, [MASK, None, None]) for predictor in predictors)
    for a, b in zip(ours, theirs, strict=True):
        assert a.ids == b.ids
        torch.testing.assert_close(a.prob, b.prob, atol=1e-5, rtol=0)


def test_a_size_is_compiled_once_whatever_the_objects(predictors):
    follow(predictors[1], [MASK])
    before = counters["stats"]["unique_graphs"]
    assert before > 0
    with torch.inference_mode():
        results = follow(predictors[1], [MASK, TWO, None])
    follow(predictors[1], [TWO, None])
    assert results[-1].ids == (7, 9)
    assert counters["stats"]["unique_graphs"] == before


def test_weights_are_packed_and_the_encoder_is_one_graph(predictors):
    follow(predictors[1], [MASK])
    assert counters["inductor"]["mkldnn_conv_weight_pack_matcher_count"] > 0
    assert not counters["graph_break"]


def test_each_model_has_its_own_weights(model, predictors):
    """Of two with the same shapes; the second is not taken for the first."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.key_encoder.key_proj.weight.mul_(-2)
    ours, theirs = Predictor(other, size=None, compile=True), Predictor(other, size=None)
    frame = torch.zeros(1, 3, 48, 80)
    with torch.no_grad():
        for compiled_one, plain in ((ours, theirs), predictors[::-1], (ours, theirs)):
            expected = plain.network.encode_key(frame)
            for a, b in zip(compiled_one.network.encode_key(frame), expected, strict=True):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_the_model_is_left_as_it_is(model):
    network = compiled(model)
    assert network.key_encoder is not model.key_encoder
    assert network.value_encoder is model.value_encoder
    assert network.decoder is model.decoder
    assert [*network.state_dict()] == [*model.state_dict()]
    assert all(a is b for a, b in zip(network.parameters(), model.parameters(), strict=True))
    before = counters["stats"]["unique_graphs"]
    with torch.no_grad():
        model.encode_key(torch.zeros(1, 3, 32, 32))
        copy.deepcopy(network).encode_key(torch.zeros(1, 3, 32, 32))  # a copy is compiled by who wants that
    assert counters["stats"]["unique_graphs"] == before
