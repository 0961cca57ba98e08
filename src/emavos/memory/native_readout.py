"""The top-k of a readout on a CPU by a small C++ function, compiled when it is first asked for.

It is an option, never needed: it takes a C++ compiler, and the readout is the same without it.
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
_BLOCK = 8192  # cells at once: what is made of them stays small, and in the cache
_SPAN = 20.0  # 128 cells so far below the first weigh 3e-7 together


def obstacle(query: Tensor, keys: Tensor, values: Tensor, top_k: int) -> str | None:
    """Why this readout cannot be done so, or None where it can."""
    for name, x in {"query": query, "keys": keys, "values": values}.items():
        if x.device.type != "cpu":
            return f"{name} is on {x.device}, not on the CPU"
        if x.dtype != torch.float32 and name != "values":  # which PyTorch sums
            return f"{name} is {x.dtype}; float32 alone can be read"
        if torch.is_grad_enabled() and x.requires_grad:
            return f"it has no gradient and {name} requires one"
    if sys.platform == "win32" or _compiler() is None:
        return "no C++ compiler is found: install g++ or clang, or name one by the environment variable CXX"
    return None


def native_topk(query: Tensor, keys: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The similarities of the top_k cells of each query cell and where they are, (P, top_k), in no order.

    Similarities are up to a number for each query cell, which a softmax does not see. Of cells that would
    weigh less than e^-20 of the first in it not all are found; in their place are -inf and 0. Where keys hold
    NaN or infinity so do all similarities, and those of a query cell that does.

    query: (Ck, P). keys: (N, Ck). Raises RuntimeError where it does not compile or load.
    """
    scan = _function()
    (cells, channels), queries = keys.shape, query.shape[1]
    lead = -(-channels // 4)
    centre, axes = _axes(query)
    rows = (query.T - centre) @ axes * (2 * channels**-0.5)
    rows_rest = torch.linalg.vector_norm(rows[:, lead:], dim=1)
    best = torch.full((queries, top_k), -torch.inf, dtype=torch.float32, device=query.device)
    index = torch.zeros(queries, top_k, dtype=torch.long, device=query.device)
    for first in range((cells - 1) // _BLOCK * _BLOCK, -1, -_BLOCK):  # the last frames are the most alike
        block = (keys[first : first + _BLOCK] - centre) @ axes
        offset = torch.linalg.vecdot(block, block) * -(channels**-0.5)
        if not offset.isfinite().all():  # no comparison would see them
            return best.fill_(torch.nan), index
        rest = torch.linalg.vector_norm(block[:, lead:], dim=1)
        memory = (x.data_ptr() for x in (rows, block, offset, rows_rest, rest))
        sizes = queries, len(block), channels, lead, top_k
        scan(*memory, *sizes, _SPAN, torch.get_num_threads(), first, best.data_ptr(), index.data_ptr())
    return best, index


def _axes(query: Tensor) -> tuple[Tensor, Tensor]:
    """Where query (Ck, P) and keys are moved to, (Ck,), and how they are turned, (Ck, Ck).

    The distances of STCN's similarity stay what they are. The centre is that of the queries, and the first
    channels are those in which they differ most, so that they tell nearly all of a distance.
    """
    centre = query.mean(dim=1)
    if query.shape[1] == 0 or not centre.isfinite().all():  # of which there are no axes
        return query.new_zeros(len(query)), torch.eye(len(query), dtype=query.dtype, device=query.device)
    rows = query.T - centre
    return centre, torch.linalg.eigh(rows.T @ rows)[1].flip(1)  # from the widest on


def _compiler() -> list[str] | None:
    """The command, with options that CXX may have."""
    whole = os.environ.get("CXX", "")
    try:
        named = [whole] if shutil.which(whole) else shlex.split(whole)
    except ValueError:  # a quote without its other
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
        for threads in (["-fopenmp"], []):  # not all compilers have OpenMP; without, one thread does it
            command = [*compiler, *_FLAGS, *threads, str(_SOURCE), "-o", str(library)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
        else:
            raise RuntimeError(f"the native readout does not compile: {' '.join(command)}\n{done.stderr}")
        try:
            scan = ctypes.CDLL(str(library)).scan  # what is loaded stays when its file goes
        except OSError as error:  # such as of a folder from which nothing may be executed
            raise RuntimeError(
                f"the native readout is compiled but not loaded: {error}; name another folder by TMPDIR"
            ) from error
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    scan.argtypes = [*[pointer] * 5, *[size] * 5, ctypes.c_float, size, size, pointer, pointer]
    scan.restype = None
    return scan
