"""Measure masks after a jump of the picture, without and with locality.

    python docs/measure/quality/jumps.py --data TRAIN --model A [--model B ...] --cache CLIPS

Each real clip of the suite (suite.py; CLIPS is its folder of clips) is tracked for four frames. Its first
frame follows three times, mirrored, so that all objects have jumped to the other side at once. Printed is J,
the mean over objects, of the first and of the third mirrored frame, without (anywhere) and with locality
(near).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

import suite
from emavos import Predictor
from emavos.evaluation import region_similarity
from emavos.io import IdMask, Pixels

BEFORE, AFTER = 4, 3  # frames before the jump, and after it
GROUPS = ("single", "multi")  # the real clips


def after_jump(predictor: Predictor, frames: Sequence[Pixels], mask: IdMask) -> list[float]:
    """J of each mirrored frame.

    frames: the frames before the jump.
    mask: (H, W) of ids, of the first frame.
    """
    session = predictor.session()
    session.step(frames[0], mask)
    for frame in frames[1:]:
        session.step(frame)
    mirrored, truth = np.ascontiguousarray(frames[0][:, ::-1]), mask[:, ::-1]
    found = [session.step(mirrored).mask for _ in range(AFTER)]
    return [fmean(region_similarity(own == id, truth == id) for id in session.ids) for own in found]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="TRAIN", help="as for suite.py")
    parser.add_argument("--model", action="append", required=True, help="a name or a folder; may be repeated")
    parser.add_argument("--cache", type=Path, required=True, metavar="CLIPS", help="where the clips are made")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "auto"])
    parser.add_argument("--threads", type=int, metavar="N", help="threads of torch")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        clips = suite.make_clips(args.data, args.cache, GROUPS)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    print("| model | clip | anywhere: first | third | near: first | third |\n|" + 6 * " --- |")
    for name in args.model:
        both = Predictor.from_pretrained(name, device=args.device, dtype=args.dtype, size=suite.SIZE)
        rows = []
        for clip in clips:
            frames, masks = suite.read_clip(args.cache, clip)
            row = []
            for locality in (False, True):
                scores = after_jump(both.with_settings(locality=locality), frames[:BEFORE], masks[0])
                row += [scores[0], scores[-1]]
            rows.append(row)
            print(_line(name, clip, row), flush=True)
        print(_line(name, "mean", [fmean(column) for column in zip(*rows, strict=True)]))


def _line(name: str, clip: str, row: Sequence[float]) -> str:
    return f"| {name} | {clip} | " + " | ".join(f"{value:.3f}" for value in row) + " |"


if __name__ == "__main__":
    main()
