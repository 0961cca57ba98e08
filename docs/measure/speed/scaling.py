"""Measure what threads and processes gain: `python docs/measure/speed/scaling.py`.

First whole streams in one process, with each number of threads in turn. Then `emavos batch` as
PROCESSESxTHREADS: shards that start together, with their start. Every round runs every way once, so that
other programs slow all of them alike; the medians of the rounds are compared with the first way. CPU time
counts threads that spin. Each run is printed when it ends, so a command that you stop leaves its figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from emavos.io import read_mask
from emavos.machine import describe
from emavos.predictor import Predictor
from throughput import write_clips

Times = Mapping[str, list[tuple[float, float]]]  # seconds of the clock and of all processors, by way


def measure_streams(clip: Path, threads: Sequence[int], size: int, rounds: int) -> Times:
    """The times of a whole stream: reading, tracking, and the mask of every frame."""
    predictor = Predictor.from_pretrained(device="cpu", size=size)
    mask = read_mask(clip.with_suffix(".png"))

    def play(number: int) -> float:
        torch.set_num_threads(number)
        begin = time.process_time()
        for result in predictor.propagate(clip, mask):
            _ = result.mask
        return time.process_time() - begin

    play(threads[0])  # loads what is loaded late
    return _in_turn({str(number): partial(play, number) for number in threads}, rounds)


def measure_batches(folder: Path, ways: Sequence[str], size: int, rounds: int) -> Times:
    """The times of a batch, with each number of processes and threads."""

    def run(way: str) -> float:
        processes, threads = map(int, way.split("x"))
        with tempfile.TemporaryDirectory() as out:
            common = [sys.executable, "-m", "emavos", "batch", str(folder), "--out", out, "--quiet"]
            common += ["--size", str(size), "--threads", str(threads)]
            shards = [[*common, "--shard", f"{i}/{processes}"] for i in range(processes)]
            ids = [os.posix_spawn(sys.executable, shard, os.environ) for shard in shards]
            ended = [os.wait4(id, 0) for id in ids]
        if any(status for _, status, _ in ended):
            raise ValueError("a batch failed; it has said why")
        return sum(usage.ru_utime + usage.ru_stime for _, _, usage in ended)

    return _in_turn({way: partial(run, way) for way in ways}, rounds)


def _in_turn(calls: Mapping[str, Callable[[], float]], rounds: int) -> Times:
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in calls}
    for number in range(rounds):
        for way, call in calls.items():
            begin = time.monotonic()
            used = call()
            clock = time.monotonic() - begin
            times[way].append((clock, used))
            print(f"round {number + 1}, {way}: {clock:.1f} s, {used:.1f} s of CPU time", flush=True)
    return times


def rows_of(times: Times, frames: int) -> list[dict[str, Any]]:
    """Medians of the rounds, and of their ratios to the first way: above 1 is faster, or more CPU time."""
    first = next(iter(times.values()))
    rows = []
    for way, own in times.items():
        pairs = [*zip(first, own, strict=True)]
        rows.append(
            {
                "way": way,
                "fps": frames / median(clock for clock, _ in own),
                "faster": median(a[0] / b[0] for a, b in pairs),
                "cpu": median(b[1] / a[1] for a, b in pairs),
            }
        )
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/scaling.py", description=__doc__)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2], help="of a stream (1 2)")
    parser.add_argument("--ways", nargs="*", default=["1x1", "1x2", "2x1"], help="(1x1 1x2 2x1)")
    parser.add_argument("--videos", type=int, default=4, help="of a batch (4)")
    parser.add_argument("--frames", type=int, default=24, help="of each (24)")
    parser.add_argument("--size", type=int, default=240, help="short side of the working frames (240)")
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    print(describe(torch.device("cpu")))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_clips(Path(folder), args.videos, args.frames, (args.size, args.size * 16 // 9))
        if args.threads:
            times = measure_streams(Path(folder, "clip0"), args.threads, args.size, args.rounds)
            found["stream, threads"] = rows_of(times, args.frames)
        if args.ways:
            times = measure_batches(Path(folder), args.ways, args.size, args.rounds)
            found["batch, processes x threads"] = rows_of(times, args.videos * args.frames)
    print("| | | frames/s | times as fast | times the CPU time |")
    print("| --- | --- | --- | --- | --- |")
    for kind, rows in found.items():
        for row in rows:
            print(f"| {kind} | {row['way']} | {row['fps']:.1f} | {row['faster']:.2f} | {row['cpu']:.2f} |")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
