"""Readout of the memory: the affinity of keys, and the sum of values weighted by the affinity.

Similarity is STCN's negative squared distance (Cheng et al., NeurIPS 2021, eq. 3) over sqrt(Ck),

    S = (2 k.q - |k|^2) / sqrt(Ck).

|q|^2 is left out because it cancels in the softmax over the cells of the memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from emavos.memory import native_readout, triton_readout
from emavos.memory.native_build import GET_COMPILER, NO_COMPILER

Backend = Literal["auto", "dense", "blocks", "native", "triton"]
TopCells = tuple[Tensor, Tensor]  # similarities and cells of a memory, both (P, at most top_k), unordered

_GROUP = 8  # cells per group: groups are compared by their largest similarity, then cells
_CPU_BLOCK = (128, 32768)  # query cells, memory cells: 16 MB of similarities fit the last cache of a CPU
_GPU_BLOCK = (1024, 16384)  # 64 MB: enough work for all multiprocessors, and few launches


class CannotRunError(RuntimeError):
    """A backend was asked for and cannot run.

    reason: why, without what to do about it.
    remedy: what to do to make it run; "" if nothing can be done here.
    """

    def __init__(self, backend: Backend, reason: str) -> None:
        self.backend, self.reason = backend, reason
        self.remedy = GET_COMPILER if reason == NO_COMPILER else ""
        use = f"{self.remedy}, or use" if self.remedy else "use"
        super().__init__(f"the {backend} readout cannot run: {reason}; {use} backend='auto'")

    def __reduce__(self) -> tuple[type[CannotRunError], tuple[Backend, str]]:
        return type(self), (self.backend, self.reason)  # else the message would be the only argument

    @property
    def advice(self) -> str:
        """The reason, and what to do about it."""
        return f"{self.reason}; {self.remedy}" if self.remedy else self.reason


def topk_readout(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    top_k: int = 20,
    backend: Backend = "auto",
    *,
    norms: Tensor | None = None,
    received: Tensor | None = None,
) -> Tensor:
    """Values of the `top_k` memory cells most similar to each query cell, weighted by softmax: (O, Cv, P).

    query: (Ck, P).
    keys: (N, Ck).
    values: (N, O, Cv). The readout has the same dtype.
    top_k: number of memory cells per query cell; at most N are used.
    backend: implementation. All backends return the same readout.

    * "dense": the definition; writes the affinity (N, P) out.
    * "blocks": PyTorch on any device, in blocks of cells, so the extra memory does not grow with N.
    * "native": a C++ function on the CPU, compiled in about a second by each process, or once by `prepare`;
      float32, no gradient.
    * "triton": a fused kernel on CUDA; top_k up to 128, float32, float16 and bfloat16, no gradient.
    * "auto": "triton" on CUDA if the kernel can run, otherwise "blocks". A session also considers "native",
      before its first frame: see `choose_backend`.

    norms: (N,), |k|^2 of the keys, if you have them. The values are not checked.
    received: (N,) float32. The weight of each memory cell is added in place, P in total, without gradient.

    Similarities are float32 (float64 for float64 keys), under autocast too.

    Raises ValueError if shapes disagree, the memory is empty, top_k is below 1 or the backend does not exist,
    and RuntimeError if the chosen backend cannot run.
    """
    _check(query, keys, values, top_k, norms, received)
    if backend not in get_args(Backend):
        raise ValueError(f"backend is one of {', '.join(get_args(Backend))}, not {backend!r}")
    if backend == "auto":
        suits = query.is_cuda and triton_readout.obstacle(query, keys, values, top_k) is None
        backend = "triton" if suits else "blocks"
    elif backend in ("native", "triton"):
        _check_runs(backend, query, keys, values, top_k)
    with torch.autocast(query.device.type, enabled=False):  # half precision would select other cells
        if backend == "dense":
            return dense_readout(query, keys, values, top_k, received)
        if backend == "blocks" or backend == "native":
            return weighted_sum(*top_cells(query, keys, top_k, backend, norms), values, received)
        norms = squared_norms(keys) if norms is None else norms
        return triton_readout.triton_readout(query, keys, values, top_k, norms, received)


def dense_readout(
    query: Tensor, keys: Tensor, values: Tensor, top_k: int, received: Tensor | None = None
) -> Tensor:
    """The definition of `topk_readout`, with every matrix written out."""
    dtype = _dtype(query, keys)
    query, keys = query.to(dtype), keys.to(dtype)
    similarity = (2 * keys @ query - keys.square().sum(dim=1, keepdim=True)) / keys.shape[1] ** 0.5  # (N, P)
    top, index = similarity.topk(min(top_k, len(keys)), dim=0)
    affinity = torch.zeros_like(similarity).scatter(0, index, top.softmax(dim=0))
    if received is not None:
        received += affinity.detach().sum(dim=1).to(received.dtype)
    return (values.to(dtype).permute(1, 2, 0) @ affinity).to(values.dtype)


def top_cells(
    query: Tensor, keys: Tensor, top_k: int, backend: Literal["blocks", "native"], norms: Tensor | None = None
) -> TopCells:
    """The cells of `topk_readout`, and their similarities. "native" finds them up to a constant per query."""
    with torch.autocast(query.device.type, enabled=False):  # half precision would select other cells
        if backend == "blocks":
            return _block_topk(query, keys, norms, top_k)
        return native_readout.native_topk(query, keys, min(top_k, len(keys)))


def _block_topk(query: Tensor, keys: Tensor, norms: Tensor | None, top_k: int) -> tuple[Tensor, Tensor]:
    """The largest similarities of each query cell and their memory cells: both (P, at most top_k).

    Scans the memory block by block and keeps the best so far.

    query: (Ck, P).
    keys: (N, Ck).
    norms: (N,), |k|^2 of the keys; None: not computed yet.
    """
    cells = len(keys)
    queries_at_once, cells_at_once = _CPU_BLOCK if query.device.type == "cpu" else _GPU_BLOCK
    dtype, scale = _dtype(query, keys), keys.shape[1] ** -0.5
    scaled = query.T.to(dtype) * (2 * scale)  # (P, Ck)
    buffer = None
    if not torch.is_grad_enabled():  # reusing one buffer keeps it in the cache
        buffer = scaled.new_empty(min(queries_at_once, len(scaled)), min(cells_at_once, cells)).flatten()
    best, index = scaled.new_empty(len(scaled), 0), scaled.new_empty(len(scaled), 0, dtype=torch.long)
    for first in range(0, cells, cells_at_once):
        part = slice(first, first + cells_at_once)
        block = keys[part].to(dtype)  # (n, Ck)
        norm = squared_norms(block) if norms is None else norms[part].to(dtype)
        tops = []
        for some in scaled.split(queries_at_once):  # (p, Ck)
            shape = (len(some), len(block))
            out = None if buffer is None else buffer[: shape[0] * shape[1]].view(shape)
            similarity = torch.addmm(-scale * norm, some, block.T, out=out)  # (p, n)
            tops.append(_topk(similarity, min(top_k, len(block))))
        top, place = (torch.cat(x) for x in zip(*tops, strict=True))  # (P, k)
        best, index = torch.cat([best, top], dim=1), torch.cat([index, place + first], dim=1)
        if best.shape[1] > top_k:
            best, place = best.topk(top_k, dim=1, sorted=False)
            index = index.gather(1, place)
    return best, index


def _topk(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of each row (p, n) and their indices, unordered.

    The k largest values lie in the k groups with the largest maxima, so only these groups are searched. The
    groups are found in the same way. The cells of a group are n / 8 apart, so a CPU compares contiguous
    memory.
    """
    cells = similarity.shape[1]
    groups = cells // _GROUP
    if groups <= 2 * k:
        top, index = similarity.topk(k, dim=1, sorted=False)
        return top, index
    grouped = similarity.detach()[:, : groups * _GROUP].unflatten(1, (_GROUP, groups))
    group = _topk(grouped.amax(dim=1), k)[1]  # (p, k)
    steps = torch.arange(0, groups * _GROUP, groups, device=group.device)
    rest = torch.arange(groups * _GROUP, cells, device=group.device)  # fewer than a group
    index = (group.unsqueeze(1) + steps.unsqueeze(1)).flatten(1)
    index = torch.cat([index, rest.expand(len(index), -1)], dim=1)
    top, place = similarity.gather(1, index).topk(k, dim=1, sorted=False)
    return top, index.gather(1, place)


