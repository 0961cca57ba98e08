"""Speed of a model on this machine: the measurements of `emavos bench`.

Weights are random and frames are noise, because the time does not depend on them. The masks are meaningless.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emavos.benchmark.cost import gflop, parameters
from emavos.frames.preprocess import pad_to_stride
from emavos.memory import MemoryBank, MemoryPolicy
from emavos.models import PRESETS, STCN, aggregate
from emavos.predictor import Predictor
from emavos.session import Session


@dataclass(frozen=True)
class Timing:
    """Median times, in milliseconds, of one model on frames of one size."""

    model: str
    dtype: str
    parameters: int
    height: int
    width: int
    objects: int
    memory_frames: int
    encode_key: float
    read: float
    decode: float  # includes the aggregation
    encode_value: float
    stages_fps: float  # from key + read + decode + value / every: only the network and its memory
    session_fps: float  # from Session.step, everything included
    peak_mb: float  # the process on a CPU, the allocator on CUDA
    gflops: float  # 10^9 operations per second of key, decoder and value, counted by `gflop`


def measure(
    name: str,
    *,
    height: int = 480,
    width: int = 854,
    objects: int = 1,
    memory_frames: int = 10,
    repeats: int = 5,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    compile: bool = False,
) -> Timing:
    """Time the stages of a preset, and whole steps of a session.

    name: of the preset.
    height, width: of the frames, in pixels.
    objects: number of objects.
    memory_frames: frames in the memory, for the readout and for the steps.
    repeats: number of measured runs, after a warm-up.
    device, dtype: of the network.
    compile: whether to compile the key encoder.
    """
    torch.manual_seed(0)
    whole = STCN(PRESETS[name]).eval().to(device)
    policy = MemoryPolicy(max_frames=memory_frames)
    predictor = Predictor(whole, policy, size=None, dtype=dtype, compile=compile)
    model, policy = predictor.network, predictor.session().policy  # with the readout that sessions use

    def timed(run: Callable[[], object]) -> float:
        run()  # warm-up
        return median_ms(run, repeats, device)

    with torch.no_grad():
        frame = pad_to_stride(torch.randn(1, 3, height, width, device=device))[0]
        frame = frame.to(next(model.parameters()).dtype)
        prob = torch.rand(1, objects, *frame.shape[2:], device=device, dtype=frame.dtype)
        features = model.encode_key(frame)
        values = model.encode_value(frame, features, prob)
        bank = MemoryBank(policy)
        for _ in range(memory_frames):
            bank.add(torch.randn_like(features.key[0]).float(), values[0])
        query = features.key[0].float()
        readout = bank.read(query, memory_frames)[None]
        key = timed(lambda: model.encode_key(frame))
        read = timed(lambda: bank.read(query, memory_frames))
        decode = timed(lambda: aggregate(model.decode(readout, features)[0].float().sigmoid()))
        value = timed(lambda: model.encode_value(frame, features, prob))
    step = _time_of_steps(model, policy, query, values[0], height, width, repeats)
    counts = gflop(PRESETS[name], height, width, objects, memory_frames=1)
    operations = counts["encode_key"] + counts["decode"] + counts["encode_value"]
    return Timing(
        model=name,
        dtype=str(dtype).removeprefix("torch."),
        parameters=parameters(whole),
        height=height,
        width=width,
        objects=objects,
        memory_frames=memory_frames,
        encode_key=key,
        read=read,
        decode=decode,
        encode_value=value,
        stages_fps=1000 / (key + read + decode + value / policy.every),
        session_fps=1000 / step,
        peak_mb=_peak_mb(device),
        gflops=1000 * operations / (key + decode + value),
    )


def median_ms(run: Callable[[], object], repeats: int, device: str) -> float:
    """Median milliseconds of a call, without warm-up. On CUDA, a call ends when the GPU has finished.

    run: the call.
    repeats: number of measured calls.
    device: that the call computes on.
    """
    synchronize: Callable[[], object] = (
        torch.cuda.synchronize if torch.device(device).type == "cuda" else _nothing
    )
    times = []
    for _ in range(repeats):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        times.append(1000 * (time.perf_counter() - start))
    return median(times)


def stripes(objects: int, height: int, width: int) -> NDArray[np.int32]:
    """A mask (H, W) with one upright stripe per object."""
    mask = np.zeros((height, width), np.int32)
    for i in range(objects):
        mask[:, i * width // (objects + 1) : (i + 1) * width // (objects + 1)] = i + 1
    return mask


def measure_apart(name: str, threads: int, **options: Any) -> Timing:
    """Run `measure` in a new process, so that the peak memory counts only this model."""
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as process:
        return process.submit(measure, name, **options).result()


def _time_of_steps(
    model: STCN, policy: MemoryPolicy, key: Tensor, values: Tensor, height: int, width: int, repeats: int
) -> float:
    """Milliseconds per step, averaged over whole periods of the policy, with a full memory.

    key, values: (Ck, h, w) and (O, Cv, h, w) of a frame, to fill the memory.
    """
    objects = len(values)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    session = Session(model, policy, size=None)
    session.step(pixels, stripes(objects, height, width))
    for _ in range(1, policy.max_frames or 1):
        session.groups[0].bank.add(torch.randn_like(key), values)
    periods = []
    for _ in range(max(repeats // 2, 1)):
        start = time.perf_counter()
        for _ in range(policy.every):
            _ = session.step(pixels).mask
        periods.append(1000 * (time.perf_counter() - start) / policy.every)
    return median(periods)


def _nothing() -> None:
    pass


def _peak_mb(device: str) -> float:
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
