"""Measure the cost of a readout as the memory grows: `python docs/measure/speed/readout.py`.

The dense method is from STCN's published evaluation: an N x P affinity, its top-k along the memory, the
softmax scattered back into an N x P matrix, and one matrix product per object. Both methods are timed in one
run, in turn, on the same tensors, with the cells of 480p at stride 16. Values are noise. Keys are either
noise, in which the native readout can skip few cells, or the embedded model's keys for a drawn clip.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from emavos.benchmark.plot import lines
from emavos.demo import synthetic_clip
from emavos.frames.preprocess import normalize, to_frame
from emavos.io import Pixels
from emavos.machine import describe
from emavos.memory import topk_readout
from emavos.memory.readout import Backend
from emavos.models import STCN
from emavos.weights import load_model

CELLS = 30 * 54  # cells of a frame of 480x864
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Keys = Literal["noise", "clip"]
_DISTINCT = 20  # different frames of the clip
FRAMES = (1, 2, 5, 10, 20, 50, 100, 400)


def reference_method(query: Tensor, keys: Tensor, values: Tensor, top_k: int) -> Tensor:
    """The dense readout of STCN's published evaluation: (O, Cv, P).

    query: (Ck, P).
    keys: (Ck, N).
    values: (O, Cv, N).
    top_k: number of memory cells read by each query cell.
    """
    similarity = (2 * keys.T @ query - keys.square().sum(0)[:, None]) / keys.shape[0] ** 0.5  # (N, P)
    top, index = similarity.topk(min(top_k, keys.shape[1]), dim=0)
    affinity = torch.zeros_like(similarity).scatter_(0, index, top.softmax(0))
    return torch.stack([value @ affinity for value in values])


def measure(
    frames: int,
    objects: int,
    channels: int,
    *,
    keys_of: Keys = "noise",
    backends: Sequence[Backend] = ("auto",),
    dense: bool = True,
    key_channels: int = 64,
    cells: int = CELLS,
    top_k: int = 20,
    repeats: int = 5,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Milliseconds (medians) and extra megabytes of one readout from `frames` memory frames.

    frames: number of memory frames.
    objects: number of objects.
    channels: value channels Cv.
    keys_of: source of the keys; clip keys have 64 channels and the cells of 480p.
    backends: backends of `topk_readout` to measure.
    dense: whether to measure the dense method too, as "reference".
    cells: cells per frame.
    clock: returns the time in seconds.
    """
    generator = torch.Generator(device).manual_seed(0)
    if keys_of == "clip":
        keys, query = (x.to(device) for x in clip_keys(frames))
    else:
        query = torch.randn(key_channels, cells, generator=generator, device=device)
        keys = torch.randn(frames * cells, key_channels, generator=generator, device=device)
    values = torch.randn(len(keys), objects, channels, generator=generator, device=device)
    norms = keys.square().sum(1)  # as in a memory bank
    runs: dict[str, Callable[[], Tensor]] = {}
    if dense:  # first, on inputs in the layout of the dense method
        dense_keys, dense_values = keys.T.contiguous(), values.permute(1, 2, 0).contiguous()
        runs["reference"] = lambda: reference_method(query, dense_keys, dense_values, top_k)
    for backend in backends:
        runs[backend] = partial(topk_readout, query, keys, values, top_k, backend, norms=norms)
    row: dict[str, float] = {"objects": objects, "channels": channels, "frames": frames}
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        outputs = [run() for run in runs.values()]  # warm-up
        row["difference"] = max((x - outputs[0]).abs().max().item() for x in outputs)
        del outputs
        for _ in range(repeats):
            for name, run in runs.items():
                _synchronize(device)
                start = clock()
                run()
                _synchronize(device)
                times[name].append(1000 * (clock() - start))
        for name, run in runs.items():
            row[f"{name}_ms"] = median(times[name])
            row[f"{name}_mb"] = _extra_mb(run, device)
    return row


def clip_keys(frames: int) -> tuple[Tensor, Tensor]:
    """The embedded model's keys (N, Ck) for frames of `synthetic_clip`, and (Ck, P) for the next frame.

    Every second frame is a memory frame. Beyond twenty, frames repeat with a little noise.
    """
    model, distinct = load_model().eval(), min(frames, _DISTINCT)
    clip = synthetic_clip(2 * distinct + 1, (480, 864))[0]
    encoded = [_key(model, frame) for frame in [*clip[:-1:2], clip[-1]]]  # (Ck, P) each
    noise = torch.Generator().manual_seed(0)
    rows = []
    for i in range(frames):
        key = encoded[i % distinct].T
        rows.append(key if i < distinct else key + 0.1 * torch.randn(key.shape, generator=noise))
    return torch.cat(rows), encoded[-1]


