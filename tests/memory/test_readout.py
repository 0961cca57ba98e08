from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emavos.memory import full_readout, topk_readout
from emavos.memory import readout as module
from golden import reference


def dense(query, keys, values, top_k):
    """The definition, in double precision, with every matrix written out."""
    query, keys, values = query.double(), keys.double(), values.double()
    similarity = (2 * keys @ query - keys.square().sum(1, keepdim=True)) / keys.shape[1] ** 0.5  # (N, P)
    least = similarity.topk(min(top_k, len(keys)), dim=0).values[-1]
    affinity = similarity.masked_fill(similarity < least, -torch.inf).softmax(0)
    return torch.einsum("noc,np->ocp", values, affinity)


def draw(cells, queries, objects=2, channels=3, key_channels=4, seed=0, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    return (
        scale * torch.randn(key_channels, queries, generator=g),
        scale * torch.randn(cells, key_channels, generator=g),
        torch.randn(cells, objects, channels, generator=g),
    )


@pytest.mark.parametrize("name", ["readout_T4_6x10", "readout_T9_8x14"])
def test_readout_agrees_with_the_reference(name):
    golden = reference.load(name)
    keys = torch.from_numpy(golden["mk"])[0].T
    query = torch.from_numpy(golden["qk"])[0].flatten(1)
    values = torch.from_numpy(golden["mv"]).permute(2, 0, 1)
    for top_k in golden["meta"]["top_k"]:
        expected = torch.from_numpy(golden[f"readout_top{top_k}"]).flatten(2)
        out = topk_readout(query, keys, values, top_k)
        assert (out - expected).abs().max() <= 1e-5
    full = full_readout(query[None], keys[None], values[None])[0]
    assert (full - torch.from_numpy(golden["readout_full_softmax"]).flatten(2)).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["readout_T4_6x10", "readout_T9_8x14"])
def test_the_cells_taken_and_their_weights_are_the_references(name):
    golden = reference.load(name)
    keys = torch.from_numpy(golden["mk"])[0].T
    query = torch.from_numpy(golden["qk"])[0].flatten(1)
    for top_k in golden["meta"]["top_k"]:
        weights, indices = golden[f"weights_top{top_k}"], golden[f"indices_top{top_k}"]
        expected = np.zeros((len(keys), query.shape[1]), np.float32)
        np.put_along_axis(expected, indices.astype(np.int64), weights, 0)
        identity = torch.eye(len(keys)).unsqueeze(1)  # a readout of these values is the affinity itself
        affinity = topk_readout(query, keys, identity, top_k)[0]
        assert np.abs(affinity.numpy() - expected).max() <= 1e-5
        assert (affinity > 0).sum(0).max() <= top_k


def test_extreme_keys_give_finite_readouts():
    golden = reference.load("readout_overflow")
    keys = torch.from_numpy(golden["mk"])[0].T
    query = torch.from_numpy(golden["qk"])[0].flatten(1)
    values = torch.from_numpy(golden["mv"]).permute(2, 0, 1)
    out = topk_readout(query, keys, values, golden["meta"]["top_k"])
    expected = golden["expected"].reshape(out.shape)
    assert np.abs(out.numpy() - expected).max() <= 1e-4 * np.abs(expected).max()


@settings(max_examples=60, deadline=None)
@given(
    cells=st.integers(1, 700),
    queries=st.integers(1, 40),
    top_k=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
def test_blocks_and_groups_change_nothing(cells, queries, top_k, seed):
    query, keys, values = draw(cells, queries, seed=seed)
    expected = dense(query, keys, values, top_k)
    torch.testing.assert_close(
        topk_readout(query, keys, values, top_k).double(), expected, atol=1e-4, rtol=1e-4
    )


def test_small_blocks_change_nothing(monkeypatch):
    query, keys, values = draw(300, 37)
    whole = topk_readout(query, keys, values)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * 300 * 5)
    torch.testing.assert_close(topk_readout(query, keys, values), whole)


def test_a_permuted_memory_reads_the_same():
    query, keys, values = draw(500, 30)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        topk_readout(query, keys[order], values[order]), topk_readout(query, keys, values)
    )


def test_objects_are_read_as_if_alone():
    query, keys, values = draw(500, 30, objects=5)
    together = topk_readout(query, keys, values)
    for i in range(5):
        torch.testing.assert_close(topk_readout(query, keys, values[:, i : i + 1])[0], together[i])


def test_fewer_cells_than_top_k_are_all_read():
    query, keys, values = draw(7, 5)
    torch.testing.assert_close(
        topk_readout(query, keys, values, 20), full_readout(query[None], keys[None], values[None])[0]
    )


def test_a_readout_of_equal_values_is_that_value():
    query, keys, _ = draw(100, 9, scale=50.0)
    values = torch.full((100, 1, 2), 3.5)
    torch.testing.assert_close(topk_readout(query, keys, values), torch.full((1, 2, 9), 3.5))


def test_gradients_flow_as_in_the_dense_form():
    tensors = [x.double().requires_grad_() for x in draw(40, 6)]
    topk_readout(*tensors, top_k=40).square().sum().backward()
    gradients = [x.grad.clone() for x in tensors]
    for x in tensors:
        x.grad = None
    full_readout(*(x[None] for x in tensors))[0].square().sum().backward()
    for gradient, x in zip(gradients, tensors, strict=True):
        torch.testing.assert_close(gradient, x.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.zeros(4, 2, 2)}, r"expected query \(Ck, P\)"),
        ({"query": torch.zeros(5, 2)}, "sizes disagree"),
        ({"values": torch.zeros(9, 1, 1)}, "sizes disagree"),
        ({"keys": torch.zeros(0, 4), "values": torch.zeros(0, 1, 1)}, "memory is empty"),
        ({"top_k": 0}, "top_k is at least 1"),
    ],
)
def test_bad_arguments_say_what_was_given(change, message):
    query, keys, values = draw(10, 3)
    with pytest.raises(ValueError, match=message):
        topk_readout(**({"query": query, "keys": keys, "values": values} | change))
