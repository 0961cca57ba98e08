"""`emavos batch`: the masks of many videos."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emavos.cli.arguments import (
    MOST_WORKERS,
    Commands,
    add_memory_arguments,
    add_model_arguments,
    add_on_damage_argument,
    add_output_arguments,
    add_reference_argument,
    load_predictor,
    policy,
    shortcuts_of,
    whole,
)
from emavos.cli.words import counted, plain

if TYPE_CHECKING:
    from emavos.batch import Outcome
    from emavos.batch.run import Workers

# set by torchrun and others, and by Slurm
_RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "batch",
        help="masks of many videos",
        description="Track the objects of each video in a list or a folder. The outputs of a video appear "
        "when the video is finished; repeat the command to continue a stopped run. Failed videos are listed "
        "at the end, with exit code 1.",
    )
    parser.set_defaults(run=_batch)
    parser.add_argument(
        "jobs",
        type=Path,
        metavar="JOBS.jsonl|DIR",
        help='lines of {"video": PATH, "mask": PNG, "name": NAME, "reference": [[IMAGE, PNG], ...]}; or a '
        "folder: JPEGImages/ and Annotations/ "
        "as in DAVIS, or videos beside their masks, NAME.mp4 and NAME.png",
    )
    add_reference_argument(parser, "the objects of all videos", "Videos then need no mask")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="masks/NAME/, status/, ...")
    parser.add_argument(
        "--overlay", action="store_true", help="also write coloured videos, overlays/NAME.mp4 (extra: video)"
    )
    parser.add_argument(
        "--rle", action="store_true", help="also write masks as COCO runs, rle/NAME.json, for pycocotools"
    )
    add_on_damage_argument(parser)
    add_output_arguments(parser)
    workers = parser.add_argument_group("workers", "one process by default")
    workers.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="process part I (from 0) of N; defaults to RANK and WORLD_SIZE, or SLURM_PROCID and "
        "SLURM_NTASKS, if set",
    )
    workers.add_argument(
        "--ray",
        type=whole(1),
        metavar="N",
        help="N workers of Ray, on the cluster of RAY_ADDRESS or on this machine (extra: ray)",
    )
    workers.add_argument(
        "--processes",
        type=_processes,
        metavar="N|auto",
        help="N processes on this machine; auto: one for each core, but not more than videos, or than "
        "the free memory has room for",
    )
    workers.add_argument(
        "--threads",
        type=whole(1, MOST_WORKERS),
        metavar="N",
        help="threads per process (torch's default; 1 with --processes and for a Ray worker)",
    )
    add_model_arguments(parser, size=480)
    add_memory_arguments(parser)


def _batch(args: argparse.Namespace) -> None:
    import torch
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    from emavos.batch import Processes, RayWorkers, find_jobs, run_batch, shard
    from emavos.weights.load import KNOWN

    if args.ray and args.shard:
        raise ValueError(
            "--shard is for processes that know nothing of each other, and --ray divides the work itself; "
            "pass one of them"
        )
    if args.ray and args.processes:
        raise ValueError("--ray starts its own processes; pass either --ray or --processes")
    jobs = find_jobs(args.jobs, [(image, mask) for image, mask in args.reference])
    part, where = _part(args)
    if part is not None and not args.ray:
        total = len(jobs)
        jobs = shard(jobs, *part)
        if not args.quiet:
            print(f"shard {part[0]} of {part[1]} ({where}): {len(jobs)} of {counted(total, 'video')}")
    start = time.monotonic()
    threads = args.threads or 1
    workers: Workers | None = None
    if args.ray:
        _prepare_ray()
        if args.model is not None and args.model not in KNOWN and os.path.isdir(args.model):
            args.model = os.path.abspath(args.model)  # workers run in another folder
        workers = RayWorkers(args.ray, threads)
    elif args.processes:
        workers = Processes(args.processes, threads)
    elif args.threads:
        torch.set_num_threads(args.threads)
    # disable=None: only on a terminal
    with tqdm(total=len(jobs), unit="video", leave=False, disable=args.quiet or None) as bar:
        outcomes = run_batch(
            jobs,
            functools.partial(load_predictor, args, shortcuts_of(args), **policy(args)),
            args.out,
            workers=workers,
            overlay=args.overlay,
            rle=args.rle,
            force=args.force,
            on_damage=args.on_damage,
            each=_step(bar, args.quiet),
        )
    _tell(outcomes, time.monotonic() - start, args)


def _prepare_ray() -> None:
    """Set the options read when Ray is imported.

    Ray logs each step, and a paragraph for each worker that dies; the outcomes already report these. If Ray
    is started here, it requires a token, so that no other user of the machine can run code in it. The token
    is made for this run: Ray's own, in ~/.ray/auth_token, may be read by every user who can enter the folder.
    Ray then listens at 127.0.0.1 only. On Linux, Ray would replace that address by the machine's and listen
    on all of them. An environment variable makes Ray keep it, as on macOS and Windows.
    """
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if not any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    logging.disable(logging.WARNING)
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")


def _step(bar: Any, quiet: bool) -> Callable[[Outcome], None]:
    """A function that moves the bar on, and prints a line for each finished video."""
    count = 0

    def step(outcome: Outcome) -> None:
        nonlocal count
        count += 1
        state = "done" if outcome.made else "already there"
        state = f"failed: {plain(outcome.error)}" if outcome.error else state
        if not quiet:
            bar.write(f"{outcome.name}: {state} ({count} of {bar.total})", file=sys.stderr)
            sys.stderr.flush()
        bar.update()

    return step


def _tell(outcomes: list[Outcome], seconds: float, args: argparse.Namespace) -> None:
    failed = [outcome for outcome in outcomes if outcome.error]
    made = [outcome for outcome in outcomes if outcome.made]
    if not args.quiet:
        frames = sum(outcome.frames for outcome in made)
        there = len(outcomes) - len(made) - len(failed)
        print(
            f"{args.out}: {counted(len(made), 'video')} made, {counted(frames, 'frame')} in {seconds:.1f} s; "
            f"{there} already there, {len(failed)} failed"
        )
    for outcome in outcomes:
        for note in outcome.notes:
            print(f"emavos: note: {outcome.name}: {plain(note)}", file=sys.stderr)
    for outcome in failed:
        print(f"emavos: {outcome.name}: {plain(outcome.error)}", file=sys.stderr)
    if failed:
        raise SystemExit(1)


def _part(args: argparse.Namespace) -> tuple[tuple[int, int] | None, str]:
    """Returns the shard of this process, and the name of its source."""
    if args.shard:
        return args.shard, "--shard"
    for names in _RANKS:
        index, count = map(os.environ.get, names)
        if index is not None and count is not None:
            return _numbers(f"{index}/{count}", " and ".join(names)), ", ".join(names)
    return None, ""


def _processes(text: str) -> Any:
    return "auto" if text == "auto" else whole(1, MOST_WORKERS)(text)


def _shard(text: str) -> tuple[int, int]:
    try:
        return _numbers(text, "I/N")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _numbers(text: str, what: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(f"{what} is a number from 0 to N - 1 and N, not {text!r:.40}")
    return int(match[1]), int(match[2])