def weighted_sum(similarity: Tensor, index: Tensor, values: Tensor, received: Tensor | None) -> Tensor:
    """The values at index (P, k), weighted by the softmax of their similarities: (O, Cv, P)."""
    cells, objects, channels = values.shape
    rows = values.reshape(cells, objects * channels)
    weights = similarity.softmax(dim=1)
    if received is not None:
        received.index_add_(0, index.flatten(), weights.detach().flatten().to(received.dtype))
    weights = weights.to(rows.dtype)
    if not rows.shape[1]:  # embedding_bag fails on rows without columns if it has several threads
        return values.new_zeros(objects, channels, len(index))
    out = functional.embedding_bag(index, rows, mode="sum", per_sample_weights=weights)
    return out.view(len(index), objects, channels).permute(1, 2, 0)


def merged(tops: Sequence[TopCells], top_k: int) -> TopCells:
    """The `top_k` most similar of the cells found in several parts of a memory."""
    if len(tops) == 1:
        return tops[0]
    top, index = (torch.cat(x, dim=1) for x in zip(*tops, strict=True))
    if top.shape[1] <= top_k:
        return top, index
    top, place = top.topk(top_k, dim=1, sorted=False)
    return top, index.gather(1, place)


def squared_norms(keys: Tensor) -> Tensor:
    """|k|^2 of keys (..., Ck): (...,) in float32, or float64 for float64 keys."""
    wide = keys.to(_dtype(keys, keys))
    return torch.linalg.vecdot(wide, wide)


