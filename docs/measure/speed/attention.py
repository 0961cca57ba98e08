"""Measure the cost of attention as the feature map grows: `python docs/measure/speed/attention.py`.

External attention compares each position with a fixed number of slots, self-attention with every other
position. So the first grows with the number of positions, and the second with its square. `--share` measures
the share of both in a frame, in models of full size.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from emavos.frames.preprocess import pad_to_stride
from emavos.models import PRESETS, STCN, ExternalAttention, SelfAttention, folded


def measure(channels: int, sides: Sequence[int], repeats: int) -> list[dict[str, float]]:
    """Milliseconds of both on maps (1, channels, side, side): medians, measured in turn."""
    torch.manual_seed(0)
    modules: dict[str, nn.Module] = {
        "external": ExternalAttention(channels, residual=False).eval(),
        "self": SelfAttention(channels, residual=False).eval(),
    }
    rows = []
    for side in sides:
        maps = torch.randn(1, channels, side, side)
        times: dict[str, list[float]] = {name: [] for name in modules}
        with torch.no_grad():
            for turn in range(repeats + 1):
                for name, module in modules.items():
                    start = time.perf_counter()
                    module(maps)
                    if turn > 0:  # the first is a warm-up
                        times[name].append(1000 * (time.perf_counter() - start))
        rows.append({"positions": side * side} | {name: median(taken) for name, taken in times.items()})
    return rows


@torch.no_grad()
def share(name: str, height: int, width: int, repeats: int) -> dict[str, float]:
    """Milliseconds of attention in both encoders of a preset, and the share of a frame without readout.

    A frame counts as one key, one decoding, and a fifth of a value. Times are medians, measured in turn.
    """
    torch.manual_seed(0)
    model = folded(STCN(PRESETS[name]).eval())
    frame, _ = pad_to_stride(torch.randn(1, 3, height, width))
    prob = torch.rand(1, 1, *frame.shape[2:])
    features = model.encode_key(frame)
    values = model.encode_value(frame, features, prob)
    seen: list[Tensor] = []
    encoders = model.key_encoder, model.value_encoder
    hooks = [
        encoder.attention.register_forward_pre_hook(lambda _, x: seen.append(x[0])) for encoder in encoders
    ]
    runs: dict[str, Callable[[], object]] = {
        "encode_key": lambda: model.encode_key(frame),
        "decode": lambda: model.decode(values, features),
        "encode_value": lambda: model.encode_value(frame, features, prob),
        "key_attention": lambda: encoders[0].attention(seen[0]),
        "value_attention": lambda: encoders[1].attention(seen[1]),
    }
    for run in (runs["encode_key"], runs["encode_value"]):
        run()
    for hook in hooks:
        hook.remove()
    times: dict[str, list[float]] = {part: [] for part in runs}
    for turn in range(repeats + 1):
        for part, run in runs.items():
            start = time.perf_counter()
            run()
            if turn > 0:  # the first is a warm-up
                times[part].append(1000 * (time.perf_counter() - start))
    row = {part: median(taken) for part, taken in times.items()}
    whole = row["encode_key"] + row["decode"] + row["encode_value"] / 5
    return row | {"share": (row["key_attention"] + row["value_attention"] / 5) / whole}


def _maps(channels: int, sides: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    rows = measure(channels, sides, repeats)
    print(f"{channels} channels, {torch.get_num_threads()} threads; milliseconds are medians")
    print(f"{'positions':>10}{'external':>12}{'self':>12}{'ratio':>8}")
    for row in rows:
        ratio = row["self"] / row["external"]
        print(f"{row['positions']:10}{row['external']:12.2f}{row['self']:12.2f}{ratio:8.1f}")
    return rows


def _shares(repeats: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in ("stcn-external-both", "stcn-self-both"):
        row = share(name, 480, 854, repeats)
        if not rows:
            print("| model | " + " | ".join(f"{part}, ms" for part in row if part != "share") + " | share |")
            print("| --- " * (1 + len(row)) + "|")
        *parts, part = row.values()
        print("| " + " | ".join([name, *(f"{x:.1f}" for x in parts), f"{part:.2%}"]) + " |", flush=True)
        rows.append({"model": name, **row})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/attention.py", description=__doc__)
    parser.add_argument("--channels", type=int, default=256, help="of the maps (256)")
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[16, 32, 64, 128], help="of the maps, in cells (16 to 128)"
    )
    parser.add_argument("--share", action="store_true", help="of frames of 480x854, in place of maps")
    parser.add_argument("--repeats", type=int, default=9, help="measured runs after a warm-up (9)")
    parser.add_argument("--threads", type=int, help="threads of torch (its default)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    rows = _shares(args.repeats) if args.share else _maps(args.channels, args.sides, args.repeats)
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
