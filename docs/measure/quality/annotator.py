"""Measure how fast corrections improve a video, for several ways to choose the frames.

    python docs/measure/quality/annotator.py --data DAVIS

A simulated annotator gives the first mask of each sequence. In each round the annotator adds the true mask of
one more frame, and the video is tracked again both ways. Frames are chosen by

* least sure: the lowest confidence;
* review: the first suggestion of `emavos review`, which estimates the reach of a correction;
* oracle: the lowest J, using the ground truth;
* uniform: evenly over the video, all chosen again in each round;
* random: one more at random.

J&F is the mean over all frames except the first, including corrected frames.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from emavos.benchmark.plot import lines
from emavos.confidence.expected import ObjectState
from emavos.io import open_frames, write_image
from emavos.models import STCN
from emavos.review import suggest
from emavos.session import Session
from emavos.session.both_ways import propagate_both
from emavos.weights.load import load_model
from sequences import (
    Clip,
    add_clip_arguments,
    known_keys,
    load_clips,
    overlap,
    quality,
)

CHOICES = ("oracle", "review", "least sure", "uniform", "random")


class Seen(NamedTuple):
    """The prediction for one frame, with the ground truth."""

    objects: Mapping[int, ObjectState]
    J: float
    JF: float


def measure(
    model: STCN, clip: Clip, size: int, rounds: int, choices: Sequence[str]
) -> dict[str, list[float]]:
    """Mean J&F after 0, 1, ... corrections, for each way to choose frames."""
    if (there := sum(bool(truth.any()) for truth in clip.truths[1:])) < rounds:
        raise ValueError(f"{clip.name} has {there} frames to correct, too few for --rounds {rounds}")
    model = known_keys(model)

    @cache
    def follow(given: tuple[int, ...]) -> list[Seen]:
        masks = {t: clip.truths[t] for t in given}
        results = propagate_both(
            lambda order: Session(model, size=size, order=order), open_frames(clip.frames), masks
        )
        return [
            Seen(r.objects, overlap(r.mask, truth), quality(r.mask, truth))
            for r, truth in zip(results, clip.truths, strict=True)
        ]

    def line(choice: str) -> list[float]:
        given, scores, g = [0], [], np.random.default_rng([*clip.name.encode()])
        for number in range(1, rounds + 2):
            seen = follow(tuple(sorted(given)))
            scores.append(float(np.mean([one.JF for one in seen[1:]])))
            if number <= rounds:
                given = _more(clip, seen, given, choice, number, g)
        return scores

    return {choice: line(choice) for choice in choices}


def _more(
    clip: Clip, seen: Sequence[Seen], given: list[int], choice: str, number: int, g: np.random.Generator
) -> list[int]:
    """The frames to give in the next round. Frames without the object have no mask to give."""
    free = [t for t in range(1, len(clip)) if t not in given and clip.truths[t].any()]
    if choice == "uniform":
        places = np.linspace(0, len(clip) - 1, number + 2).round().astype(int)[1:-1]  # without both ends
        there = [t for t in range(1, len(clip)) if clip.truths[t].any()]
        return sorted({0, *(min(there, key=lambda t: abs(t - place)) for place in places.tolist())})
    if choice == "random":
        return [*given, int(g.choice(free))]
    if choice == "oracle":
        return [*given, min(free, key=lambda t: seen[t].J)]
    if choice == "review":
        found = suggest([one.objects for one in seen], count=len(clip), direction="both")
        if suggested := [one.frame for one in found if one.frame in free]:
            return [*given, suggested[0]]
    return [*given, min(free, key=lambda t: seen[t].objects[1].confidence)]


def draw(rows: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Write a PNG of the means with a line for each way to choose frames."""
    series = {choice: list(enumerate(_mean(rows, choice))) for choice in CHOICES}
    write_image(
        path, lines(series, f"mean of {len(rows)} sequences", "corrections", "J&F", logarithmic=False)
    )


def _mean(rows: dict[str, dict[str, list[float]]], choice: str) -> list[float]:
    return [float(x) for x in np.mean([row[choice] for row in rows.values()], axis=0)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/quality/annotator.py", description=__doc__)
    add_clip_arguments(parser)
    parser.add_argument("--rounds", type=int, default=4, metavar="K", help="corrections (4)")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the means there")
    parser.add_argument(
        "--merge", type=Path, nargs="+", default=[], metavar="FILE", help="figures of --json that are at hand"
    )
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    rows: dict[str, dict[str, list[float]]] = {}
    for path in args.merge:
        rows |= json.loads(path.read_text())
    model = load_model(args.model)
    for clip in load_clips(args.data, args.size, args.frames, args.sequences):
        if clip.name not in rows:
            rows[clip.name] = measure(model, clip, args.size, args.rounds, CHOICES)
            for choice, line in rows[clip.name].items():
                print(f"{clip.name:16}{choice:12}{' '.join(f'{x:.3f}' for x in line)}", flush=True)
            if args.json is not None:
                args.json.write_text(json.dumps(rows, indent=2) + "\n")
    print(
        f"\n| chosen by | {' | '.join(map(str, range(args.rounds + 1)))} |\n|{' --- |' * (args.rounds + 2)}"
    )
    for choice in CHOICES:
        print(f"| {choice} | {' | '.join(f'{x:.3f}' for x in _mean(rows, choice))} |")
    if args.plot is not None:
        draw(rows, args.plot)


if __name__ == "__main__":
    main()
