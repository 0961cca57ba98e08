"""Time whole videos as users meet them: `python docs/measure/speed/streams.py`.

Each method gets a folder of JPEG frames and the mask of the first frame, and returns the mask of every
frame. Reading, resizing and the value of every fifth frame count. `reference` is STCN's published evaluation,
rebuilt with the weights of our `stcn` (see reference.py). Processes that multiply matrices play other
programs; they run beside the first stream only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from emavos.demo import synthetic_clip
from emavos.frames.preprocess import one_hot, to_working
from emavos.io import open_frames, read_ahead
from emavos.machine import describe, keep_freed_memory
from emavos.memory import MemoryPolicy
from emavos.models import STCN, aggregate
from emavos.predictor import Predictor
from emavos.weights import load_model
from reference import ReferenceMethod, random_model

Play = Callable[[Path, np.ndarray[Any, Any]], Iterator[np.ndarray[Any, Any]]]  # frames, first mask: masks
METHODS = (
    *("reference", "stcn:float32:native", "stcn:bfloat16:native"),
    *("tiny:float32:blocks", "tiny:float32:native", "tiny:bfloat16:blocks", "tiny:bfloat16:native"),
    *("base:float32:native", "base:bfloat16:native"),
)
_EVERY = MemoryPolicy.every
_CLOCKS = time.perf_counter, time.process_time, time.thread_time
# stops with the process that started it, even if that is killed
_OTHER_PROGRAM = """
import os
import numpy as np
x = np.random.default_rng(0).random((256, 256), np.float32)
while os.getppid() == {parent}:
    x @ x
"""


def play_ours(predictor: Predictor) -> Play:
    def play(folder: Path, mask: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
        for result in predictor.propagate(folder, mask):
            yield result.mask

    return play


def play_reference(model: STCN) -> Play:
    """The published evaluation: every fifth frame is stored for ever, and objects share no convolution."""

    def play(folder: Path, mask: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
        method = ReferenceMethod(model)
        ids = tuple(int(id) for id in np.unique(mask) if id)
        names = np.array([0, *ids], mask.dtype)
        for index, frame in enumerate(read_ahead(open_frames(folder))):
            with torch.inference_mode():
                working = to_working(frame, None)
                features = method.key(working.pixels)
                if index:
                    readout = method.read(features.key[0])
                    prob = aggregate(method.decode(readout[None], features)[0].sigmoid())
                else:
                    prob = _given(mask, ids, working.pixels, working.crop)
                if index % _EVERY == 0:
                    values = method.value(working.pixels, features, prob[None, 1:])[0]
                    method.remember(features.key[0], values)
                    method.ready()
            yield names[prob[working.crop].argmax(dim=0).numpy()]

    return play


def _given(mask: np.ndarray[Any, Any], ids: Sequence[int], pixels: Tensor, crop: Any) -> Tensor:
    """Probabilities (1 + O, H, W) of the first frame, from its mask."""
    planes = pixels.new_zeros(len(ids), *pixels.shape[2:])
    planes[crop] = one_hot(torch.from_numpy(mask.astype(np.int64)), ids).to(planes)
    return aggregate(planes)


@cache
def player(method: str) -> Play:
    """A method by its name: `reference`, or MODEL:DTYPE:BACKEND."""
    if method == "reference":
        return play_reference(_stcn())
    model, dtype, backend = method.split(":")
    policy: Any = {"backend": backend}
    network = _stcn() if model == "stcn" else load_model(model)
    return play_ours(Predictor(network, MemoryPolicy(**policy), None, dtype=getattr(torch, dtype)))


@cache
def _stcn() -> STCN:
    return random_model()


@contextmanager
def other_programs(per_core: int) -> Iterator[None]:
    """This many processes per core that compute all the time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    code = _OTHER_PROGRAM.format(parent=os.getpid())
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, env=environment) for _ in range(per_core * cores)]
    try:
        time.sleep(1.0 if running else 0.0)  # until they compute
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measure(
    methods: Sequence[str],
    streams: Sequence[tuple[int, int]],
    busy: Sequence[int],
    size: tuple[int, int],
    repeats: int,
) -> Iterator[dict[str, Any]]:
    """Milliseconds a frame of each method: the least of several runs, which the methods take in turn.

    `ms` is elapsed time. `cpu` is the time of the process on all cores, which other programs hardly change,
    and `main` the part of the thread that tracks: the least elapsed time on cores that nobody else uses.

    streams: (frames, objects) of each video.
    busy: numbers of other processes per core; beyond the first, only the first stream is played.
    size: (H, W) of the frames.

    Yields rows; a row may come again, with a lower time.
    """
    turns = [(busy[0], *stream) for stream in streams] + [(other, *streams[0]) for other in busy[1:]]
    warm: set[int] = set()  # numbers of objects
    with TemporaryDirectory() as place:
        for others, frames, objects in sorted(turns, key=lambda turn: turn[1:] != streams[0]):
            folder = Path(place, f"{frames}x{objects}")
            mask = _write_clip(folder, frames, objects, size)
            for method in methods if objects not in warm else ():
                for _ in islice(player(method)(folder, mask), 2):
                    pass
            warm.add(objects)
            best: dict[str, tuple[float, ...]] = {}
            with other_programs(others):
                for _ in range(repeats):
                    for method in methods:
                        start = [clock() for clock in _CLOCKS]
                        count = sum(1 for _ in player(method)(folder, mask))
                        ends = [clock() for clock in _CLOCKS]
                        ms = tuple(1000 * (b - a) / count for a, b in zip(start, ends, strict=True))
                        best[method] = tuple(map(min, ms, best.get(method, ms)))
                        yield _row(others, frames, objects, method, best)


