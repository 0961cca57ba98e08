"""The triton kernels without a GPU: interpreted, and compiled for four generations of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emavos import MemoryPolicy, Session
from emavos.memory import choose_backend, topk_readout, triton_readout
from emavos.memory.triton_readout import Tiles
from emavos.models import PRESETS, STCN

pytest.importorskip("triton", reason="triton is not installed: it comes with the CUDA builds of torch")

CAPABILITIES = (75, 80, 90, 100)
SHARED_MEMORY = {75: 64 << 10, 80: 163 << 10, 90: 227 << 10, 100: 227 << 10}  # bytes a block may have
REGISTERS = 65536  # of a multiprocessor
POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}


def test_more_cells_than_the_kernels_keep_are_refused_before_the_first_frame(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # else the device is refused
    with pytest.raises(
        RuntimeError, match="top_k is 129, and it keeps 128 cells at most; use backend='auto'"
    ):
        choose_backend("triton", torch.device("cpu"), torch.float32, top_k=129)
    policy = MemoryPolicy(backend="triton", top_k=129)
    with pytest.raises(RuntimeError, match="top_k is 129"):
        Session(STCN(PRESETS["stcn-tiny"]).eval(), policy)


def test_every_case_holds_under_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    here = Path(__file__)
    done = subprocess.run(
        [*command, str(here.with_name("interpreted_triton.py"))],
        capture_output=True,
        text=True,
        env=environment,
        cwd=here.parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A function that compiles a kernel for a GPU that is not here, and gives its resources and its PTX."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("TRITON_INTERPRET=1 is set: nothing is compiled")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    folder = tmp_path_factory.mktemp("triton")
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

    def run(kernel, pointers, constants, warps, capability):
        names = kernel.arg_names
        types = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
        aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if types[name][0] == "*"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_CACHE_DIR", str(folder))
            source = ASTSource(kernel, types, constants, aligned)
            options = {"num_warps": warps, "num_stages": Tiles().stages}
            binary = triton.compile(source, GPUTarget("cuda", capability, 32), options)
        path = folder / "kernel.cubin"
        path.write_bytes(binary.asm["cubin"])
        command = [tool, "--dump-resource-usage", path]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        resources = {name: int(n) for name, n in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
        return {**resources, "shared": binary.metadata.shared}, binary.asm["ptx"]

    return run


def fits(resources, warps, capability):
    """At least two blocks on a multiprocessor, and nothing in local memory."""
    assert resources["STACK"] == resources["LOCAL"] == 0
    assert 2 * resources["REG"] * 32 * warps <= REGISTERS
    assert 2 * resources["shared"] <= SHARED_MEMORY[capability]


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(
    ("dtype", "channels", "top_k"),
    [
        (torch.float32, 64, 20),
        (torch.float32, 200, 128),
        (torch.float16, 64, 20),
        (torch.float16, 64, 128),
        (torch.bfloat16, 200, 128),
    ],
)
def test_the_scan_compiles_within_the_limits_of_a_gpu(compiled, dtype, channels, top_k, capability):
    from emavos.memory import triton_kernels as kernels

    pointer = POINTERS[dtype]
    if dtype == torch.bfloat16 and capability < 80:
        dtype = torch.float32  # as on such a GPU
    constants = triton_readout.scan_constants(channels, top_k, dtype)
    pointers = {"query": pointer, "keys": pointer, "norms": "*fp32", "top": "*fp32"}
    pointers |= {"places": "*i32", "scale": "fp32"}
    warps = Tiles().scan_warps
    resources, ptx = compiled(kernels.scan, pointers, constants, warps, capability)
    fits(resources, warps, capability)
    # halves meet on tensor cores, where triton has them; single precision is not cut to TF32
    assert ("mma" in ptx) == (dtype != torch.float32 and capability >= 80)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(
    ("dtype", "channels", "top_k", "counts"),
    [
        (torch.float32, 512, 20, True),
        (torch.float16, 100, 128, True),
        (torch.bfloat16, 512, 50, False),
    ],
)
def test_the_gather_compiles_within_the_limits_of_a_gpu(compiled, dtype, channels, top_k, counts, capability):
    from emavos.memory import triton_kernels as kernels

    constants = triton_readout.gather_constants(channels, top_k, counts)
    pointers = {"top": "*fp32", "places": "*i32", "values": POINTERS[dtype], "out": POINTERS[dtype]}
    pointers["received"] = "*fp32"
    warps = Tiles().gather_warps
    resources, _ = compiled(kernels.gather, pointers, constants, warps, capability)
    fits(resources, warps, capability)


def test_neither_a_new_object_nor_a_larger_memory_compiles_anew():
    from emavos.memory import triton_kernels as kernels

    arguments = {
        kernels.scan: ("queries", "cells", "cells_per_split"),
        kernels.gather: ("objects", "queries", "splits"),
    }
    for kernel, sizes in arguments.items():
        if os.environ.get("TRITON_INTERPRET") == "1":
            pytest.skip("TRITON_INTERPRET=1 is set: nothing is compiled")
        plain = {param.name: param.do_not_specialize and not param.is_constexpr for param in kernel.params}
        assert all(plain[name] for name in sizes)


@pytest.mark.parametrize("cells", [1, 1500, 16_200, 648_000])
@pytest.mark.parametrize("tiles", [1, 51, 10_000])
def test_programs_share_the_memory_so_that_no_multiprocessor_waits(tiles, cells):
    share = triton_readout._share(4 * 132, tiles, cells, 64)
    assert share % 64 == 0
    assert share >= 1024
    programs = tiles * -(-cells // share)
    assert programs <= max(4 * 132, tiles)
    assert programs >= min(2 * 132, tiles * (cells // 1100))


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="TRITON_INTERPRET=1 is set")
def test_asking_for_triton_where_it_cannot_run_says_why(monkeypatch):
    query, keys, values = torch.zeros(4, 3), torch.zeros(9, 4), torch.zeros(9, 1, 2)
    with pytest.raises(
        RuntimeError, match="cannot run: the tensors are on cpu, not on a CUDA device; use backend="
    ):
        topk_readout(query, keys, values, backend="triton")
    with monkeypatch.context() as patch:  # nobody needs triton before a GPU
        patch.setattr(triton_readout, "find_spec", lambda name: None)
        with pytest.raises(RuntimeError, match=r"on cpu, not on a CUDA device; use backend='auto'$"):
            topk_readout(query, keys.double(), values, 129, backend="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(
        RuntimeError, match=r"keys is torch.float64; float32, float16 and bfloat16 can be read"
    ):
        topk_readout(query, keys.double(), values, backend="triton")
    with pytest.raises(RuntimeError, match="it has no gradient and values requires one"):
        topk_readout(query, keys, values.requires_grad_(), backend="triton")
    with pytest.raises(RuntimeError, match="top_k is 129, and it keeps 128 cells at most"):
        topk_readout(query, keys, values.detach(), 129, backend="triton")
    monkeypatch.setattr(triton_readout, "find_spec", lambda name: None)
    with pytest.raises(
        RuntimeError, match=r"comes with torch's CUDA builds, is not installed; use backend='auto'$"
    ):
        topk_readout(query, keys, values, backend="triton")
