from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from emavos.memory import full_affinity, full_readout, topk_readout, weighted_values
from emavos.memory import readout as module
from golden import reference

NATIVE = pytest.param(
    "native", marks=pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler here")
)


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


@pytest.mark.parametrize("backend", ["dense", "blocks", "auto", NATIVE])
@settings(max_examples=60, deadline=None)
@given(
    cells=st.integers(1, 1500),
    queries=st.integers(1, 40),
    top_k=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
def test_each_backend_gives_the_readout_of_the_definition(backend, cells, queries, top_k, seed):
    query, keys, values = draw(cells, queries, seed=seed)
    expected = dense(query, keys, values, top_k)
    readout = topk_readout(query, keys, values, top_k, backend)
    torch.testing.assert_close(readout.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["dense", "blocks", NATIVE])
@settings(max_examples=30, deadline=None)
@given(
    cells=st.integers(1, 1500),
    queries=st.integers(1, 40),
    top_k=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
def test_each_backend_hands_out_the_weight_that_each_cell_received(backend, cells, queries, top_k, seed):
    query, keys, values = draw(cells, queries, seed=seed)
    received = torch.ones(cells)
    readout = topk_readout(query, keys, values, top_k, backend, received=received)
    assert torch.equal(readout, topk_readout(query, keys, values, top_k, backend))
    identity = torch.eye(cells).unsqueeze(1)  # a readout of these values is the affinity itself
    expected = 1 + dense(query, keys, identity, top_k)[0].sum(dim=1)
    torch.testing.assert_close(received.double(), expected, atol=1e-4, rtol=1e-4)
    assert received.double().sum() - cells == pytest.approx(queries, rel=1e-4)


def test_where_weights_are_to_be_added_is_checked():
    query, keys, values = draw(9, 3)
    for wrong in (torch.zeros(8), torch.zeros(9, 1), torch.zeros(9, dtype=torch.float64)):
        with pytest.raises(ValueError, match=r"received is one float32 a key, \(9,\), not"):
            topk_readout(query, keys, values, received=wrong)


@settings(max_examples=60, deadline=None)
@given(block=st.tuples(st.integers(1, 50), st.integers(1, 900)), top_k=st.integers(1, 40))
def test_the_size_of_blocks_changes_nothing(block, top_k):
    query, keys, values = draw(700, 37)
    whole = topk_readout(query, keys, values, top_k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CPU_BLOCK", block)
        torch.testing.assert_close(topk_readout(query, keys, values, top_k), whole)
        with torch.no_grad():  # where one buffer serves all blocks
            torch.testing.assert_close(topk_readout(query, keys, values, top_k), whole)


@settings(max_examples=30, deadline=None)
@given(cells=st.integers(1, 900), top_k=st.integers(1, 40), seed=st.integers(0, 1000))
def test_a_permuted_memory_reads_the_same(cells, top_k, seed):
    query, keys, values = draw(cells, 30, seed=seed)
    order = torch.randperm(cells, generator=torch.Generator().manual_seed(seed + 1))
    permuted = topk_readout(query, keys[order], values[order], top_k)
    torch.testing.assert_close(permuted, topk_readout(query, keys, values, top_k))


@settings(max_examples=30, deadline=None)
@given(copies=st.integers(2, 60), distinct=st.integers(1, 30), top_k=st.integers(1, 40))
def test_of_equal_cells_as_many_count_as_fit(copies, distinct, top_k):
    query, keys, values = draw(distinct, 9)
    readout = topk_readout(query, keys.repeat(copies, 1), values.repeat(copies, 1, 1), top_k)
    similarity = (2 * keys @ query - keys.square().sum(1, keepdim=True)) / keys.shape[1] ** 0.5
    expected = torch.zeros_like(readout)
    for p in range(9):
        order = similarity[:, p].argsort(descending=True).repeat_interleave(copies)[:top_k]
        weights = similarity[order, p].softmax(0)
        expected[:, :, p] = torch.einsum("n,noc->oc", weights, values[order])
    torch.testing.assert_close(readout, expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(1e-20, 1e12), cells=st.integers(1, 700), seed=st.integers(0, 1000))
def test_keys_of_any_size_give_finite_readouts(scale, cells, seed):
    query, keys, values = draw(cells, 11, seed=seed, scale=scale)
    for backend in ("dense", "blocks", *(["native"] if shutil.which("c++") else [])):
        readout = topk_readout(query, keys, values, 20, backend)
        assert readout.isfinite().all()
        assert readout.abs().max() <= values.abs().max() * 1.001  # a mean of values


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_similarities_of_halves_are_computed_in_single_precision(dtype):
    query, keys, values = (x.to(dtype) for x in draw(600, 40, key_channels=32))
    readout = topk_readout(query, keys, values)
    assert readout.dtype == dtype
    expected = dense(query, keys, values, 20)
    tolerance = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(readout.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("backend", ["dense", "blocks"])
def test_autocast_changes_no_readout(backend):
    query, keys, values = draw(600, 40, key_channels=32)
    expected = topk_readout(query, keys, values, 20, backend)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(topk_readout(query, keys, values, 20, backend), expected)


def test_tensors_need_not_be_contiguous():
    query, keys, values = draw(300, 20, objects=3)
    expected = topk_readout(query, keys, values)
    odd = (
        query.T.contiguous().T,
        keys.T.contiguous().T,
        values.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    )
    torch.testing.assert_close(topk_readout(*odd), expected)


def test_norms_at_hand_are_used_as_they_are():
    query, keys, values = draw(300, 20)
    expected = topk_readout(query, keys, values)
    torch.testing.assert_close(topk_readout(query, keys, values, norms=keys.square().sum(1)), expected)
    shifted = topk_readout(query, keys, values, norms=keys.square().sum(1) + 1000)
    torch.testing.assert_close(shifted, expected, atol=1e-3, rtol=1e-3)  # a shift cancels in the softmax
    only = torch.full((300,), torch.inf)
    only[7] = 0  # the others are infinitely far
    torch.testing.assert_close(
        topk_readout(query, keys, values, norms=only), values[7][..., None].expand(2, 3, 20)
    )


def test_no_queries_read_nothing():
    query, keys, values = draw(300, 0)
    for backend in ("dense", "blocks"):
        assert topk_readout(query, keys, values, 20, backend).shape == (2, 3, 0)


def test_what_a_readout_holds_does_not_grow_with_the_memory():
    query, _, _ = draw(1, 200, key_channels=8)
    largest = []
    for cells in (40_000, 160_000):
        _, keys, values = draw(cells, 1, key_channels=8)
        with torch.no_grad(), LargestTensor() as seen:
            topk_readout(query, keys, values)
        largest.append(seen.bytes)
    assert largest[0] == largest[1] <= 16 << 20


class LargestTensor(TorchDispatchMode):
    """The bytes of the largest storage that an operation made."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {
            x.untyped_storage().data_ptr()
            for x in tree_flatten((args, kwargs))[0]
            if isinstance(x, torch.Tensor)
        }
        out = function(*args, **(kwargs or {}))
        for x in tree_flatten(out)[0]:
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in given:
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return out


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
        ({"norms": torch.zeros(9)}, r"norms are one a key, \(10,\), not \(9,\)"),
        ({"backend": "cuda"}, "backend is one of auto, dense, blocks, native, triton, not 'cuda'"),
    ],
)
def test_bad_arguments_say_what_was_given(change, message):
    query, keys, values = draw(10, 3)
    with pytest.raises(ValueError, match=message):
        topk_readout(**({"query": query, "keys": keys, "values": values} | change))


@pytest.mark.parametrize("backend", ["dense", "blocks"])
def test_a_memory_of_no_object_says_nothing_of_none(backend):
    received = torch.zeros(30)
    out = topk_readout(
        torch.rand(8, 5), torch.rand(30, 8), torch.rand(30, 0, 4), backend=backend, received=received
    )
    assert out.shape == (0, 4, 5)
    assert received.sum() == pytest.approx(5)


@pytest.mark.parametrize("top_k", [1, 5, 40])
def test_training_reads_the_cells_of_use_with_their_weights(top_k):
    torch.manual_seed(0)
    query, keys, values = torch.randn(8, 12), torch.randn(30, 8), torch.randn(30, 2, 3)
    query.requires_grad_()
    weights = full_affinity(query[None], keys[None], top_k)  # (1, N, P)
    assert ((weights > 0).sum(dim=1) == min(top_k, 30)).all()
    read = weighted_values(weights, values[None])[0]
    assert torch.allclose(read.double(), dense(query, keys, values, top_k), atol=1e-5)
    read.square().sum().backward()
    assert bool(query.grad.isfinite().all())
    assert top_k == 1 or bool(query.grad.any())
