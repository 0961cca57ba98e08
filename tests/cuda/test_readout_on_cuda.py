"""What only a GPU can show. These tests run where torch finds one: `python -m pytest tests/cuda`."""

from __future__ import annotations

import pytest
import torch

from emavos.memory import MemoryBank, topk_readout, triton_readout

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

BACKENDS = ("blocks", "triton")


def draw(queries, cells, objects=2, channels=40, key_channels=64, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(*shape, generator=g).to("cuda", dtype)
        for shape in ((key_channels, queries), (cells, key_channels), (cells, objects, channels))
    )


def agree(tensors, top_k, backend, tolerance):
    readout = topk_readout(*tensors, top_k, backend)
    expected = topk_readout(*(x.double() for x in tensors), top_k, "dense")
    torch.testing.assert_close(readout.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("queries", "cells", "objects", "channels", "key_channels", "top_k"),
    [
        (1620, 16_200, 1, 512, 64, 20),
        (1620, 33_333, 3, 512, 64, 20),
        (1, 50_001, 2, 7, 64, 128),
        (333, 777, 1, 130, 200, 50),
        (64, 3, 1, 1, 1, 20),
    ],
)
def test_each_backend_is_the_definition(backend, queries, cells, objects, channels, key_channels, top_k):
    agree(draw(queries, cells, objects, channels, key_channels), top_k, backend, 1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_halves_are_summed_in_single_precision(backend, dtype, tolerance):
    agree(draw(500, 9000, dtype=dtype), 20, backend, tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tensors_need_not_be_contiguous(backend):
    query, keys, values = draw(300, 5000)
    odd = (query.T.contiguous().T[:, ::3], keys.T.contiguous().T, values.permute(1, 2, 0).contiguous())
    agree((*odd[:2], odd[2].permute(2, 0, 1)), 20, backend, 1e-4)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # says once that it is a prototype
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_readout_waits_for_nothing(backend):
    tensors = draw(500, 9000)
    topk_readout(*tensors, 20, backend)
    torch.cuda.set_sync_debug_mode("error")
    try:
        topk_readout(*tensors, 20, backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_readout_runs_on_the_stream_it_is_called_on(backend):
    tensors = draw(500, 9000)
    expected = topk_readout(*tensors, 20, backend)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        readout = topk_readout(*tensors, 20, backend)
    stream.synchronize()
    torch.testing.assert_close(readout, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_extra_memory_does_not_grow_with_the_memory(backend):
    extra = []
    for cells in (200_000, 800_000):
        query, keys, values = draw(1620, cells, 1, 16)
        norms = keys.square().sum(1)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        with torch.no_grad():
            topk_readout(query, keys, values, 20, backend, norms=norms)
        extra.append(torch.cuda.max_memory_allocated() - before)
    assert extra[1] <= 1.1 * extra[0]
    assert extra[1] <= 160 << 20


def test_auto_takes_triton_where_it_can_run(monkeypatch):
    pytest.importorskip("triton", reason="triton is not installed")
    query, keys, values = draw(50, 900)
    taken = []
    readout = triton_readout.triton_readout
    monkeypatch.setattr(triton_readout, "triton_readout", lambda *a: taken.append(1) or readout(*a))
    topk_readout(query, keys, values)
    assert taken == [1]
    topk_readout(query, keys, values, 129)
    topk_readout(query, keys, values.requires_grad_())
    topk_readout(query.double(), keys.double(), values.detach())
    assert taken == [1]


def test_a_bank_reads_on_cuda_what_it_reads_on_a_cpu():
    g = torch.Generator().manual_seed(0)
    banks = {"cpu": MemoryBank(), "cuda": MemoryBank()}
    for _ in range(4):
        key, value = torch.randn(64, 9, 11, generator=g), torch.randn(2, 32, 9, 11, generator=g)
        for device, bank in banks.items():
            bank.add(key.to(device), value.to(device))
    query = torch.randn(64, 9, 11, generator=g)
    on_cuda = banks["cuda"].read(query.cuda())
    torch.testing.assert_close(on_cuda.cpu(), banks["cpu"].read(query), atol=1e-4, rtol=1e-4)
