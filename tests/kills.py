"""Kill a command at random times, run it again, and compare with an undisturbed run, byte for byte.

    python tests/kills.py batch --rounds 100

Runs are forked from a process that has loaded everything, so that most kills fall into the work itself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

import emavos.batch  # so that a forked run has nothing left to load
import emavos.bridges  # noqa: F401
from emavos.cli import main
from emavos.demo import synthetic_clip
from emavos.io import write_mask


def clips(root: Path, count: int) -> None:
    """So many clips of four frames, each beside its first mask."""
    for seed in range(count):
        frames, masks = synthetic_clip(frames=4, size=(64, 96), seed=seed)
        (root / f"clip{seed}").mkdir(parents=True)
        for i, frame in enumerate(frames):
            Image.fromarray(frame).save(root / f"clip{seed}" / f"{i:05d}.png")
        write_mask(root / f"clip{seed}.png", masks[0])


def command(name: str, root: Path, out: Path) -> list[str]:
    options = ["--out", f"{out}/out", "--size", "64", "--device", "cpu", "--quiet"]
    if name == "batch":
        return ["batch", str(root), "--overlay", "--rle", *options]
    clip = f"{root}/clip0"
    overlay, rle = f"{out}/shown/overlay.mp4", f"{out}/rle.json"
    return ["segment", clip, "--mask", f"{clip}.png", "--overlay", overlay, "--rle", rle, *options]


def run(argv: list[str], seconds: float | None = None, number: int = signal.SIGKILL) -> int | None:
    """The exit code of a command in a process of its own; None where the signal came first."""
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            code = main(argv)
        os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, number)  # it is a zombie at least, so its number is nobody else's
    status = os.waitpid(child, 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def broken(folder: Path, whole: dict[str, bytes]) -> list[str]:
    """Files under their final names that are not those of the undisturbed run."""
    found = {n: b for n, b in tree(folder).items() if ".partial" not in n and not n.startswith("out/status")}
    return [name for name, content in found.items() if whole.get(name) != content]


def rounds(name: str, count: int, seed: int, number: int, root: Path) -> tuple[int, list[str]]:
    """How many runs were killed before their end, and what went wrong."""
    clips(root / "data", 3)
    start = time.monotonic()
    wrong = [
        f"undisturbed: exit code {code}"
        for code in [run(command(name, root / "data", root / "whole"))]
        if code
    ]
    length, whole = time.monotonic() - start, tree(root / "whole")
    generator, killed = random.Random(seed), 0
    for i in range(count):
        out = root / f"round{i}"
        out.mkdir()
        argv = command(name, root / "data", out)
        code = run(argv, generator.uniform(0, length), number)
        killed += code != 0
        wrong += [f"round {i}: {file} is not whole" for file in broken(out, whole)]
        if number == signal.SIGTERM:
            left = [file for file in tree(out) if ".partial" in file]
            wrong += [f"round {i}: {file} was left" for file in left]
        if run(argv) != 0 and run([*argv, "--force"]) != 0:  # outputs of segment are not all at once
            wrong.append(f"round {i}: it cannot be run again")
        again = tree(out)
        wrong += [f"round {i}: {n} differs" for n in sorted({*again, *whole}) if again.get(n) != whole.get(n)]
    return killed, wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("batch", "segment"))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("SIGKILL", "SIGTERM", "SIGINT"), default="SIGKILL")
    args = parser.parse_args()
    torch.set_num_threads(1)  # a process that has started others cannot be forked
    with tempfile.TemporaryDirectory() as folder:
        killed, wrong = rounds(
            args.command, args.rounds, args.seed, signal.Signals[args.signal], Path(folder)
        )
    print(
        *wrong, f"{killed} of {args.rounds} runs ended by {args.signal}, {len(wrong)} differences", sep="\n"
    )
    sys.exit(bool(wrong))
