"""Check that memory and time stay flat over a long stream: `python docs/measure/speed/stream.py`.

A small scene is played forward and backward for many frames. The process's memory and the time per frame are
compared between the first window of frames after the warm-up and the last window.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import get_args

import torch

from emavos.demo import synthetic_clip
from emavos.machine import describe
from emavos.memory import Eviction, MemoryPolicy
from emavos.models import PRESETS, STCN
from emavos.predictor import Predictor
from emavos.weights.load import choose_dtype, load_model

SCENE = 24  # number of different frames


def measure(
    model: STCN,
    policy: MemoryPolicy,
    frames: int,
    height: int,
    width: int,
    objects: int,
    windows: int,
    dtype: torch.dtype | None = None,
) -> Iterator[dict[str, float]]:
    """Time and memory of each window of a stream with one to three objects.

    Times are medians in milliseconds per frame, over periods of `policy.every` frames with one memory frame
    each: `cpu` is the time of the process, unaffected by other programs, and `wall` the elapsed time.
    """
    pictures, masks = synthetic_clip(SCENE, (height, width))
    order = cycle([*range(SCENE), *range(SCENE - 2, 0, -1)])
    session = Predictor(model, policy, size=None, dtype=dtype).session()
    session.step(pictures[next(order)], masks[0] * (masks[0] <= objects))
    for number in range(windows):
        first = session.index
        cpu, wall = [], []
        for _ in range(max(frames // windows // policy.every, 1)):
            start = time.process_time(), time.perf_counter()
            for _ in range(policy.every):
                _ = session.step(pictures[next(order)]).mask
            cpu.append(1000 * (time.process_time() - start[0]) / policy.every)
            wall.append(1000 * (time.perf_counter() - start[1]) / policy.every)
        row = {"window": number, "first": first, "last": session.index - 1, "memory_mb": _resident_mb()}
        yield row | {"bank_mb": session.nbytes / 1e6, "cpu": median(cpu), "wall": median(wall)}


def _resident_mb() -> float:
    """The memory of the process in megabytes; NaN except on Linux."""
    status = Path("/proc/self/status")
    found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return float("nan") if found is None else int(found[1]) * 1024 / 1e6


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/stream.py", description=__doc__)
    parser.add_argument(
        "--model", help="the embedded one (default), or a preset, with random weights", choices=list(PRESETS)
    )
    parser.add_argument("--frames", type=int, default=10_000, help="(10000)")
    parser.add_argument("--height", type=int, default=128, help="of frames, in pixels (128)")
    parser.add_argument("--width", type=int, default=224, help="(224)")
    parser.add_argument("--objects", type=int, choices=(1, 2, 3), default=1, help="(1)")
    parser.add_argument("--windows", type=int, default=10, help="(10)")
    parser.add_argument("--every", type=int, default=MemoryPolicy.every, help=f"({MemoryPolicy.every})")
    parser.add_argument(
        "--max-frames", type=int, default=MemoryPolicy.max_frames, help=f"({MemoryPolicy.max_frames})"
    )
    parser.add_argument("--eviction", choices=get_args(Eviction), default=MemoryPolicy.eviction)
    types = "auto", "float32", "bfloat16"
    parser.add_argument("--dtype", choices=types, default="float32", help="(float32)")
    parser.add_argument("--threads", type=int, help="threads of torch (its default)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = load_model(None) if args.model is None else STCN(PRESETS[args.model]).eval()
    policy = MemoryPolicy(every=args.every, max_frames=args.max_frames, eviction=args.eviction)
    machine = describe(torch.device("cpu"))
    print(machine)
    print("| frames | process, MB | bank, MB | CPU, ms a frame | wall, ms a frame |")
    print("| --- | --- | --- | --- | --- |")
    rows = []
    auto = choose_dtype(torch.device("cpu"), model.config)
    dtype = auto if args.dtype == "auto" else getattr(torch, args.dtype)
    size = args.height, args.width
    for row in measure(model, policy, args.frames, *size, args.objects, args.windows, dtype):
        rows.append(row)
        cells = [f"{row[name]:.1f}" for name in ("memory_mb", "bank_mb", "cpu", "wall")]
        print(f"| {row['first']} to {row['last']} | {' | '.join(cells)} |", flush=True)
    if len(rows) > 2:  # the first window is the warm-up
        growth = {name: rows[-1][name] / rows[1][name] - 1 for name in ("memory_mb", "cpu", "wall")}
        print("the last against the second: " + ", ".join(f"{name} {x:+.1%}" for name, x in growth.items()))
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": machine, "windows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
