"""Peak speed of torch on this machine, to compare stages with: a matrix product and a convolution."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn import functional

_SIDE = 2048  # rows and columns of the matrices
_CHANNELS, _HEIGHT, _WIDTH = 256, 120, 216  # decoder at stride 4, frame of 480x864


@torch.inference_mode()
def ceilings(dtype: torch.dtype, device: str = "cpu", repeats: int = 5) -> dict[str, float]:
    """Speeds of "gemm" and "conv" (3x3, channels last), in 10^9 operations per second.

    dtype: of the operands.
    device: to measure.
    repeats: number of runs; the best counts.
    """
    a, b = (torch.randn(_SIDE, _SIDE, device=device).to(dtype) for _ in range(2))
    maps = torch.randn(1, _CHANNELS, _HEIGHT, _WIDTH, device=device).to(dtype)
    weight = torch.randn(_CHANNELS, _CHANNELS, 3, 3, device=device).to(dtype)
    maps, weight = (x.to(memory_format=torch.channels_last) for x in (maps, weight))
    runs: dict[str, tuple[float, Callable[[], object]]] = {
        "gemm": (2 * _SIDE**3, lambda: a @ b),
        "conv": (
            2 * 9 * _CHANNELS**2 * _HEIGHT * _WIDTH,
            lambda: functional.conv2d(maps, weight, padding=1),
        ),
    }
    return {name: flops / _best_seconds(run, device, repeats) / 1e9 for name, (flops, run) in runs.items()}


def _best_seconds(run: Callable[[], object], device: str, repeats: int) -> float:
    wait: Callable[[], object] = torch.cuda.synchronize if torch.device(device).type == "cuda" else _nothing
    run()
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


def _nothing() -> None:
    pass
