"""Measure what objects that begin on different frames cost: `python docs/measure/speed/groups.py`.

Objects that begin on different frames have a memory bank each. Banks share the keys of the frames that they
store, and one search for the most similar cells. Both are compared, in turn in one process, with banks that
read each on their own, and with what it takes to join the keys of all frames, which each readout does at
most once. The keys are those of a still scene with noise. CPU times on one thread; medians.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import get_args

import torch

from emavos.machine import describe
from emavos.memory import MemoryPolicy
from emavos.memory.bank import joined
from emavos.memory.readout import Backend
from emavos.session.memory import Banks

VALUE_CHANNELS = 128  # as of the small models


def measure(
    objects: int,
    groups: int,
    frames: int,
    height: int,
    width: int,
    channels: int,
    backend: Backend,
    repeats: int,
    apart: bool = True,
) -> dict[str, float]:
    """Milliseconds of a readout of all objects and of joining the keys, and megabytes of keys.

    objects: number of objects, divided evenly between the groups.
    groups: number of frames on which objects begin, one after the other.
    frames: frames in memory.
    height, width: of the frames in cells.
    channels: of the keys.
    apart: whether to time banks that read each on their own, too.
    """
    generator = torch.Generator().manual_seed(0)
    scene = torch.randn(channels, height, width, generator=generator)
    banks = Banks(MemoryPolicy(every=1, max_frames=frames, backend=backend))
    each = objects // groups
    for index in range(frames):
        if index < groups:
            banks.introduce(tuple(range(1 + index * each, 1 + (index + 1) * each)))
        key = scene + 0.3 * torch.randn(scene.shape, generator=generator)
        values = torch.randn(len(banks.ids), VALUE_CHANNELS, height, width, generator=generator)
        given = banks.ids[-each:] if index < groups else ()
        banks.adding(key, values, index, given=given)()
    query = scene + 0.3 * torch.randn(scene.shape, generator=generator)
    parts = [*{id(part): part for group in banks for part in group.bank.parts()}.values()]
    calls: dict[str, Callable[[], object]] = {
        "together": lambda: banks.read(query, None),
        "joined": lambda: joined(parts),
    }
    if apart:
        calls["apart"] = lambda: [group.bank.read(query) for group in banks]
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + repeats):
        for name, call in calls.items():
            begin = time.process_time()
            call()
            times[name].append(1000 * (time.process_time() - begin))
    row: dict[str, float] = {"objects": objects, "groups": groups, "frames": frames}
    row |= {f"{name}_ms": median(all_[1:]) for name, all_ in times.items()}
    keys = {id(own): own.nbytes for group in banks for own in group.bank.frame_keys.values()}
    each_own = sum(own.nbytes for group in banks for own in group.bank.frame_keys.values())
    return row | {"together_mb": sum(keys.values()) / 1e6, "apart_mb": each_own / 1e6}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/groups.py", description=__doc__)
    parser.add_argument("--objects", type=int, default=16, help="(16)")
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 2, 4, 16], help="divide the objects")
    parser.add_argument("--frames", type=int, nargs="+", default=[16], help="in memory (16)")
    parser.add_argument("--height", type=int, default=15, help="of frames, in cells (15)")
    parser.add_argument("--width", type=int, default=27, help="(27)")
    parser.add_argument("--channels", type=int, default=64, help="of keys (64)")
    parser.add_argument("--no-apart", action="store_true", help="leave out the slow way")
    parser.add_argument("--backends", nargs="+", choices=get_args(Backend), default=["blocks", "native"])
    parser.add_argument("--repeats", type=int, default=9, help="(9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # the CPU time of waiting threads would count
    print(describe(torch.device("cpu")))
    head = ["together, ms", "joining keys, ms", "apart, ms", "ratio", "keys together, MB", "apart, MB"]
    print(f"| readout | groups | frames | {' | '.join(head)} |")
    print("| --- " * (3 + len(head)) + "|")
    rows = []
    size = args.height, args.width, args.channels
    for backend, frames, groups in product(args.backends, args.frames, args.groups):
        if groups > frames:  # they begin on different frames
            continue
        with torch.inference_mode():
            row = measure(args.objects, groups, frames, *size, backend, args.repeats, not args.no_apart)
        rows.append({"backend": backend} | row)
        cells = [f"{row['together_ms']:.1f}", f"{row['joined_ms']:.1f}"]
        apart = row.get("apart_ms")
        cells += ["", ""] if apart is None else [f"{apart:.1f}", f"{apart / row['together_ms']:.2f}"]
        cells += [f"{row['together_mb']:.1f}", f"{row['apart_mb']:.1f}"]
        print(f"| {backend} | {groups} | {frames} | {' | '.join(cells)} |", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
