"""The triton kernels under triton's interpreter, which needs no GPU: test_triton.py runs this file.

TRITON_INTERPRET=1 counts when triton is imported, so these tests have a process of their own.
"""

import os

import pytest
import torch

from emavos.memory import topk_readout, triton_readout
from emavos.memory.triton_readout import Tiles

assert os.environ.get("TRITON_INTERPRET") == "1", "run test_triton.py"

CASES = {  # queries, cells, objects, Cv, Ck, top_k
    "ragged": (37, 101, 2, 3, 5, 20),
    "one of all": (1, 1, 1, 1, 1, 1),
    "fewer cells than top_k": (3, 7, 1, 4, 64, 20),
    "as many cells as top_k": (5, 32, 1, 4, 16, 32),
    "one cell": (33, 70, 1, 5, 3, 1),
    "top_k no power of two": (9, 140, 1, 5, 17, 50),
    "the largest top_k": (4, 150, 1, 5, 8, 128),
    "wide keys": (6, 80, 1, 5, 150, 7),
    "wide values": (3, 40, 5, 300, 4, 20),
}


def draw(queries, cells, objects, channels, key_channels, dtype=torch.float32, scale=1.0):
    g = torch.Generator().manual_seed(0)
    query = scale * torch.randn(key_channels, queries, generator=g)
    keys = scale * torch.randn(cells, key_channels, generator=g)
    values = torch.randn(cells, objects, channels, generator=g)
    return query.to(dtype), keys.to(dtype), values.to(dtype)


def agree(tensors, top_k, tolerance=1e-5):
    readout = topk_readout(*tensors, top_k, "triton")
    received, weights = torch.zeros(2, len(tensors[1]))
    expected = topk_readout(*(x.double() for x in tensors), top_k, "dense", received=weights)
    assert readout.dtype == tensors[2].dtype
    torch.testing.assert_close(readout.double(), expected, atol=tolerance, rtol=tolerance)
    assert torch.equal(topk_readout(*tensors, top_k, "triton", received=received), readout)
    assert received.sum() == pytest.approx(tensors[0].shape[1], rel=1e-4)
    distinct = len(tensors[1].unique(dim=0)) == len(tensors[1])  # of equal cells any may be taken
    if distinct:
        torch.testing.assert_close(received, weights, atol=10 * tolerance, rtol=10 * tolerance)


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    """What a kernel does not write is NaN or a cell that does not exist."""
    empty, new_empty = torch.empty, torch.Tensor.new_empty

    def poisoned(x):
        return x.fill_(torch.nan if x.is_floating_point() else -1)

    monkeypatch.setattr(triton_readout.torch, "empty", lambda *a, **k: poisoned(empty(*a, **k)))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: poisoned(new_empty(*a, **k)))


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_definition(name):
    *sizes, top_k = CASES[name]
    agree(draw(*sizes), top_k)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
def test_halves_are_multiplied_exactly_and_summed_in_single_precision(dtype, tolerance):
    agree(draw(7, 90, 1, 3, 24, dtype), 20, tolerance)


def test_dtypes_may_differ():
    query, keys, values = draw(7, 90, 1, 3, 24)
    agree((query, keys.bfloat16().float(), values.half()), 20, 2e-3)
    agree((query, keys.bfloat16(), values), 20)


@pytest.mark.parametrize("share", [64, 128, 100_000])
def test_the_memory_may_be_shared_by_any_number_of_programs(monkeypatch, share):
    monkeypatch.setattr(triton_readout, "_share", lambda *_: share)
    agree(draw(3, 150, 2, 3, 6), 5)
    agree(draw(3, 150, 2, 3, 6), 75)  # more than the cells of a share


def test_an_object_is_read_to_the_bit_alone_and_among_others():
    query, keys, values = draw(9, 150, 7, 33, 6)
    together = topk_readout(query, keys, values, 20, "triton")
    for one in range(7):
        alone = topk_readout(query, keys, values[:, one : one + 1].contiguous(), 20, "triton")
        assert torch.equal(alone, together[one : one + 1])
    assert torch.equal(topk_readout(query, keys, values[:, :3].contiguous(), 20, "triton"), together[:3])


@pytest.mark.parametrize(
    "tiles",
    [Tiles(queries=16, cells=32), Tiles(queries=64, cells=128, gathered=1024, programs=8), Tiles(gathered=1)],
)
def test_sizes_of_blocks_change_no_readout(tiles):
    query, keys, values = draw(37, 301, 3, 19, 5)
    norms = keys.square().sum(1)
    readout = triton_readout.triton_readout(query, keys, values, 20, norms, tiles=tiles)
    torch.testing.assert_close(readout, topk_readout(query, keys, values, 20, "dense"), atol=1e-5, rtol=1e-5)


def test_tensors_need_not_be_contiguous():
    query, keys, values = draw(13, 90, 3, 5, 6)
    agree((query.T.contiguous().T, keys.T.contiguous().T, values), 20)
    agree((query, keys, values.permute(1, 2, 0).contiguous().permute(2, 0, 1)), 20)
    agree((query[::2, ::3], keys[::2, ::2], values[::2, 1:, ::2]), 20)


def test_equal_cells_count_each():
    query, keys, values = draw(5, 9, 1, 3, 6)
    agree((query, keys.repeat(11, 1), values.repeat(11, 1, 1)), 22)
    agree((query, torch.zeros_like(keys), values), 20)


@pytest.mark.parametrize("scale", [1e-20, 1e4, 1e12])
def test_keys_of_any_size_give_finite_readouts(scale):
    tensors = draw(5, 90, 1, 3, 6, scale=scale)
    readout = topk_readout(*tensors, 20, "triton")
    assert readout.isfinite().all()
    torch.testing.assert_close(readout, topk_readout(*tensors, 20, "dense"), atol=1e-4, rtol=1e-4)


def test_no_queries_read_nothing():
    assert topk_readout(*draw(0, 9, 2, 3, 4), backend="triton").shape == (2, 3, 0)


def test_auto_never_interprets(monkeypatch):
    monkeypatch.setattr(triton_readout, "triton_readout", None)
    topk_readout(*draw(5, 90, 1, 3, 6))
