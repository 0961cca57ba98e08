"""Top-k of a readout on a CPU, in a small C++ function; `prepare` compiles it once into the user's cache.

Optional: compiling needs a C++ compiler, and the other backends return the same readout.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from emavos.memory import native_build
from emavos.memory.native_build import NO_COMPILER, Build, NotReadyError

_BLOCK = 8192  # cells per block, so that the intermediate results stay in the cache
_SPAN = 20.0  # 128 cells this far below the best weigh 3e-7 together


def obstacle(query: Tensor, keys: Tensor, values: Tensor, top_k: int) -> str | None:
    """The reason why the native readout cannot run on these tensors; None if nothing prevents the readout."""
    for name, x in {"query": query, "keys": keys, "values": values}.items():
        if x.device.type != "cpu":
            return f"{name} is on {x.device}, not on the CPU"
        if x.dtype != torch.float32 and name != "values":  # PyTorch sums the values
            return f"{name} is {x.dtype}; only float32 can be read"
        if torch.is_grad_enabled() and x.requires_grad:
            return f"it has no gradient and {name} requires one"
    lacks_compiler = sys.platform == "win32" or native_build.compiler() is None
    if lacks_compiler and not _loaded and unprepared() is not None:
        return NO_COMPILER
    return None


_loaded: list[Build] = []  # of this process: one at most


def load() -> Build:
    """The build that this process uses: the prepared one; if there is none, one that is compiled now.

    Writes nothing to the user's cache, as that would change what "auto" is: only `prepare` does.

    Raises RuntimeError if the function does not compile or load.
    """
    if not _loaded and unprepared() is not None:
        _loaded.append(native_build.build_here())
    return _loaded[0]


def unprepared() -> str | None:
    """The reason why no prepared build can be used; None if one is ready, and loaded. Compiles nothing."""
    try:
        build = native_build.prepared()
    except NotReadyError as reason:
        return str(reason)
    if not _loaded:  # now, so that nothing is compiled in the middle of a video if the folder is removed
        _loaded.append(build)
    return None


def prepare() -> Build:
    """Compile the native readout into the user's cache, unless this compiler's build is there already.

    After that, `backend="auto"` uses the native readout in new sessions on the CPU.

    Raises RuntimeError if the function does not compile or load, and if the cache cannot be used.
    """
    if sys.platform == "win32":
        raise RuntimeError("the native readout is not built on Windows; the others need no preparation")
    try:
        build = native_build.prepared()
        if native_build.compiler() is None or build.compiler == native_build.version():
            return build
    except NotReadyError:
        pass
    return native_build.build()


def native_topk(query: Tensor, keys: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Similarities and indices (P, top_k) of the cells most similar to each query cell, unordered.

    Similarities are exact up to a constant per query cell, which cancels in the softmax. Cells with a weight
    below e^-20 of the best may be missing; their entries are -inf and 0. If a key is NaN or infinite, all
    similarities are NaN; if a query cell is, the similarities of that cell are.

    query: (Ck, P).
    keys: (N, Ck).

    Raises RuntimeError if the function does not compile or load.
    """
    scan = load().scan
    (cells, channels), queries = keys.shape, query.shape[1]
    lead = -(-channels // 4)
    centre, axes = _axes(query)
    rows = (query.T - centre) @ axes * (2 * channels**-0.5)
    rows_rest = torch.linalg.vector_norm(rows[:, lead:], dim=1)
    best = torch.full((queries, top_k), -torch.inf, dtype=torch.float32, device=query.device)
    index = torch.zeros(queries, top_k, dtype=torch.long, device=query.device)
    for first in range((cells - 1) // _BLOCK * _BLOCK, -1, -_BLOCK):  # the last frames are the most similar
        block = (keys[first : first + _BLOCK] - centre) @ axes
        offset = torch.linalg.vecdot(block, block) * -(channels**-0.5)
        if not offset.isfinite().all():  # comparisons skip NaN
            return best.fill_(torch.nan), index
        rest = torch.linalg.vector_norm(block[:, lead:], dim=1)
        memory = (x.data_ptr() for x in (rows, block, offset, rows_rest, rest))
        sizes = queries, len(block), channels, lead, top_k
        scan(*memory, *sizes, _SPAN, torch.get_num_threads(), first, best.data_ptr(), index.data_ptr())
    return best, index


def _axes(query: Tensor) -> tuple[Tensor, Tensor]:
    """The shift (Ck,) and the rotation (Ck, Ck) applied to queries and keys.

    query: (Ck, P).

    Neither changes the distances of STCN's similarity. The shift centres the queries. The rotation sorts the
    channels by the variance of the queries, so the first channels account for most of a distance.
    """
    centre = query.mean(dim=1)
    if query.shape[1] == 0 or not centre.isfinite().all():  # no axes exist
        return query.new_zeros(len(query)), torch.eye(len(query), dtype=query.dtype, device=query.device)
    rows = query.T - centre
    return centre, torch.linalg.eigh(rows.T @ rows)[1].flip(1)  # largest variance first
