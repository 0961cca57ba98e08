"""Measure emavos on a GPU that is available for minutes: `.ci/gpu FOLDER`.

    tests    tests/cuda
    readout  the backends against the dense method: differences, times, memory
    speed    frames per second of whole steps, the share of a frame in which the GPU waits, peak memory
    tiles    times of the Triton kernels with other sizes of blocks, for `triton_readout.MEASURED`

Each part runs in its own process for at most its own time, and writes FOLDER/PART.json after every row. A
part that fails or is cut off therefore leaves its rows, and the next part runs. FOLDER/summary.json lists how
each part ended.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import readout
from emavos.benchmark.plot import lines
from emavos.benchmark.stages import median_ms, stripes
from emavos.io.whole import replacing
from emavos.machine import describe
from emavos.memory import MemoryPolicy, topk_readout, triton_readout
from emavos.memory.readout import Backend
from emavos.memory.triton_readout import Tiles
from emavos.models import PRESETS, STCN
from emavos.predictor import Predictor
from emavos.session import Session

ROOT = Path(__file__).resolve().parents[3]
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much to measure: everything on a GPU, or little to try the script on a CPU."""

    device: str = "cuda"
    frame: tuple[int, int] = (480, 854)
    cells: int = readout.CELLS
    memory: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200, 400)  # frames
    channels: int = 512
    models: tuple[str, ...] = ("tiny", "base", "stcn")
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16, torch.float16)
    compiled: tuple[bool, ...] = (False, True)
    objects: tuple[int, ...] = (1, 3, 10)
    short_side: int | None = None  # of the working frame; None: that of the frame
    max_frames: int = 8
    steps: int = 20
    repeats: int = 10


LITTLE = Size(
    "cpu",
    frame=(32, 48),
    cells=12,
    memory=(1, 2),
    channels=8,
    models=("tiny",),
    dtypes=(torch.float32,),
    compiled=(False,),
    objects=(1, 2),
    max_frames=1,
    steps=1,
    repeats=1,
)


