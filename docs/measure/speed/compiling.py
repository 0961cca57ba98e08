"""Measure the effect of `torch.compile` on each part of a network: `python docs/measure/speed/compiling.py`.

Each part is compiled for one frame size and one number of objects, with packed weights, and timed in turn
with the uncompiled part. The timing runs in a second process, which finds the compiled code of the first on
disk.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch._inductor import config

from emavos.frames.preprocess import pad_to_stride
from emavos.machine import describe, keep_freed_memory
from emavos.models import STCN, Features, compiled, folded
from emavos.weights import load_model
from reference import random_model

MODELS: Mapping[str, Callable[[], STCN]] = {"tiny": load_model, "stcn": random_model}
PARTS = ("key", "value", "decode")


def measure(
    name: str,
    part: str,
    dtype: torch.dtype,
    objects: int,
    height: int,
    width: int,
    repeats: int,
    threads: int,
) -> dict[str, Any]:
    """Milliseconds (medians) of a part of a model, uncompiled and compiled, and the seconds of compiling.

    In the result, `first` and `again` are seconds of the first call, without and with compiled code on disk.
    `difference` is the largest difference of any output, relative to the output's largest number.
    """
    arguments = name, part, dtype, objects, height, width
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    with TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # inherited by child processes
        try:
            first = _apart(threads, *arguments, 0)
            again = _apart(threads, *arguments, repeats)
        finally:
            del os.environ["TORCHINDUCTOR_CACHE_DIR"]
            if before is not None:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = before
    row = {"model": name, "part": part, "dtype": str(dtype).removeprefix("torch."), "objects": objects}
    return row | {"first": first["seconds"], "again": again["seconds"]} | again


def _apart(threads: int, *arguments: Any) -> dict[str, float]:
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as process:
        return process.submit(_measure, *arguments).result()


def _measure(
    name: str, part: str, dtype: torch.dtype, objects: int, height: int, width: int, repeats: int
) -> dict[str, float]:
    keep_freed_memory()  # like the command line
    torch.manual_seed(0)
    network = folded(MODELS[name]().eval(), dtype)
    with torch.no_grad():
        run, made = _runs(network, part, objects, height, width)
        start = time.perf_counter()
        out = made()
        figures = {"seconds": time.perf_counter() - start, "difference": _difference(run(), out)}
        times: Mapping[str, list[float]] = {"ms": [], "compiled_ms": []}
        for _ in range(repeats):
            for which, call in (("ms", run), ("compiled_ms", made)):
                start = time.perf_counter()
                call()
                times[which].append(1000 * (time.perf_counter() - start))
    return figures | {which: median(taken) for which, taken in times.items() if taken}


def _runs(
    network: STCN, part: str, objects: int, height: int, width: int
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A part of the network, uncompiled and compiled."""
    frame = pad_to_stride(torch.randn(1, 3, height, width))[0].to(next(network.parameters()).dtype)
    features = network.encode_key(frame)
    size, cells = frame.shape[2:], features.key.shape[2:]
    prob = torch.rand(1, objects, *size).to(frame.dtype)
    readout = torch.randn(1, objects, network.config.value_channels, *cells).to(features.key.dtype)
    calls: dict[str, tuple[Callable[..., Any], tuple[Tensor | Features, ...]]] = {
        "key": (network.encode_key, (frame,)),
        "value": (network.encode_value, (frame, features, prob)),
        "decode": (network.decode, (readout, features)),
    }
    call, arguments = calls[part]
    made: Callable[..., Any] = torch.compile(call, dynamic=False)
    if part == "key":
        made = compiled(network).encode_key  # used by the library

    def packed() -> Any:
        with config.patch(freezing=True):
            return made(*arguments)

    return lambda: call(*arguments), packed


def _difference(expected: Tensor | Features, found: Tensor | Features) -> float:
    pairs: Any = [(expected, found)] if isinstance(expected, Tensor) else zip(expected, found, strict=True)
    return max(((y.float() - x.float()).abs().max() / x.float().abs().max()).item() for x, y in pairs)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/compiling.py", description=__doc__)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=[*MODELS], help="(both)")
    parser.add_argument(
        "--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"], help="(both)"
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="(all)")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 3], help="(1 3)")
    parser.add_argument("--height", type=int, default=480, help="of frames, in pixels (480)")
    parser.add_argument("--width", type=int, default=854, help="(854)")
    parser.add_argument("--repeats", type=int, default=15, help="measured runs (15)")
    parser.add_argument("--threads", type=int, help="threads of torch (its default)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    machine = describe(torch.device("cpu"))
    print(f"{machine}; {args.height}x{args.width}, medians of {args.repeats}\n")
    columns = ["model", "type", "part", "objects", "first call, s", "from disk, s", "ms", "compiled, ms"]
    columns += ["ratio", "difference"]
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
    rows = []
    for name in args.model:
        for dtype in args.dtype:
            for part in args.part:
                for objects in args.objects if part != "key" else args.objects[:1]:
                    row = measure(
                        name,
                        part,
                        getattr(torch, dtype),
                        objects,
                        args.height,
                        args.width,
                        args.repeats,
                        torch.get_num_threads(),
                    )
                    rows.append(row)
                    ratio = row["compiled_ms"] / row["ms"]
                    cells = [name, dtype, part, "" if part == "key" else str(objects)]
                    cells += [f"{row['first']:.1f}", f"{row['again']:.1f}", f"{row['ms']:.1f}"]
                    cells += [f"{row['compiled_ms']:.1f}", f"{ratio:.2f}", f"{row['difference']:.1e}"]
                    print("| " + " | ".join(cells) + " |", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
