"""Measure the effect of shortcuts on the stages of a frame: `python docs/measure/speed/shortcuts.py`.

Weights are random, objects are squares on an eighth of the frame, and the memory is noise, so the script
shows nothing about masks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch

from emavos.machine import describe, keep_freed_memory
from emavos.memory import MemoryBank, MemoryPolicy
from emavos.models import PRESETS, STCN, STRIDE, folded
from emavos.session.shortcuts import encode_near


@torch.no_grad()
def measure(
    name: str,
    dtype: torch.dtype = torch.float32,
    *,
    height: int = 480,
    width: int = 864,
    objects: int = 1,
    memory_frames: int = 10,
    repeats: int = 3,
) -> dict[str, float]:
    """Milliseconds of each stage of a preset, on whole frames and near objects: minimum of the repeats."""
    torch.manual_seed(0)
    network = folded(STCN(PRESETS[name]).eval(), dtype)
    frame = torch.randn(1, 3, height, width).to(next(network.parameters()).dtype)
    cells = torch.zeros(1, objects, height // STRIDE, width // STRIDE, dtype=torch.bool)
    rows, columns = cells.shape[2:]
    side = max(round((rows * columns / 8 / objects) ** 0.5), 1)
    for i in range(objects):
        left = (2 * i + 1) * columns // (2 * objects) - side // 2
        cells[0, i, rows // 4 : rows // 4 + side, left : left + side] = True
    prob = cells.to(frame.dtype).repeat_interleave(STRIDE, -1).repeat_interleave(STRIDE, -2)
    near = torch.nn.functional.max_pool2d(cells.float(), 3, stride=1, padding=1) > 0
    features = network.encode_key(frame)
    values, query = network.encode_value(frame, features, prob)[0], features.key[0].float()
    bank = MemoryBank(MemoryPolicy(max_frames=memory_frames))
    for _ in range(memory_frames):
        bank.add(torch.randn_like(query), values)
    readout = bank.read(query, memory_frames)[None]
    stages: dict[str, Callable[[], object]] = {
        "key": lambda: network.encode_key(frame),
        "read": lambda: bank.read(query, memory_frames),
        "decode": lambda: network.decode(readout, features),
        "decode near": lambda: network.decode(readout, features, near),
        "value": lambda: network.encode_value(frame, features, prob),
        "value near": lambda: encode_near(network, frame, features, prob),
    }
    return {stage: _milliseconds(run, repeats) for stage, run in stages.items()}


def _milliseconds(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return min(times[1:])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/shortcuts.py", description=__doc__)
    parser.add_argument("--model", choices=list(PRESETS), default="stcn", help="a preset (stcn)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="(float32)")
    parser.add_argument("--height", type=int, default=480, help="of frames, a multiple of 16 (480)")
    parser.add_argument("--width", type=int, default=864, help="(864)")
    parser.add_argument("--objects", type=int, default=1, help="(1)")
    parser.add_argument("--memory-frames", type=int, default=10, help="(10)")
    parser.add_argument("--repeats", type=int, default=3, help="measured runs after a warm-up (3)")
    parser.add_argument("--threads", type=int, help="threads of torch (its default)")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    keep_freed_memory()
    times = measure(
        args.model,
        getattr(torch, args.dtype),
        height=args.height,
        width=args.width,
        objects=args.objects,
        memory_frames=args.memory_frames,
        repeats=args.repeats,
    )
    print(f"{describe(torch.device('cpu'))}\n{args.model}, {args.dtype}, {args.height}x{args.width}")
    print("".join(f"{stage:>13}" for stage in times))
    print("".join(f"{value:13.0f}" for value in times.values()))
    shared = times["key"] + times["read"]
    for name, decode, value in (
        ("whole", "decode", "value"),
        ("decode near", "decode near", "value"),
        ("both near", "decode near", "value near"),
    ):
        print(f"{name}: {shared + times[decode] + times[value] / 5:.0f} ms a frame")


if __name__ == "__main__":
    main()
