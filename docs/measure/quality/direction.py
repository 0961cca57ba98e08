"""Measure the benefit of tracking both ways: `python docs/measure/quality/direction.py --data DAVIS`.

The masks of the first and last frame are given; the frames between are scored. Plain forward tracking cannot
use the last mask. "Forward at equal information" puts the last mask into memory from the first frame on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np
import torch

from emavos.models import STCN
from emavos.session import Result, Session
from emavos.session.both_ways import fuse, steps
from emavos.weights.load import load_model
from sequences import Clip, add_clip_arguments, known_keys, load_clips, overlap, quality

METHODS = ("forward", "forward, both masks", "both, fused", "both, fused, both masks")


def measure(model: STCN, clip: Clip, size: int) -> dict[str, tuple[float, float]]:
    """J and J&F of each method, averaged over the frames between the first and the last."""
    model, last = known_keys(model), len(clip) - 1
    masks = {0: clip.truths[0], last: clip.truths[last]}
    found: dict[str, list[Result]] = {}

    def begin(order: Sequence[int]) -> Session:
        return Session(model, size=size, order=order)

    for forward, fused, prime in ((METHODS[0], METHODS[2], False), (METHODS[1], METHODS[3], True)):
        ahead = list(steps(begin, clip.frames, masks, range(last + 1), prime))
        back = list(steps(begin, clip.frames, masks, range(last, -1, -1), prime))
        ends = {0: {1}, last: {1}}
        found[forward] = ahead
        found[fused] = [fuse(a, b, ends) for a, b in zip(ahead, reversed(back), strict=True)]
    scores = {}
    for method in METHODS:
        pairs = [(result.mask, clip.truths[result.index]) for result in found[method][1:last]]
        scores[method] = (
            float(np.mean([overlap(*pair) for pair in pairs])),
            float(np.mean([quality(*pair) for pair in pairs])),
        )
    return scores


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/quality/direction.py", description=__doc__)
    add_clip_arguments(parser)
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    model, rows = load_model(args.model), {}
    print(f"| sequence | {' | '.join(METHODS)} |\n|{' --- |' * (1 + len(METHODS))}")
    for clip in load_clips(args.data, args.size, args.frames, args.sequences):
        if len(clip) < 3:
            print(f"| {clip.name} | no frame lies between its first and its last |")
            continue
        truths = [bool(clip.truths[t].any()) for t in (0, -1)]
        if not all(truths):
            print(f"| {clip.name} | the object is not in its {'last' if truths[0] else 'first'} frame |")
            continue
        rows[clip.name] = row = measure(model, clip, args.size)
        print(
            f"| {clip.name} | {' | '.join(f'{row[m][0]:.3f} / {row[m][1]:.3f}' for m in METHODS)} |",
            flush=True,
        )
    if rows:
        means = [[np.mean([row[m][i] for row in rows.values()]) for i in (0, 1)] for m in METHODS]
        print(f"| mean (J / J&F) | {' | '.join(f'{j:.3f} / {both:.3f}' for j, both in means)} |")
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
