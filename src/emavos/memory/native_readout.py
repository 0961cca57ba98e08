"""The top-k of a readout on a CPU by a small C++ function, compiled when it is first asked for.

It is an option, never needed: it takes a C++ compiler, and the readout is the same without it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

_SOURCE = Path(__file__).with_suffix(".cpp")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")
_QUERIES = 32  # that the function takes at once


def obstacle(query: Tensor, keys: Tensor, values: Tensor, top_k: int) -> str | None:
    """Why this readout cannot be done so, or None where it can."""
    for name, x in {"query": query, "keys": keys, "values": values}.items():
        if x.device.type != "cpu":
            return f"{name} is on {x.device}, not on the CPU"
        if x.dtype != torch.float32:
            return f"{name} is {x.dtype}; float32 alone can be read"
        if torch.is_grad_enabled() and x.requires_grad:
            return f"it has no gradient and {name} requires one"
    if sys.platform == "win32" or _compiler() is None:
        return "no C++ compiler is found: install g++ or clang, or name one by the environment variable CXX"
    return None


def native_topk(query: Tensor, keys: Tensor, norms: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The similarities of the top_k cells of each query cell and where they are, (P, top_k), in no order.

    query: (Ck, P). keys: (N, Ck). norms: (N,), |k|^2. Raises RuntimeError where it does not compile.
    """
    scan = _function()
    (cells, channels), queries, threads = keys.shape, query.shape[1], torch.get_num_threads()
    rows, keys = (2 * channels**-0.5 * query.T).contiguous(), keys.contiguous()
    offset = norms.float() * -(channels**-0.5)
    best = torch.empty(queries, top_k)
    index = torch.empty(queries, top_k, dtype=torch.long)

    def run(first: int, last: int) -> None:  # ctypes lets other threads run meanwhile
        part, to_best, to_index = (x[first:last].data_ptr() for x in (rows, best, index))
        sizes = (last - first, cells, channels, top_k)
        scan(part, keys.data_ptr(), offset.data_ptr(), *sizes, to_best, to_index)

    share = -(-queries // (threads * _QUERIES)) * _QUERIES
    if queries <= share:
        run(0, queries)
    else:
        firsts = range(0, queries, share)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, firsts, (min(first + share, queries) for first in firsts)))
    return best, index


def _compiler() -> str | None:
    named = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, [named] if named else ["c++", "g++", "clang++"])), None)


@cache
def _function() -> Callable[..., None]:
    compiler = _compiler()
    assert compiler is not None
    with TemporaryDirectory() as folder:
        library = Path(folder, "readout.so")
        command = [compiler, *_FLAGS, str(_SOURCE), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the native readout does not compile: {' '.join(command)}\n{done.stderr}")
        scan = ctypes.CDLL(str(library)).scan  # what is loaded stays when its file goes
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    scan.argtypes = [pointer, pointer, pointer, size, size, size, size, pointer, pointer]
    scan.restype = None
    return scan
