"""Measure time and memory for many objects: `python docs/measure/speed/objects.py`.

The objects are squares of a grid, tracked in frames of noise with random weights, since time and memory do
not depend on the content. Each number of objects runs in its own process, for its own peak memory.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from emavos.io import IdMask
from emavos.machine import PeakMemory, describe
from emavos.memory import MemoryPolicy
from emavos.models import PRESETS, STCN
from emavos.predictor import Predictor
from emavos.session import frame as current_frame


def measure(
    name: str, objects: int, height: int, width: int, memory_frames: int, at_once: int, threads: int
) -> dict[str, float]:
    """Milliseconds of CPU for a frame that is only read and for a frame stored in memory, and megabytes.

    name: name of a preset.
    objects: number of objects.
    height, width: size of the frames in pixels.
    memory_frames: frames in the memory bank before the last two frames are measured.
    at_once: objects per pass through the network.
    threads: torch's threads.

    In the result, `peak_mb` is the process's peak, `bank_mb` the size of the memory bank.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    current_frame.OBJECTS_AT_ONCE = at_once
    policy = MemoryPolicy(every=2, max_frames=memory_frames)
    session = Predictor(STCN(PRESETS[name]).eval(), policy, size=None).session()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    peak = PeakMemory(torch.device("cpu"))
    session.step(pixels, grid(objects, height, width))
    for _ in range(2 * (memory_frames - 1)):
        session.step(pixels)
    times = []
    for _ in range(2):
        begin = time.process_time()
        session.step(pixels)
        times.append(1000 * (time.process_time() - begin))
    row = {"objects": objects, "at_once": at_once, "read_ms": times[0], "memory_ms": times[1]}
    return row | {"bank_mb": session.nbytes / 1e6, "peak_mb": peak.mb() or math.nan}


def grid(objects: int, height: int, width: int) -> IdMask:
    """A mask (H, W) of adjacent boxes with ids from 1; a row below is background."""
    across = math.ceil(math.sqrt(objects * width / height))
    down = math.ceil(objects / across)
    y, x = np.mgrid[0:height, 0:width]
    mask = 1 + y * down // (height - 1) * across + x * across // width
    return np.where((mask <= objects) & (y < height - 1), mask, 0).astype(np.int32)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/objects.py", description=__doc__)
    parser.add_argument("--model", choices=list(PRESETS), default="stcn-tiny", help="(stcn-tiny)")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 2, 5, 10, 20, 50, 100, 200])
    parser.add_argument("--height", type=int, default=240, help="of frames, in pixels (240)")
    parser.add_argument("--width", type=int, default=432, help="(432)")
    parser.add_argument("--memory-frames", type=int, default=4, help="(4)")
    parser.add_argument(
        "--at-once", type=int, default=current_frame.OBJECTS_AT_ONCE, help="objects in a chunk"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    machine = describe(torch.device("cpu"))
    print(machine)
    print("| objects | read, ms | with memory, ms | bank, MB | process at most, MB |")
    print("| --- | --- | --- | --- | --- |")
    rows = []
    for objects in args.objects:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            sizes = (args.height, args.width, args.memory_frames, args.at_once, args.threads)
            rows.append(process.submit(measure, args.model, objects, *sizes).result())
        cells = [f"{rows[-1][name]:.0f}" for name in ("read_ms", "memory_ms", "bank_mb", "peak_mb")]
        print(f"| {objects} | {' | '.join(cells)} |", flush=True)
    if len(rows) > 1:
        few, many = rows[0], rows[-1]
        more = many["objects"] - few["objects"]
        each = [(many[name] - few[name]) / more for name in ("read_ms", "memory_ms", "bank_mb", "peak_mb")]
        print(f"| one more | {' | '.join(f'{x:.1f}' for x in each)} |")
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
