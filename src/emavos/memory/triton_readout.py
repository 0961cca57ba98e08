"""The readout on a GPU as two triton kernels: one pass over the memory, and no matrix of N x P.

Triton comes with the CUDA builds of torch. It is imported only if a readout uses the kernels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

MAX_TOP_K = 128
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_CAPABILITY = (7, 5)  # the oldest capability that the tests compile the kernels for
_MIN_SHARE = 1024  # memory cells per program, at least


@dataclass(frozen=True)
class Tiles:
    """Sizes of the kernels' blocks. They affect the time of a readout, not its result.

    The defaults use few registers. `.ci/gpu` measures other sizes on a GPU.
    """

    queries: int = 32  # query cells per program of `scan`
    cells: int = 64  # memory cells per step of `scan`
    gathered: int = 4096  # values per step of `gather`: columns times slots
    scan_warps: int = 8
    gather_warps: int = 4
    stages: int = 1
    programs: int = 4  # of `scan` per multiprocessor, as a target


# sizes measured by `.ci/gpu`, by compute capability; other GPUs use the defaults
MEASURED: Mapping[tuple[int, int], Tiles] = {(9, 0): Tiles(gathered=8192, scan_warps=4)}


def obstacle(query: Tensor, keys: Tensor, values: Tensor, top_k: int) -> str | None:
    """The reason why the kernels cannot compute this readout; None if nothing prevents it.

    The device is checked first: on a CPU, no other change would help.
    """
    tensors = {"query": query, "keys": keys, "values": values}
    if query.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the tensors are on {query.device}, not on a CUDA device"
    if query.device.type == "cuda" and torch.version.hip is None:
        capability = torch.cuda.get_device_capability(query.device)
        if capability < _CAPABILITY:
            return f"this GPU is of compute capability {capability[0]}.{capability[1]}, older than 7.5"
    if find_spec("triton") is None:
        return "triton, which comes with torch's CUDA builds, is not installed"
    for name, x in tensors.items():
        if x.device != query.device:
            return f"query is on {query.device} but {name} on {x.device}"
        if x.dtype not in _DTYPES:
            return f"{name} is {x.dtype}; float32, float16 and bfloat16 can be read"
        if torch.is_grad_enabled() and x.requires_grad:
            return f"it has no gradient and {name} requires one"
    if top_k > MAX_TOP_K:
        return f"top_k is {top_k}, and it keeps {MAX_TOP_K} cells at most"
    return None


def triton_readout(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    top_k: int,
    norms: Tensor,
    received: Tensor | None = None,
    tiles: Tiles | None = None,
) -> Tensor:
    """`topk_readout` on tensors without an `obstacle`.

    norms: (N,), |k|^2.
    tiles: sizes of blocks; None: those of the device.
    """
    from emavos.memory import triton_kernels as kernels

    (channels, queries), (cells, objects, value_channels) = query.shape, values.shape
    top_k = min(top_k, cells)
    out = values.new_empty(queries, objects, value_channels)
    if out.numel() == 0:
        return out.permute(1, 2, 0)
    tiles = tiles_of(query.device) if tiles is None else tiles
    constants = scan_constants(channels, top_k, _factors(query, keys), tiles)
    rows = -(-queries // tiles.queries)
    share = _share(tiles.programs * _processors(query.device), rows, cells, tiles.cells)
    splits = -(-cells // share)
    top = torch.empty(splits, queries, constants["SLOTS"], dtype=torch.float32, device=query.device)
    places = torch.empty(top.shape, dtype=torch.int32, device=query.device)
    with torch.cuda.device(query.device if query.is_cuda else -1):
        kernels.scan[rows, splits](
            query,
            keys,
            norms.float(),
            top,
            places,
            queries,
            cells,
            share,
            *query.stride(),
            *keys.stride(),
            channels**-0.5,
            **constants,
            num_warps=tiles.scan_warps,
            num_stages=tiles.stages,
        )
        kernels.gather[queries,](
            top,
            places,
            values,
            out,
            top if received is None else received,
            queries,
            splits,
            *values.stride(),
            objects,
            **gather_constants(value_channels, top_k, received is not None, tiles),
            num_warps=tiles.gather_warps,
            num_stages=tiles.stages,
        )
    return out.permute(1, 2, 0)


def tiles_of(device: torch.device) -> Tiles:
    """The sizes of blocks for a device."""
    if device.type != "cuda" or torch.version.hip is not None:
        return Tiles()
    return MEASURED.get(torch.cuda.get_device_capability(device), Tiles())


def scan_constants(channels: int, top_k: int, factors: torch.dtype, tiles: Tiles = Tiles()) -> dict[str, Any]:
    """Compile-time constants of `scan`.

    channels: Ck.
    factors: dtype in which keys and queries are multiplied.
    """
    import triton.language as tl

    return {
        "CHANNELS": channels,
        "TOP_K": top_k,
        "SLOTS": _power_of_two(top_k),
        "QUERIES": tiles.queries,
        "CELLS": tiles.cells,
        "STEP": max(_power_of_two(channels), 16) if channels <= 64 else 32,
        "DTYPE": getattr(tl, str(factors).removeprefix("torch.")),
    }


def gather_constants(
    channels: int, top_k: int, counts: bool = False, tiles: Tiles = Tiles()
) -> dict[str, Any]:
    """Compile-time constants of `gather`, without the number of objects: a new object compiles nothing.

    channels: Cv.
    counts: whether weights are added to `received`.
    """
    slots = _power_of_two(top_k)
    return {
        "CHANNELS": channels,
        "TOP_K": top_k,
        "SLOTS": slots,
        "COUNTS": counts,
        "STEP": min(_power_of_two(channels), max(tiles.gathered // slots, 1)),
    }


def _factors(query: Tensor, keys: Tensor) -> torch.dtype:
    """The dtype in which keys and queries are multiplied. Products of halves are exact in float32."""
    if query.dtype != keys.dtype or query.dtype == torch.float32:
        return torch.float32
    if query.dtype == torch.bfloat16 and not _multiplies_bfloat16(query.device):
        return torch.float32
    return query.dtype


def _multiplies_bfloat16(device: torch.device) -> bool:
    # triton's interpreter would multiply the bits of a bfloat16 as an integer
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _share(programs: int, rows: int, cells: int, tile: int) -> int:
    """Memory cells per program: few enough to keep every multiprocessor busy, but not too few to pay.

    programs: number of programs that keep the GPU busy.
    rows: programs that share the query cells.
    tile: cells per step; the share is a multiple.
    """
    splits = max(programs // rows, 1)
    return -(-max(-(-cells // splits), _MIN_SHARE) // tile) * tile


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()
