"""`emavos bench`: the speed of models on this machine, stage by stage, beside the library's peak rate."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emavos.cli.arguments import (
    MOST_WORKERS,
    Commands,
    add_device_arguments,
    check_compilers,
    dtype_of,
    whole,
)

if TYPE_CHECKING:
    from emavos.io import Pixels

MODELS = ("stcn", "stcn-tiny")
_STAGES = ("encode_key", "read", "decode", "encode_value")


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "bench",
        help="speed of models on this machine, stage by stage",
        description="Print milliseconds per stage, frames per second and peak memory of models with random "
        "weights, for each number of objects, memory frames and resolution. Also compare the network's rate "
        "with one matrix product and one convolution. Needs no file and no internet.",
    )
    parser.set_defaults(run=_bench)
    parser.add_argument("--model", nargs="+", default=MODELS, metavar="PRESET", help=f"({' '.join(MODELS)})")
    parser.add_argument("--objects", type=whole(1), nargs="+", default=[1], metavar="N", help="(1)")
    parser.add_argument("--memory-frames", type=whole(1), nargs="+", default=[10], metavar="N", help="(10)")
    parser.add_argument(
        "--frame", type=_frame, nargs="+", default=[(480, 854)], metavar="HxW", help="pixels (480x854)"
    )
    add_device_arguments(parser)
    parser.add_argument(
        "--threads", type=whole(1, MOST_WORKERS), metavar="N", help="torch's threads (torch's default)"
    )
    parser.add_argument(
        "--repeats", type=whole(1), default=5, metavar="N", help="measured runs, after a warm-up (5)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to a file")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="PNG",
        help="plot milliseconds per frame over the option with several values",
    )


def _bench(args: argparse.Namespace) -> None:
    import itertools
    import json
    from dataclasses import asdict

    import torch

    from emavos.benchmark.ceilings import ceilings
    from emavos.benchmark.stages import measure_apart
    from emavos.io import write_image
    from emavos.machine import describe
    from emavos.models import PRESETS
    from emavos.weights.load import choose_device

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if unknown := [name for name in args.model if name not in PRESETS]:
        raise ValueError(f"--model is one of {', '.join(PRESETS)}, not {unknown[0]!r}")
    place = choose_device(args.device)
    if place.type == "cpu" and args.dtype == "float16":
        raise ValueError("a CPU cannot compute in float16; use float32, or bfloat16 if the CPU has it")
    check_compilers(args)
    device, dtype = str(place), dtype_of(args)
    machine, reached = describe(place), ceilings(dtype, device)
    print(f"{machine}; {args.dtype}{', compiled' * args.compile}, medians of {args.repeats}, random weights")
    print(f"GFLOP/s of one matrix product {reached['gemm']:.0f}, of one convolution {reached['conv']:.0f}\n")
    columns = ["model", "frame", "objects", "memory frames", *(f"{stage}, ms" for stage in _STAGES)]
    columns += ["stages_fps", "session_fps", "peak, MB", "GFLOP/s", "of the convolution"]
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
    timings = []
    for name, size, objects, frames in itertools.product(
        args.model, args.frame, args.objects, args.memory_frames
    ):
        timing = measure_apart(
            name,
            torch.get_num_threads(),
            height=size[0],
            width=size[1],
            objects=objects,
            memory_frames=frames,
            repeats=args.repeats,
            device=device,
            dtype=dtype,
            compile=args.compile,
        )
        row = asdict(timing) | {"of_convolution": timing.gflops / reached["conv"]}
        timings.append(row)
        cells = [name, "x".join(map(str, size)), str(objects), str(frames)]
        cells += [_milliseconds(row[stage]) for stage in _STAGES]
        cells += [f"{row['stages_fps']:.2f}", f"{row['session_fps']:.2f}", f"{row['peak_mb']:.0f}"]
        cells += [f"{row['gflops']:.0f}", f"{row['of_convolution']:.2f}"]
        print("| " + " | ".join(cells) + " |", flush=True)
    if args.json is not None:
        figures = {
            "machine": machine,
            "dtype": args.dtype,
            "compile": args.compile,
            "gflops": reached,
            "timings": timings,
        }
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if args.plot is not None:
        write_image(args.plot, _plot(timings))


def _milliseconds(value: float) -> str:
    """A time with at least two digits, so that fast stages do not show as 0."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _plot(timings: Sequence[dict[str, Any]]) -> Pixels:
    """Milliseconds per frame along the first axis with several values, a line per combination of others."""
    from emavos.benchmark.plot import lines

    axes: dict[str, Callable[[dict[str, Any]], int]] = {
        "memory frames": lambda row: row["memory_frames"],
        "objects": lambda row: row["objects"],
        "pixels": lambda row: row["height"] * row["width"],
    }
    along = next((name for name, of in axes.items() if len({*map(of, timings)}) > 1), "memory frames")
    series: dict[str, list[tuple[float, float]]] = {}
    for row in timings:
        others = [f"{of(row)} {name}" for name, of in axes.items() if name != along and name != "pixels"]
        line = ", ".join([row["model"], *others, *([] if along == "pixels" else [f"{row['height']} lines"])])
        series.setdefault(line, []).append((axes[along](row), 1000 / row["stages_fps"]))
    return lines({k: sorted(v) for k, v in series.items()}, "Time of a frame", along, "ms", (760, 400))


def _frame(text: str) -> tuple[int, int]:
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) >= 16 for side in sides):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a height and a width of 16 or more, such as 480x854"
        )
    return int(sides[0]), int(sides[1])
