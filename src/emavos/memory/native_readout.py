"""Top-k of a readout on a CPU, in a small C++ function that is compiled on first use.

Optional: the function needs a C++ compiler, and the other backends return the same readout.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

_SOURCE = Path(__file__).with_suffix(".cpp")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")
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
    if sys.platform == "win32" or _compiler() is None:
        return "no C++ compiler is found: install g++ or clang, or name one by the environment variable CXX"
    return None


def native_topk(query: Tensor, keys: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Similarities and indices (P, top_k) of the cells most similar to each query cell, unordered.

    Similarities are exact up to a constant per query cell, which cancels in the softmax. Cells with a weight
    below e^-20 of the best may be missing; their entries are -inf and 0. If a key is NaN or infinite, all
    similarities are NaN; if a query cell is, the similarities of that cell are.

    query: (Ck, P).
    keys: (N, Ck).

    Raises RuntimeError if the function does not compile or load.
    """
    scan = _function()
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


def _compiler() -> list[str] | None:
    """The compiler command, including options in CXX; None if there is no compiler."""
    whole = os.environ.get("CXX", "")
    try:
        named = [whole] if shutil.which(whole) else shlex.split(whole)
    except ValueError:  # an unclosed quote
        return None
    return next(
        (x for x in ([named] if named else [["c++"], ["g++"], ["clang++"]]) if shutil.which(x[0])), None
    )


@cache
def _function() -> Callable[..., None]:
    compiler = _compiler()
    assert compiler is not None
    with TemporaryDirectory() as folder:
        library = Path(folder, "readout.so")
        for threads in (["-fopenmp"], []):  # some compilers lack OpenMP; then one thread is used
            command = [*compiler, *_FLAGS, *threads, str(_SOURCE), "-o", str(library)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
        else:
            raise RuntimeError(f"the native readout does not compile: {' '.join(command)}\n{done.stderr}")
        try:
            scan = ctypes.CDLL(str(library)).scan  # stays loaded after the file is deleted
        except OSError as error:  # for example a folder mounted noexec
            raise RuntimeError(
                f"the native readout is compiled but not loaded: {error}; name another folder by TMPDIR"
            ) from error
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    scan.argtypes = [*[pointer] * 5, *[size] * 5, ctypes.c_float, size, size, pointer, pointer]
    scan.restype = None
    return scan