def _dtype(query: Tensor, keys: Tensor) -> torch.dtype:
    """The dtype of similarities."""
    return torch.promote_types(torch.promote_types(query.dtype, keys.dtype), torch.float32)


def _check(
    query: Tensor, keys: Tensor, values: Tensor, top_k: int, norms: Tensor | None, received: Tensor | None
) -> None:
    shapes = f"query {tuple(query.shape)}, keys {tuple(keys.shape)}, values {tuple(values.shape)}"
    if (query.ndim, keys.ndim, values.ndim) != (2, 2, 3):
        raise ValueError(f"expected query (Ck, P), keys (N, Ck), values (N, O, Cv), not {shapes}")
    if query.shape[0] != keys.shape[1] or keys.shape[0] != values.shape[0]:
        raise ValueError(f"sizes disagree: {shapes}")
    if keys.shape[0] == 0:
        raise ValueError("the memory is empty: there is nothing to read")
    if norms is not None and norms.shape != keys.shape[:1]:
        raise ValueError(f"norms are one a key, ({len(keys)},), not {tuple(norms.shape)}")
    if received is not None and (received.shape != keys.shape[:1] or received.dtype != torch.float32):
        raise ValueError(
            f"received is one float32 a key, ({len(keys)},), not {tuple(received.shape)} of {received.dtype}"
        )
    if top_k < 1:
        raise ValueError(f"top_k is at least 1, not {top_k}")


def choose_backend(backend: Backend, device: torch.device, dtype: torch.dtype, top_k: int = 20) -> Backend:
    """The backend for a whole session, decided before the first frame, so equal runs are equal to the bit.

    backend: as asked for. On a CPU, "auto" becomes "native" if a build is prepared (`prepare`), otherwise
        "blocks". Nothing is compiled. On other devices "auto" stays, because `topk_readout` decides by the
        limits of the kernels.
    device, dtype: of the network.
    top_k: memory cells per query cell.

    Raises RuntimeError if the backend is "native" or "triton" and cannot run on the device, or "triton" not
    with so many cells.
    """
    if backend in ("native", "triton"):
        cell = torch.empty(1, 1, dtype=torch.promote_types(dtype, torch.float32), device=device)
        _check_runs(backend, cell, cell, cell[None], top_k)
        if backend == "native":
            native_readout.load()  # compiled now, not in the middle of the first frame
    if backend != "auto" or device.type != "cpu":
        return backend
    is_float64 = torch.promote_types(dtype, torch.float32) != torch.float32
    return "blocks" if is_float64 or native_readout.unprepared() is not None else "native"


def _check_runs(backend: Backend, query: Tensor, keys: Tensor, values: Tensor, top_k: int) -> None:
    """Raise CannotRunError if the backend, "native" or "triton", cannot read these tensors."""
    readout = native_readout if backend == "native" else triton_readout
    if (reason := readout.obstacle(query, keys, values, top_k)) is not None:
        raise CannotRunError(backend, reason)


def full_affinity(query: Tensor, keys: Tensor, top_k: int = 0) -> Tensor:
    """Weights (B, N, P) of all memory cells for each query cell, as in training (STCN, eqs. 1 and 3).

    query: (B, Ck, P).
    keys: (B, N, Ck). The weights sum to one over N.
    top_k: give weight only to this many cells, the most similar; 0: to all.
    """
    similarity = 2 * keys @ query - keys.square().sum(dim=2, keepdim=True)  # (B, N, P)
    similarity = similarity / keys.shape[2] ** 0.5
    if 0 < top_k < keys.shape[1]:
        least = similarity.detach().topk(top_k, dim=1).values[:, -1:]  # (B, 1, P)
        similarity = similarity.masked_fill(similarity < least, -math.inf)
    return similarity.softmax(dim=1)


def full_readout(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Readout (B, O, Cv, P) over all cells, for a batch, as in training.

    query: (B, Ck, P).
    keys: (B, N, Ck).
    values: (B, N, O, Cv).
    """
    return weighted_values(full_affinity(query, keys), values)


def weighted_values(affinity: Tensor, values: Tensor) -> Tensor:
    """Values (B, N, O, Cv) summed with the weights (B, N, P) of an affinity: (B, O, Cv, P)."""
    out = values.flatten(2).transpose(1, 2) @ affinity  # (B, O * Cv, P)
    return out.unflatten(1, values.shape[2:])
