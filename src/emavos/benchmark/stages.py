"""How fast a model runs here: what `emavos bench` measures.

What is timed is the network of a `Predictor`, folded and in its type, as users run it. Weights are random and
frames are noise: the time does not depend on them, and nothing is said about masks.
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

from emavos.benchmark.cost import gflop
from emavos.masks import aggregate, pad_to_stride
from emavos.memory import MemoryBank, MemoryPolicy
from emavos.models import PRESETS, STCN
from emavos.predictor import Predictor


@dataclass(frozen=True)
class Timing:
    """Medians, in milliseconds, of one model on one kind of frame."""

    model: str
    dtype: str
    parameters: int
    height: int
    width: int
    objects: int
    memory_frames: int
    encode_key: float
    read: float
    decode: float  # with the aggregation
    encode_value: float
    stages_fps: float  # of key + read + decode + value / every: the network and its memory alone
    session_fps: float  # of Session.step, all included
    peak_mb: float  # of the process on a CPU, of the allocator on CUDA
    gflops: float  # 10^9 operations a second of key, decoder and value, as convolutions are counted


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
) -> Timing:
    """Time the stages of a preset, and whole steps of a session.

    memory_frames: held by the bank that is read. repeats: measured runs after a warm-up; medians count.
    """
    torch.manual_seed(0)
    policy = MemoryPolicy(max_frames=memory_frames)
    model = STCN(PRESETS[name]).eval().to(device)
    predictor = Predictor(model, policy, size=None, dtype=dtype)
    network = predictor.network
    model.to(dtype)  # as `Predictor.from_pretrained` does
    synchronize = torch.cuda.synchronize if torch.device(device).type == "cuda" else _nothing

    def timed(run: Callable[[], object]) -> float:
        run()
        times = []
        for _ in range(repeats):
            synchronize()
            start = time.perf_counter()
            run()
            synchronize()
            times.append(1000 * (time.perf_counter() - start))
        return median(times)

    with torch.no_grad():
        frame = pad_to_stride(torch.randn(1, 3, height, width, device=device))[0]
        frame = frame.to(next(network.parameters()).dtype)  # of the first layers, which may not be rounded
        prob = torch.rand_like(frame[:, :1]).repeat(1, objects, 1, 1)
        features = network.encode_key(frame)
        values = network.encode_value(frame, features, prob)
        bank = MemoryBank(policy)
        for _ in range(memory_frames):
            bank.add(torch.randn_like(features.key[0]).float(), values[0])
        query = features.key[0].float()
        readout = bank.read(query, memory_frames)[None]
        key = timed(lambda: network.encode_key(frame))
        read = timed(lambda: bank.read(query, memory_frames))
        decode = timed(lambda: aggregate(network.decode(readout, features)[0].float().sigmoid()))
        value = timed(lambda: network.encode_value(frame, features, prob))
    step = _time_of_steps(predictor, height, width, objects, repeats)
    with torch.device("meta"):
        counts = gflop(STCN(PRESETS[name]), height, width, objects, memory_frames=1)
    operations = counts["encode_key"] + counts["decode"] + counts["encode_value"]
    return Timing(
        model=name,
        dtype=str(dtype).removeprefix("torch."),
        parameters=sum(p.numel() for p in model.parameters()),
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


def measure_apart(name: str, threads: int, **options: Any) -> Timing:
    """`measure` in a process of its own, for a peak of its own."""
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as process:
        return process.submit(measure, name, **options).result()


def _time_of_steps(predictor: Predictor, height: int, width: int, objects: int, repeats: int) -> float:
    """Milliseconds of a step, over whole periods of the policy, while the bank fills from one frame."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.int32)
    for i in range(objects):
        mask[:, i * width // (objects + 1) : (i + 1) * width // (objects + 1)] = i + 1
    session, every = predictor.session(), predictor.policy.every
    session.step(pixels, mask)
    periods = []
    for _ in range(max(repeats // 2, 1)):
        start = time.perf_counter()
        for _ in range(every):
            _ = session.step(pixels).mask
        periods.append(1000 * (time.perf_counter() - start) / every)
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