@torch.inference_mode()
def _key(model: STCN, frame: Pixels) -> Tensor:
    return model.encode_key(normalize(to_frame(frame))[None]).key[0].flatten(1)


def _synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _extra_mb(run: Callable[[], object], device: str) -> float:
    """Megabytes allocated by a call at its peak, including its output."""
    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():  # only on Linux
        return float("nan")
    ctypes.CDLL(None).malloc_trim(0)  # return freed memory, so that its reuse is measured
    reset.write_text("5")
    before = _kilobytes("VmRSS")
    run()
    return max(_kilobytes("VmHWM") - before, 0) * 1024 / 1e6


def _kilobytes(name: str) -> int:
    (found,) = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found)


def plots(rows: Sequence[dict[str, float]]) -> Image.Image:
    """Two plots: time above, extra memory below."""
    kinds = dict.fromkeys((int(row["objects"]), int(row["channels"])) for row in rows)
    names = dict.fromkeys(key.removesuffix("_ms") for row in rows for key in row if key.endswith("_ms"))
    charts = []
    for unit, label, title in (("ms", "ms", "Time of a readout"), ("mb", "MB", "Extra memory of a readout")):
        series = {
            f"{name}, {objects} x {channels}": [
                (row["frames"], row[f"{name}_{unit}"])
                for row in rows
                if (row["objects"], row["channels"]) == (objects, channels)
                and row.get(f"{name}_{unit}", 0) > 0
            ]
            for name in names
            for objects, channels in kinds
        }
        series = {name: line for name, line in series.items() if line}
        charts.append(lines(series, title, "memory frames", label))
    sheet = Image.new("RGB", (charts[0].shape[1], sum(chart.shape[0] for chart in charts)))
    for i, chart in enumerate(charts):
        sheet.paste(Image.fromarray(chart), (0, i * charts[0].shape[0]))
    return sheet


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/readout.py", description=__doc__)
    parser.add_argument(
        "--objects", nargs="+", default=["1x512", "3x512"], metavar="OxCv",
        help="numbers of objects and of their channels (1x512 3x512)",
    )  # fmt: skip
    parser.add_argument(
        "--backends", nargs="+", default=["auto"], choices=get_args(Backend), help="of topk_readout (auto)"
    )
    parser.add_argument("--frames", type=int, nargs="+", default=list(FRAMES), help="in memory (1 to 400)")
    parser.add_argument("--keys", choices=get_args(Keys), default="noise", help="what they are of (noise)")
    parser.add_argument("--cells", type=int, default=CELLS, help=f"of a frame ({CELLS}, those of 480p)")
    parser.add_argument("--dense-up-to", type=int, default=50, metavar="FRAMES",
                        help="measure the reference up to here: it takes 30 MB a frame (50)")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5, help="measured runs after a warm-up (5)")
    parser.add_argument("--threads", type=int, help="threads of torch (its default)")
    parser.add_argument(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="cpu counts the time of all threads of this process, so that a busy machine matters less (wall)",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw plots there")
    args = parser.parse_args(argv)
    kinds = []
    for kind in args.objects:
        if not (found := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", kind)):
            parser.error(f"--objects takes numbers of objects and channels like 3x512, not {kind!r}")
        kinds.append((int(found[1]), int(found[2])))
    if args.keys == "clip" and args.cells != CELLS:
        parser.error("--keys clip has the cells of 480p")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    machine = describe(torch.device(args.device))
    print(f"{machine}; medians of {args.repeats}, {args.clock} time\n")
    names = ["reference", *args.backends]
    columns = [*(f"{name}, ms" for name in names), *(f"ratio of {name}" for name in args.backends)]
    columns += [f"{name}, extra MB" for name in names]
    print("| objects x Cv | frames | " + " | ".join(columns) + " |")
    print("| --- | --- " + "| --- " * len(columns) + "|")
    rows = []
    for objects, channels in kinds:
        for frames in args.frames:
            row = measure(
                frames,
                objects,
                channels,
                backends=args.backends,
                keys_of=args.keys,
                dense=frames <= args.dense_up_to,
                cells=args.cells,
                repeats=args.repeats,
                device=args.device,
                clock=CLOCKS[args.clock],
            )
            rows.append(row)
            figures = [f"{row[f'{name}_ms']:.0f}" if f"{name}_ms" in row else "" for name in names]
            dense = row.get("reference_ms")
            figures += ["" if dense is None else f"{dense / row[f'{x}_ms']:.1f}" for x in args.backends]
            figures += [f"{row[f'{name}_mb']:.0f}" if f"{name}_mb" in row else "" for name in names]
            print(f"| {objects} x {channels} | {frames} | " + " | ".join(figures) + " |", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    if args.plot is not None:
        plots(rows).save(args.plot)


if __name__ == "__main__":
    main()