def tests(size: Size) -> Iterator[Row]:
    """The result of tests/cuda. They are all skipped if there is no GPU."""
    command = [sys.executable, "-m", "pytest", "tests/cuda", "-q", "-p", "no:cacheprovider", "--durations=10"]
    places = [ROOT / "src", ROOT / "tests", *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    yield {"rc": done.returncode, "end": done.stdout[-6000:]}


def readouts(size: Size) -> Iterator[Row]:
    """Times of one readout, and the largest difference of a backend from the dense method."""
    backends: list[Backend] = ["blocks", "triton"] if _has_triton(size) else ["blocks"]
    for objects, frames in product(size.objects[:2], size.memory):
        yield readout.measure(
            frames,
            objects,
            size.channels,
            backends=backends,
            cells=size.cells,
            repeats=size.repeats,
            device=size.device,
        )


def speed(size: Size) -> Iterator[Row]:
    """Frames per second of whole steps, mask included, with a full memory; compiled models last."""
    for compile, model, dtype in product(size.compiled, size.models, size.dtypes):
        torch._dynamo.reset()
        facts = {"model": model, "dtype": str(dtype).removeprefix("torch."), "compiled": compile}
        try:
            predictor = _predictor(model, dtype, compile, size)
            for objects in size.objects:
                yield {**facts, "objects": objects, **_steps(predictor, objects, size)}
        except (RuntimeError, ValueError) as error:
            yield {**facts, "error": str(error)[:1000]}


def tiles(size: Size) -> Iterator[Row]:
    """Times of the kernels with other sizes of blocks: one size at a time is improved, the others stay.

    The last row is the best of all.
    """
    if not _has_triton(size):
        yield {"error": "the kernels need a GPU, or TRITON_INTERPRET=1"}
        return
    drawn = [_drawn(frames, size) for frames in (size.memory[0], size.memory[-1] // 4 or 1)]
    expected = [topk_readout(*tensors, 20, "blocks") for tensors in drawn]

    def timed(tried: Tiles) -> Row:
        runs = [partial(_kernels, *tensors, tried) for tensors in drawn]
        row: Row = {"tiles": asdict(tried)}
        try:
            row["difference"] = max(
                (run() - x).abs().max().item() for run, x in zip(runs, expected, strict=True)
            )
            row["ms"] = [median_ms(run, size.repeats, size.device) for run in runs]
        except Exception as error:  # too many registers, or too little shared memory
            row["error"] = str(error)[:300]
        return row

    best = Tiles()
    yield (first := timed(best))
    best_ms = first.get("ms", [float("inf")])
    for group in _tried(size):
        for changes in group:
            tried = replace(best, **changes)
            if tried == best:
                continue
            yield (row := timed(tried))
            if "ms" in row and row["difference"] < 1e-3 and _gain(row["ms"], best_ms) > 0.01:
                best, best_ms = tried, row["ms"]
    capability = torch.cuda.get_device_capability() if size.device == "cuda" else None
    changed = {
        field.name: getattr(best, field.name)
        for field in dataclasses.fields(Tiles)
        if getattr(best, field.name) != field.default
    }
    entry = f"{capability}: Tiles({', '.join(f'{name}={value}' for name, value in changed.items())}),"
    yield {"best": asdict(best), "ms": best_ms, "was_ms": first.get("ms"), "entry": entry}


PARTS: dict[str, tuple[Callable[[Size], Iterator[Row]], float]] = {  # in order, with the most seconds
    "tests": (tests, 90),
    "readout": (readouts, 90),
    "speed": (speed, 210),
    "tiles": (tiles, 130),
}


def run_part(name: str, size: Size, folder: Path) -> list[Row]:
    """Measure one part in this process, and write FOLDER/NAME.json after every row."""
    measure, _ = PARTS[name]
    content: Row = {"part": name, "machine": describe(torch.device(size.device)), "state": "cut", "rows": []}
    write = partial(_write, folder / f"{name}.json", content)
    write()
    try:
        for row in measure(size):
            content["rows"].append(row)
            write()
        content["state"] = "done"
    except Exception as error:
        content["state"] = f"failed: {type(error).__name__}: {error}"[:2000]
        raise
    finally:
        write()
    return list(content["rows"])


def run_apart(name: str, folder: Path, seconds: float, options: Sequence[str] = ()) -> str:
    """Run one part in another process for at most `seconds`; returns how it ended."""
    command = [sys.executable, __file__, str(folder), "--part", name, *options]
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            _kill_all_of(process)
            return f"cut after {seconds:.0f} s"
    return "done" if code == 0 else f"failed with {code}: {(folder / f'{name}.log').read_text()[-1500:]}"


def draw(folder: Path) -> None:
    """FOLDER/readout.png and FOLDER/speed.png, from the rows in FOLDER."""
    if rows := _rows(folder, "readout"):
        readout.plots(rows).save(folder / "readout.png")
    series: dict[str, list[tuple[float, float]]] = {}
    for row in _rows(folder, "speed"):
        if "fps" in row:
            name = f"{row['model']} {row['dtype']}{' compiled' if row['compiled'] else ''}"
            series.setdefault(name, []).append((row["objects"], row["fps"]))
    if series:
        picture = lines(series, "Whole steps", "objects", "frames per second", (760, 520))
        Image.fromarray(picture).save(folder / "speed.png")


def _predictor(model: str, dtype: torch.dtype, compile: bool, size: Size) -> Predictor:
    policy = MemoryPolicy(every=2 if size.steps == 1 else 5, max_frames=size.max_frames)
    if model in PRESETS:  # without trained weights: these do not change the time
        torch.manual_seed(0)
        network = STCN(PRESETS[model]).eval().to(size.device)
        return Predictor(network, policy, size.short_side, dtype=dtype, compile=compile)
    return Predictor.from_pretrained(
        model, device=size.device, dtype=dtype, policy=policy, size=size.short_side, compile=compile
    )


def _steps(predictor: Predictor, objects: int, size: Size) -> Row:
    """Time, share of waiting and peak memory of steps with a full memory."""
    height, width = size.frame
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    cuda = size.device == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    session = predictor.session()
    start = time.perf_counter()
    _ = session.step(pixels, stripes(objects, height, width)).mask
    first = time.perf_counter() - start
    _follow(session, pixels, predictor.policy.every * size.max_frames)
    start = time.perf_counter()
    _follow(session, pixels, size.steps)
    seconds = (time.perf_counter() - start) / size.steps
    row: Row = {"first_s": first, "fps": 1 / seconds, "ms": 1000 * seconds}
    if cuda:
        row["peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
        busy = _busy_ms(session, pixels, predictor.policy.every)
        row |= {"gpu_busy_ms": busy, "waits_for_host": max(1 - busy / row["ms"], 0.0)}
    return row


def _follow(session: Session, pixels: np.ndarray, steps: int) -> None:
    for _ in range(steps):
        _ = session.step(pixels).mask


def _busy_ms(session: Session, pixels: np.ndarray, steps: int) -> float:
    """Milliseconds per step in which the GPU computes or copies. In the rest, the GPU waits for the host."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        _follow(session, pixels, steps)
    total = sum(event.self_device_time_total for event in profiled.key_averages())
    return float(total) / 1000 / steps


def _has_triton(size: Size) -> bool:
    x = torch.zeros(1, 1, device=size.device)
    return triton_readout.obstacle(x, x, x[None], 1) is None


def _drawn(frames: int, size: Size) -> tuple[Tensor, Tensor, Tensor]:
    """A query (Ck, P), keys (N, Ck) and values (N, O, Cv) of noise."""
    generator = torch.Generator(size.device).manual_seed(0)
    shapes = (64, size.cells), (frames * size.cells, 64), (frames * size.cells, 1, size.channels)
    query, keys, values = (torch.randn(*x, generator=generator, device=size.device) for x in shapes)
    return query, keys, values


def _kernels(query: Tensor, keys: Tensor, values: Tensor, tried: Tiles) -> Tensor:
    with torch.no_grad():
        return triton_readout.triton_readout(query, keys, values, 20, keys.square().sum(1), tiles=tried)


def _tried(size: Size) -> list[list[dict[str, int]]]:
    """Changes to try, in groups: within a group only one change is taken over."""
    if size == LITTLE:
        return [[{"queries": 16}], [{"gathered": 1024}]]
    blocks = [
        {"queries": queries, "cells": cells, "scan_warps": warps}
        for queries, cells, warps in product((16, 32, 64, 128), (32, 64, 128), (4, 8))
        if queries * cells <= 8192
    ]
    gathers = [
        {"gathered": gathered, "gather_warps": warps}
        for gathered, warps in product((2048, 4096, 8192, 16384), (2, 4, 8))
    ]
    return [blocks, [{"programs": n} for n in (2, 3, 6, 8)], [{"stages": n} for n in (2, 3)], gathers]


def _gain(ms: Sequence[float], best: Sequence[float]) -> float:
    """Mean share of time saved, over the sizes of memory."""
    return sum(1 - new / old for new, old in zip(ms, best, strict=True)) / len(ms)


def _rows(folder: Path, name: str) -> list[Row]:
    path = folder / f"{name}.json"
    return list(json.loads(path.read_text())["rows"]) if path.exists() else []


def _write(path: Path, content: Row) -> None:
    with replacing(path) as partial_file:
        partial_file.write_text(json.dumps(content, indent=1) + "\n")


def _kill_all_of(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a group, with all that it started."""
    os.killpg(process.pid, 9)
    process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=".ci/gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "folder", type=Path, nargs="?", metavar="FOLDER", help="folder for the results ($OUT)"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS], help="what to measure (all)")
    parser.add_argument("--seconds", type=float, default=520, help="time of all parts together (520)")
    parser.add_argument("--cpu", action="store_true", help="try the script without a GPU, on tiny sizes")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args(argv)
    folder = args.folder or (Path(os.environ["OUT"]) if os.environ.get("OUT") else None)
    if folder is None:
        parser.error("name a folder for the results, or set OUT")
    size = LITTLE if args.cpu else Size()
    if not args.cpu and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here; --cpu tries the script without one")
    folder.mkdir(parents=True, exist_ok=True)
    if args.part is not None:
        run_part(args.part, size, folder)
        return 0
    end, summary = time.monotonic() + args.seconds, {}
    for name in args.parts:
        left = end - time.monotonic()
        start = time.monotonic()
        ended = "no time was left"
        most = left if args.cpu else min(left, PARTS[name][1])
        if left > 1:
            ended = run_apart(name, folder, most, ["--cpu"] if args.cpu else [])
        summary[name] = {"ended": ended, "seconds": round(time.monotonic() - start, 1)}
        print(f"{name}: {ended.splitlines()[0]}, {summary[name]['seconds']} s", flush=True)
        _write(folder / "summary.json", {"machine": describe(torch.device(size.device)), "parts": summary})
        draw(folder)
    return 0 if all(part["ended"] == "done" for part in summary.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
