from __future__ import annotations

import copy
import pickle
import shutil

import pytest
import torch

from emavos.memory import MemoryBank, MemoryPolicy, native_readout, topk_readout
from emavos.memory.native_build import GET_COMPILER, NO_COMPILER
from emavos.memory.readout import CannotRunError

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler here")


def draw(queries, cells, key_channels=5):
    g = torch.Generator().manual_seed(0)
    query, keys = (
        torch.randn(key_channels, queries, generator=g),
        torch.randn(cells, key_channels, generator=g),
    )
    return query, keys, torch.randn(cells, 2, 3, generator=g)


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("queries", [0, 1, 31, 32, 33, 100])
def test_threads_share_the_queries(monkeypatch, threads, queries):
    tensors = draw(queries, 203)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    torch.testing.assert_close(topk_readout(*tensors, 20, "native"), topk_readout(*tensors, 20, "dense"))


@needs_compiler
def test_tensors_need_not_be_contiguous():
    query, keys, values = draw(40, 90)
    odd = (
        query.T.contiguous().T,
        keys.T.contiguous().T,
        values.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    )
    torch.testing.assert_close(topk_readout(*odd, 20, "native"), topk_readout(query, keys, values))


@needs_compiler
def test_equal_cells_count_each():
    query, keys, values = draw(40, 9)
    tensors = (query, keys.repeat(11, 1), values.repeat(11, 1, 1))
    torch.testing.assert_close(topk_readout(*tensors, 22, "native"), topk_readout(*tensors, 22, "dense"))


@needs_compiler
def test_a_bank_reads_by_the_backend_of_its_policy(monkeypatch):
    banks = MemoryBank(), MemoryBank(MemoryPolicy(backend="native"))
    g = torch.Generator().manual_seed(0)
    for _ in range(3):
        key, value = torch.randn(6, 4, 5, generator=g), torch.randn(2, 3, 4, 5, generator=g)
        for bank in banks:
            bank.add(key, value)
    calls = []
    topk = native_readout.native_topk
    monkeypatch.setattr(native_readout, "native_topk", lambda *a: calls.append(1) or topk(*a))
    query = torch.randn(6, 4, 5, generator=g)
    torch.testing.assert_close(banks[0].read(query), banks[1].read(query))
    assert calls == [1]


def test_asking_for_it_where_it_cannot_run_says_why(monkeypatch):
    query, keys, values = draw(3, 9)
    with pytest.raises(RuntimeError, match=r"native readout cannot run: keys is torch.float64; only float32"):
        topk_readout(query, keys.double(), values, backend="native")
    with pytest.raises(RuntimeError, match="it has no gradient and query requires one"):
        topk_readout(query.clone().requires_grad_(), keys, values, backend="native")
    with pytest.raises(RuntimeError, match="query is on meta, not on the CPU"):
        topk_readout(query.to("meta"), keys, values, backend="native")
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(native_readout, "_loaded", [])
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler is found"):
        topk_readout(query, keys, values, backend="native")


def test_the_error_of_a_readout_that_cannot_run_is_the_same_after_a_copy_and_a_pickle():
    for reason, remedy in ((NO_COMPILER, GET_COMPILER), ("keys is torch.float64", "")):
        error = CannotRunError("native", reason)
        for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert (str(other), other.backend, other.reason) == (str(error), "native", reason)
            assert other.remedy == remedy
        assert error.advice == "; ".join(filter(None, (reason, remedy)))


@pytest.mark.parametrize(
    ("compiler", "message"),
    [("false", "does not compile: .*false"), ("true", "not loaded: .*readout.so.*TMPDIR")],
)
def test_a_compiler_that_fails_is_heard(monkeypatch, compiler, message):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setattr(native_readout, "_loaded", [])
    with pytest.raises(RuntimeError, match=f"the native readout .*{message}"):
        topk_readout(*draw(3, 9), backend="native")


def test_a_quote_without_its_other_names_no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "g++ '")
    monkeypatch.setattr(native_readout, "_loaded", [])
    with pytest.raises(RuntimeError, match=r"no C\+\+ compiler is found"):
        topk_readout(*draw(3, 9), backend="native")


def test_a_compiler_may_be_named_with_options(monkeypatch):
    monkeypatch.setenv("CXX", f"{shutil.which('c++') or pytest.skip('there is no C++ compiler here')} -g0")
    monkeypatch.setattr(native_readout, "_loaded", [])
    tensors = draw(3, 50)
    torch.testing.assert_close(topk_readout(*tensors, 20, "native"), topk_readout(*tensors, 20, "dense"))


def test_a_policy_names_a_backend_that_exists():
    with pytest.raises(ValueError, match="backend is one of auto, dense, blocks, native, triton, not 'gpu'"):
        MemoryPolicy(backend="gpu")


@needs_compiler
@pytest.mark.parametrize("scale", [1e-3, 1, 30])
@pytest.mark.parametrize("offset", [0, 100])
@pytest.mark.parametrize("key_channels", [3, 64])
def test_cells_that_are_passed_over_would_not_have_counted(scale, offset, key_channels):
    query, keys, values = draw(70, 400, key_channels)
    query, keys = scale * query + offset, scale * keys + offset
    exact = topk_readout(query.double(), keys.double(), values.double(), 20, "dense").float()
    near = topk_readout(query, keys, values, 20, "native")
    largest = float(keys.square().sum(dim=1).max()) / key_channels**0.5  # of what a similarity is made of
    assert (near - exact).abs().max() <= 1e-5 + 2**-23 * largest * values.abs().max()


@needs_compiler
def test_a_memory_of_equal_keys_is_read_as_its_mean():
    query, keys, values = draw(40, 12, 64)
    equal = keys[:1].expand(12, -1)
    expected = values.mean(dim=0)[..., None].expand(-1, -1, 40)
    torch.testing.assert_close(topk_readout(query, equal, values, 20, "native"), expected)


@needs_compiler
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_passed_over(wrong):
    query, keys, values = draw(40, 90)
    query[0, 3] = wrong
    broken = topk_readout(query, keys, values, 20, "native").isnan().all(dim=1).all(dim=0)
    assert broken.nonzero().flatten().tolist() == [3]
    keys[7, 2] = wrong
    assert topk_readout(query, keys, values, 20, "native").isnan().all()


@needs_compiler
def test_values_may_have_another_type_than_keys():
    query, keys, values = draw(40, 90)
    near = topk_readout(query, keys, values.bfloat16(), 20, "native")
    assert near.dtype == torch.bfloat16
    torch.testing.assert_close(near, topk_readout(query, keys, values.bfloat16(), 20, "blocks"))
