"""What attention costs as a map grows: `python -m emavos.benchmark.attention`.

External attention compares each position with a fixed number of slots, self-attention with every other
position; so the one grows with the positions and the other with their square.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from torch import nn

from emavos.models import ExternalAttention, SelfAttention


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


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m emavos.benchmark.attention", description=__doc__)
    parser.add_argument("--channels", type=int, default=256, help="of the maps (256)")
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[16, 32, 64, 128], help="of the maps, in cells (16 to 128)"
    )
    parser.add_argument("--repeats", type=int, default=9, help="measured runs, after one more (9)")
    parser.add_argument("--threads", type=int, help="of torch (its default)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    rows = measure(args.channels, args.sides, args.repeats)
    print(f"{args.channels} channels, {torch.get_num_threads()} threads; milliseconds are medians")
    print(f"{'positions':>10}{'external':>12}{'self':>12}{'ratio':>8}")
    for row in rows:
        ratio = row["self"] / row["external"]
        print(f"{row['positions']:10}{row['external']:12.2f}{row['self']:12.2f}{ratio:8.1f}")
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
