"""Measure what corrections of single objects cost later: `python docs/measure/speed/dividing.py`.

A corrected object no longer shares a memory bank with the others, so keys are stored and compared once for
each bank. Two sessions track the same squares in frames of noise with random weights: one bank of all
objects, and one bank for each. They step in turn, and CPU times are compared, which other programs change
less than the clock. `clone` is the share of `Result.prob`, a copy, in a step of one bank.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from emavos import MemoryPolicy, Predictor, Session
from emavos.io import IdMask, Pixels
from emavos.machine import describe
from emavos.models import PRESETS, STCN


def measure(name: str, objects: int, height: int, width: int, memory: int, repeats: int) -> dict[str, float]:
    """Milliseconds of CPU for a step with one bank and with a bank for each object, medians, and bytes.

    name: name of a preset.
    memory: frames in memory; every frame is stored, and the first is never evicted.
    """
    torch.manual_seed(0)
    policy = MemoryPolicy(every=1, max_frames=memory)
    predictor = Predictor(STCN(PRESETS[name]).eval(), policy, size=None)
    rng = np.random.default_rng(0)
    mask = squares(objects, height, width)
    frames = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(4)]
    sessions = {"one": _begun(predictor, frames[0], mask, [range(1, objects + 1)])}
    sessions["each"] = _begun(predictor, frames[0], mask, [[id] for id in range(1, objects + 1)])
    times: dict[str, list[float]] = {"one": [], "each": [], "clone": []}
    for turn in range(memory + repeats):
        for which, session in sessions.items():
            taken, result = _timed(session.step, frames[turn % 4])
            copied, _ = _timed(result.prob.clone)
            if turn >= memory:
                times[which].append(taken)
                times["clone"].append(copied)
    row: dict[str, Any] = {"objects": objects} | {f"{key}_ms": median(all_) for key, all_ in times.items()}
    sizes = {f"{which}_mb": session.nbytes / 1e6 for which, session in sessions.items()}
    return row | sizes | {"ratio": row["each_ms"] / row["one_ms"], "clone": row["clone_ms"] / row["one_ms"]}


def _begun(
    predictor: Predictor, frame: Pixels, mask: IdMask, corrections: Sequence[Sequence[int]]
) -> Session:
    """A session whose objects were corrected, some together."""
    session = predictor.session()
    session.step(frame, mask)
    session.step(frame)
    for ids in corrections:
        session.correct({id: mask == id for id in ids})
    return session


def _timed(call: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    begin = time.process_time()
    made = call(*args)
    return 1000 * (time.process_time() - begin), made


def squares(objects: int, height: int, width: int) -> IdMask:
    """A mask (H, W) of a row of squares with ids from 1."""
    mask = np.zeros((height, width), np.int32)
    step = width // objects
    for id in range(1, objects + 1):
        mask[height // 4 : height // 2, (id - 1) * step : (id - 1) * step + max(step // 2, 1)] = id
    return mask


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/dividing.py", description=__doc__)
    parser.add_argument("--model", choices=list(PRESETS), default="stcn-tiny-unit", help="(stcn-tiny-unit)")
    parser.add_argument("--objects", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--height", type=int, default=240, help="of frames, in pixels (240)")
    parser.add_argument("--width", type=int, default=432, help="(432)")
    parser.add_argument("--memory-frames", type=int, default=8, help="(8)")
    parser.add_argument("--repeats", type=int, default=9, help="(9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # the CPU time of waiting threads would count
    print(describe(torch.device("cpu")))
    print("| objects | one bank, ms | a bank each, ms | ratio | one bank, MB | a bank each, MB | clone |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    for objects in args.objects:
        sizes = (args.height, args.width, args.memory_frames, args.repeats)
        rows.append(row := measure(args.model, objects, *sizes))
        cells = [f"{row['one_ms']:.0f}", f"{row['each_ms']:.0f}", f"{row['ratio']:.2f}"]
        cells += [f"{row['one_mb']:.1f}", f"{row['each_mb']:.1f}", f"{row['clone']:.4f}"]
        print(f"| {objects} | {' | '.join(cells)} |", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
