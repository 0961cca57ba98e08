"""Compute the least possible time of a readout on a GPU: `python docs/measure/speed/roofline.py`.

Nothing is measured. The script counts the products of keys and queries and of affinities and values, and the
bytes moved to and from GPU memory. The bound is the larger of the two times, at the peak rates of the data
sheets. Comparisons, kernel launches and cache traffic are not counted, so a real kernel is slower.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from readout import CELLS


@dataclass(frozen=True)
class GPU:
    """Peak rates without sparsity."""

    name: str
    capability: int
    float32: float  # FLOP/s
    halves: float  # FLOP/s of tensor cores, float16 in and float32 out
    bandwidth: float  # bytes/s


GPUS = (
    GPU("T4", 75, 8.1e12, 65e12, 320e9),
    GPU("A100 40 GB", 80, 19.5e12, 312e12, 1555e9),
    GPU("H100 SXM", 90, 67e12, 989e12, 3350e9),
    GPU("B200", 100, 80e12, 2250e12, 8000e9),
)


@dataclass(frozen=True)
class Cost:
    flops: float
    bytes: float

    def seconds(self, gpu: GPU, width: int, tensor_cores: bool) -> float:
        """The least time in seconds.

        gpu: peak rates.
        width: bytes per number.
        tensor_cores: whether tensor cores are used; only for 2-byte numbers.
        """
        peak = gpu.halves if width == 2 and tensor_cores else gpu.float32
        return max(self.flops / peak, self.bytes / gpu.bandwidth)


def dense_cost(
    cells: int, queries: int, objects: int, channels: int, key_channels: int, top_k: int, width: int
) -> Cost:
    """Dense: the affinity is written, read by the top-k, written again, and read for each object."""
    affinity = cells * queries * width
    tensors = (cells + queries) * (key_channels + objects * channels) * width
    flops = 2 * cells * queries * (key_channels + objects * channels)
    return Cost(flops, (3 + objects) * affinity + tensors)


def fused_cost(
    cells: int, queries: int, objects: int, channels: int, key_channels: int, top_k: int, width: int
) -> Cost:
    """Fused: one pass over the keys, then top_k rows of values per query cell, each fetched again."""
    flops = 2 * queries * (cells * key_channels + top_k * objects * channels)
    keys = (cells + queries) * key_channels * width + 4 * cells  # including the norms
    rows = queries * (top_k + 1) * objects * channels * width  # including the output
    found = 2 * 8 * queries * top_k  # written by the first kernel and read by the second, per share
    return Cost(flops, keys + rows + found)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/roofline.py", description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[10, 100], help="in memory (10 100)")
    parser.add_argument("--objects", type=int, default=1, help="(1)")
    parser.add_argument("--channels", type=int, default=512, help="of values (512)")
    parser.add_argument("--key-channels", type=int, default=64, help="(64)")
    parser.add_argument("--cells", type=int, default=CELLS, help=f"of a frame ({CELLS}, those of 480p)")
    parser.add_argument("--top-k", type=int, default=20, help="(20)")
    args = parser.parse_args(argv)
    print("computed, not measured; microseconds at least\n")
    print("| frames | numbers | method | GFLOP | MB | " + " | ".join(gpu.name for gpu in GPUS) + " |")
    print("| --- " * (5 + len(GPUS)) + "|")
    for frames in args.frames:
        for kind, width in (("float32", 4), ("float16", 2)):
            for name, count in (("dense", dense_cost), ("fused", fused_cost)):
                sizes = (frames * args.cells, args.cells, args.objects, args.channels, args.key_channels)
                cost = count(*sizes, args.top_k, width)
                # triton has no tensor cores before 8.0; cuBLAS, which the dense method uses, has
                times = (
                    1e6 * cost.seconds(gpu, width, name == "dense" or gpu.capability >= 80) for gpu in GPUS
                )
                figures = (f"{cost.flops / 1e9:.1f}", f"{cost.bytes / 1e6:.0f}", *(f"{t:.0f}" for t in times))
                print(f"| {frames} | {kind} | {name} | " + " | ".join(figures) + " |")


if __name__ == "__main__":
    main()