def _row(
    others: int, frames: int, objects: int, method: str, best: dict[str, tuple[float, ...]]
) -> dict[str, Any]:
    row: dict[str, Any] = {"others": others, "frames": frames, "objects": objects, "method": method}
    wall, cpu, own = best[method]
    row |= {"ms": wall, "cpu": cpu, "main": own, "fps": 1000 / wall}
    if method.startswith("stcn") and "reference" in best:
        row["ratio"], row["cpu_ratio"] = best["reference"][0] / wall, best["reference"][1] / cpu
    return row


def _write_clip(folder: Path, frames: int, objects: int, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Write the frames, unless they are there; returns the mask of the first frame."""
    clip, masks = synthetic_clip(frames, size)
    if not folder.exists():
        folder.mkdir()
        for index, frame in enumerate(clip):
            Image.fromarray(frame).save(folder / f"{index:05d}.jpg", quality=95)
    mask: np.ndarray[Any, Any] = masks[0] * np.isin(masks[0], (3, 2, 1)[:objects])
    return mask


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/streams.py", description=__doc__)
    parser.add_argument(
        "--streams", nargs="+", default=["11x1", "46x1", "16x3"], metavar="TxO",
        help="numbers of frames, and of objects, at most 3 (11x1 46x1 16x3)",
    )  # fmt: skip
    parser.add_argument(
        "--methods", nargs="+", default=METHODS, metavar="MODEL:DTYPE:BACKEND",
        help="reference, or tiny, base or stcn with a type and a readout (nine of them)",
    )  # fmt: skip
    parser.add_argument(
        "--busy", nargs="+", type=int, default=[0, 1, 2], help="other processes per core (0 1 2)"
    )
    parser.add_argument("--height", type=int, default=480, help="of frames, in pixels (480)")
    parser.add_argument("--width", type=int, default=854, help="(854)")
    parser.add_argument("--repeats", type=int, default=3, help="measured runs after a warm-up (3)")
    parser.add_argument("--threads", type=int, help="threads of torch (its default)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    streams = []
    for stream in args.streams:
        if not (found := re.fullmatch(r"([1-9]\d*)x([1-3])", stream)):
            parser.error(f"--streams takes frames and objects (1 to 3) like 16x3, not {stream!r}")
        streams.append((int(found[1]), int(found[2])))
    known = re.compile(r"reference|(tiny|base|stcn):(float32|bfloat16):(auto|blocks|native)")
    for method in args.methods:
        if not known.fullmatch(method):
            parser.error(f"--methods takes reference, or names like tiny:float32:native, not {method!r}")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    keep_freed_memory()  # as the command line does
    machine = describe(torch.device("cpu"))
    print(f"{machine}; {args.height}x{args.width}, the least of {args.repeats}\n")
    columns = ["others per core", "frames", "objects", "method", "ms a frame", "CPU, ms a frame"]
    columns += ["main thread", "frames a second", "ratio", "ratio of CPU"]
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    size = (args.height, args.width)
    for run, row in enumerate(measure(args.methods, streams, args.busy, size, args.repeats), 1):
        case = tuple(row[name] for name in ("others", "frames", "objects", "method"))
        rows[case] = row
        if args.json is not None:  # after each run, so that a stopped one leaves its figures
            args.json.write_text(json.dumps({"machine": machine, "rows": [*rows.values()]}, indent=2) + "\n")
        if run % (args.repeats * len(args.methods)) == 0:
            for one in [*rows.values()][-len(args.methods) :]:
                ratios = [f"{one[name]:.2f}" if name in one else "" for name in ("ratio", "cpu_ratio")]
                named = [str(one[name]) for name in ("others", "frames", "objects", "method")]
                figures = [f"{one['ms']:.0f}", f"{one['cpu']:.0f}", f"{one['main']:.0f}", f"{one['fps']:.1f}"]
                print("| " + " | ".join([*named, *figures, *ratios]) + " |", flush=True)


if __name__ == "__main__":
    main()
