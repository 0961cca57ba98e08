"""Kill a command at random times, run it again, and compare with an undisturbed run, byte for byte.

    python tests/kills.py batch --rounds 100

Runs are forked from a process that has loaded everything, so that most kills fall into the work itself.
`evaluate` and `train` write times and peaks of memory down; here their clock stands and no peak is known.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

import emavos.batch  # so that a forked run has nothing left to load
import emavos.bridges
import emavos.evaluation
import emavos.training  # noqa: F401
from emavos.cli import main, resuming
from emavos.demo import synthetic_clip
from emavos.io import write_mask
from emavos.machine import PeakMemory
from trees import davis_tree, training_tree

COMMANDS = ("batch", "segment", "evaluate", "train")
TRAINING = {"iterations": 4, "decay_from": 2, "warmup": 1, "batch": 1, "size": 48}
TRAINING |= {"all_pixels_until": 1, "hardest_from": 3}
# What tells how far a run has come; that it is whole shows where the next one goes on from it.
GROWING = (
    "out/status",
    "out/masks/tiny+size=64/run.json",
    "out/checkpoint",
    "out/log",
    "out/validation",
    "out/best",
    ".out.resume",  # of segment
)


def clips(root: Path, count: int) -> None:
    """So many clips of four frames, each beside its first mask."""
    for seed in range(count):
        frames, masks = synthetic_clip(frames=4, size=(64, 96), seed=seed)
        (root / f"clip{seed}").mkdir(parents=True)
        for i, frame in enumerate(frames):
            Image.fromarray(frame).save(root / f"clip{seed}" / f"{i:05d}.png")
        write_mask(root / f"clip{seed}.png", masks[0])


def draw(name: str, root: Path) -> None:
    """What a command is to work on."""
    if name == "evaluate":
        davis_tree(root, {"one": 4, "two": 3}, size=(64, 96))
    elif name == "train":
        training_tree(root)
    else:
        clips(root, 3)


def command(name: str, root: Path, out: Path) -> list[str]:
    if name == "evaluate":
        measured = ["--model", "tiny", "--size", "64", "--processes", "1", "--pictures", "1"]
        return ["evaluate", "--data", str(root), "--out", f"{out}/out", *measured, "--quiet"]
    if name == "train":
        recipe = [word for key, value in TRAINING.items() for word in ("--set", f"{key}={value}")]
        habits = ["--workers", "0", "--save-every", "1", "--pictures-every", "2"]
        habits += ["--validate-every", "2", "--hold-out", "two"]
        start = ["--stage", "tiny-1", "--init", "tiny", "--data", str(root), "--out", f"{out}/out"]
        return ["train", *start, *recipe, *habits, "--device", "cpu", "--quiet"]
    options = ["--out", f"{out}/out", "--size", "64", "--device", "cpu", "--quiet"]
    if name == "batch":
        return ["batch", str(root), "--overlay", "--rle", *options]
    clip = f"{root}/clip0"
    more = ["--overlay", f"{out}/shown/overlay.mp4", "--rle", f"{out}/rle.json"]
    more += ["--confidence", f"{out}/sure.csv"]
    return ["segment", clip, "--mask", f"{clip}.png", *more, *options]


def run(argv: list[str], seconds: float | None = None, number: int = signal.SIGKILL) -> int | None:
    """The exit code of a command in a process of its own; None where the signal came first."""
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        if argv[0] in ("evaluate", "train"):
            time.perf_counter = lambda: 0.0
            PeakMemory.mb = lambda self: None
        with (
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stderr(nowhere),
            contextlib.redirect_stdout(nowhere),
        ):
            code = main(argv)
        os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, number)  # it is a zombie at least, so its number is nobody else's
    status = os.waitpid(child, 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): content(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def content(path: Path) -> bytes:
    """The bytes of a file; safetensors writes the metadata of its header in any order, here they have one."""
    found = path.read_bytes()
    if path.suffix != ".safetensors" or ".partial" in path.name:
        return found
    end = 8 + int.from_bytes(found[:8], "little")
    return json.dumps(json.loads(found[8:end]), sort_keys=True).encode() + found[end:]


def broken(folder: Path, whole: dict[str, bytes]) -> list[str]:
    """Files under their final names that are not those of the undisturbed run."""
    found = {n: b for n, b in tree(folder).items() if ".partial" not in n and not n.startswith(GROWING)}
    return [name for name, content in found.items() if whole.get(name) != content]


def rounds(name: str, count: int, seed: int, number: int, root: Path) -> tuple[int, list[str]]:
    """How many runs were killed before their end, and what went wrong."""
    draw(name, root / "data")
    resuming.SECONDS = 0.0  # each frame is saved, so that most kills leave something to continue
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
        shutil.rmtree(out)
    return killed, wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=COMMANDS)
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
