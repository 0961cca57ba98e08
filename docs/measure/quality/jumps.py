"""Measure masks after a jump of the picture, without and with locality.

    python docs/measure/quality/jumps.py --data TRAIN --model A [--model B ...] --cache CLIPS

Each real clip of the suite (suite.py; CLIPS is its folder of clips) is tracked. From the fifth frame on,
frames are mirrored, so that all objects jump to the other side at once. Printed is J, the mean over objects,
of the first, the third and the eleventh frame after the jump, without (anywhere) and with locality (near).
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

BEFORE = 4  # frames before the jump
SCORED = (1, 3, 11)  # frames after the jump, counted from 1
GROUPS = ("single", "multi")  # the real clips


def after_jump(predictor: Predictor, frames: Sequence[Pixels], masks: Sequence[IdMask]) -> list[float]:
    """J of each scored frame.

    frames, masks: of a clip. They are mirrored from `BEFORE` on.
    """
    session, scores = predictor.session(), []
    for time in range(BEFORE + max(SCORED)):
        jumped = time >= BEFORE
        frame, truth = (
            np.ascontiguousarray(x[:, :: -1 if jumped else 1]) for x in (frames[time], masks[time])
        )
        mask = session.step(frame, None if time else truth).mask
        if time - BEFORE + 1 in SCORED:
            scores.append(fmean(region_similarity(mask == id, truth == id) for id in session.ids))
    return scores


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
    heads = [f"{how}: {time}" for how in ("anywhere", "near") for time in SCORED]
    print(f"| model | clip | {' | '.join(heads)} |\n|" + (2 + len(heads)) * " --- |")
    for name in args.model:
        both = Predictor.from_pretrained(name, device=args.device, dtype=args.dtype, size=suite.SIZE)
        rows = []
        for clip in clips:
            frames, masks = suite.read_clip(args.cache, clip)
            row = []
            for locality in (False, True):
                row += after_jump(both.with_settings(locality=locality), frames, masks)
            rows.append(row)
            print(_line(name, clip, row), flush=True)
        print(_line(name, "mean", [fmean(column) for column in zip(*rows, strict=True)]))


def _line(name: str, clip: str, row: Sequence[float]) -> str:
    return f"| {name} | {clip} | " + " | ".join(f"{value:.3f}" for value in row) + " |"


if __name__ == "__main__":
    main()
