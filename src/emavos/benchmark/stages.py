"""How fast a model runs here: `python -m emavos.benchmark`.

Weights are random and frames are noise: the time does not depend on them, and nothing is said about masks.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch

from emavos.machine import describe
from emavos.masks import aggregate, pad_to_stride
from emavos.memory import MemoryBank, MemoryPolicy
from emavos.models import PRESETS, STCN
from emavos.session import Session


@dataclass(frozen=True)
class Timing:
    """Medians, in milliseconds, of one model on one kind of frame."""

    model: str
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


def measure(
    name: str,
    *,
    height: int = 480,
    width: int = 854,
    objects: int = 1,
    memory_frames: int = 10,
    repeats: int = 5,
    device: str = "cpu",
) -> Timing:
    """Time the stages of a preset, and whole steps of a session.

    memory_frames: held by the bank that is read. repeats: measured runs after a warm-up; medians count.
    """
    torch.manual_seed(0)
    policy = MemoryPolicy(max_frames=memory_frames)
    model = STCN(PRESETS[name]).eval().to(device)
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
        frame, _ = pad_to_stride(torch.randn(1, 3, height, width, device=device))
        prob = torch.rand(1, objects, *frame.shape[2:], device=device)
        features = model.encode_key(frame)
        values = model.encode_value(frame, features, prob)
        bank = MemoryBank(policy)
        for _ in range(memory_frames):
            bank.add(torch.randn_like(features.key[0]), values[0])
        readout = bank.read(features.key[0])[None]
        key = timed(lambda: model.encode_key(frame))
        read = timed(lambda: bank.read(features.key[0]))
        decode = timed(lambda: aggregate(model.decode(readout, features).sigmoid()))
        value = timed(lambda: model.encode_value(frame, features, prob))
    step = _time_of_steps(model, policy, height, width, objects, repeats)
    return Timing(
        model=name,
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
    )


def _time_of_steps(
    model: STCN, policy: MemoryPolicy, height: int, width: int, objects: int, repeats: int
) -> float:
    """Milliseconds of a step, over whole periods of the policy, while the bank fills from one frame."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.int32)
    for i in range(objects):
        mask[:, i * width // (objects + 1) : (i + 1) * width // (objects + 1)] = i + 1
    session = Session(model, policy, size=None)
    session.step(pixels, mask)
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


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m emavos.benchmark", description=__doc__)
    parser.add_argument("--model", action="append", choices=list(PRESETS), help="a preset (stcn, stcn-tiny)")
    parser.add_argument("--height", type=int, default=480, help="of frames, in pixels (480)")
    parser.add_argument("--width", type=int, default=854, help="(854)")
    parser.add_argument("--objects", type=int, default=1, help="(1)")
    parser.add_argument("--memory-frames", type=int, default=10, help="(10)")
    parser.add_argument("--repeats", type=int, default=5, help="measured runs, after one more (5)")
    parser.add_argument("--threads", type=int, help="of torch (its default)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    threads = torch.get_num_threads()
    machine = describe(torch.device(args.device))
    print(machine)
    print(
        f"{args.height}x{args.width}, {args.objects} objects, {args.memory_frames} memory frames; random "
        "weights; milliseconds are medians"
    )
    columns = ("encode_key", "read", "decode", "encode_value", "stages_fps", "session_fps", "peak_mb")
    print(f"{'model':22}" + "".join(f"{column:>13}" for column in columns))
    timings = []
    for name in args.model or ("stcn", "stcn-tiny"):
        # a process of its own, for a peak of its own
        with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as process:
            timing = process.submit(
                measure,
                name,
                height=args.height,
                width=args.width,
                objects=args.objects,
                memory_frames=args.memory_frames,
                repeats=args.repeats,
                device=args.device,
            ).result()
        timings.append(asdict(timing))
        cells = (f"{timings[-1][column]:13.{2 if column.endswith('fps') else 0}f}" for column in columns)
        print(f"{name:22}" + "".join(cells))
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": machine, "timings": timings}, indent=2) + "\n")


if __name__ == "__main__":
    main()
