"""Measure videos per hour of one process, shards and Ray: `python docs/measure/speed/throughput.py`.

Each way runs the command line, including its start. With few short videos the start takes most of the time,
so the output also shows the start alone, measured on a run with all videos finished.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from emavos.demo import synthetic_clip
from emavos.io import write_image, write_mask


def write_clips(folder: Path, count: int, frames: int, size: tuple[int, int]) -> None:
    """Write clips of three objects, each beside its first mask."""
    for seed in range(count):
        clip, masks = synthetic_clip(frames=frames, size=size, seed=seed)
        (folder / f"clip{seed}").mkdir(parents=True)
        for index, frame in enumerate(clip):
            write_image(folder / f"clip{seed}" / f"{index:05d}.png", frame)
        write_mask(folder / f"clip{seed}.png", masks[0])


def seconds(commands: Sequence[Sequence[str]]) -> float:
    """The time until all commands, started together, have ended."""
    start = time.monotonic()
    running = [
        subprocess.Popen([sys.executable, "-m", "emavos", "batch", *command, "--quiet"])
        for command in commands
    ]
    codes = [process.wait() for process in running]
    if any(codes):
        raise ValueError("a batch failed; it has said why")
    return time.monotonic() - start


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/throughput.py", description=__doc__)
    parser.add_argument("--videos", type=int, default=8, help="(8)")
    parser.add_argument("--frames", type=int, default=24, help="of each (24)")
    parser.add_argument("--size", type=int, default=240, help="short side of the working frames (240)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="(one for each core)")
    parser.add_argument("--ways", nargs="+", default=["one", "shards", "ray"], help="(one shards ray)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    workers, frames = args.workers, args.videos * args.frames
    with tempfile.TemporaryDirectory() as folder:
        write_clips(Path(folder, "data"), args.videos, args.frames, (240, 426))
        found = {}
        for way in args.ways:
            common = [f"{folder}/data", "--out", f"{folder}/{way}", "--size", str(args.size)]
            commands = {
                "one": [[*common, "--threads", str(workers)]],
                "shards": [[*common, "--threads", "1", "--shard", f"{i}/{workers}"] for i in range(workers)],
                "ray": [[*common, "--ray", str(workers)]],
            }[way]
            whole, start = seconds(commands), seconds(commands)
            found[way] = {"seconds": whole, "start": start, "fps": frames / whole}
    if args.json:
        print(json.dumps(found))
        return
    print(f"{args.videos} videos of {args.frames} frames, {workers} workers or threads")
    for way, row in found.items():
        rest = frames / max(row["seconds"] - row["start"], 1e-9)
        print(
            f"{way:8} {row['seconds']:6.1f} s, of which start {row['start']:5.1f} s; "
            f"{row['fps']:5.2f} frames/s, {rest:5.2f} without the start"
        )


if __name__ == "__main__":
    main()
