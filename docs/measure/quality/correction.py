"""Measure the effect of one correction on later frames.

    python docs/measure/quality/correction.py --data DAVIS

Each sequence is tracked from its first mask. One frame is corrected with its true mask by `Session.correct`,
and the next 20 frames are scored beside the run without the correction. The frame is either the first with J
0.1 below the mean of the first five ("first"), or the frame with the lowest J of all frames with 20 later
frames ("lowest"). Sequences with a lowest J of 0.85 or more have not drifted, and are only listed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from emavos.models import STCN
from emavos.session import Session
from emavos.weights.load import load_model
from sequences import Clip, add_clip_arguments, known_keys, load_clips, overlap

BEHIND = 20  # number of frames scored after a correction
FALL, DRIFTED = 0.1, 0.85


def measure(model: STCN, clip: Clip, size: int) -> Iterator[dict[str, object]]:
    """For each kind of corrected frame its J, and the mean J of later frames for each treatment."""
    if not any(truth.any() for truth in clip.truths[1:-BEHIND]):
        raise ValueError(
            f"{clip.name} shows its object in no frame with {BEHIND} behind it to score a correction on; "
            "leave it out, or give more frames of it"
        )
    model = known_keys(model)
    with TemporaryDirectory() as folder:
        session, scores = Session(model, size=size), []
        for t, (frame, truth) in enumerate(zip(clip.frames, clip.truths, strict=True)):
            if t:
                session.save(Path(folder) / f"{t}")
            scores.append(overlap(session.step(frame, None if t else truth).mask, truth))
        for kind, t in _drifted(clip, scores).items():
            row: dict[str, object] = {"kind": kind, "frame": t, "J": scores[t]}
            row["none"] = float(np.mean(scores[t + 1 : t + 1 + BEHIND]))
            for how, since in (("correct", None), ("correct, since=1", 1)):
                session = Session.load(Path(folder) / f"{t}", model)
                session.step(clip.frames[t])
                session.correct({1: clip.truths[t]}, since)
                behind = range(t + 1, t + 1 + BEHIND)
                row[how] = float(
                    np.mean([overlap(session.step(clip.frames[u]).mask, clip.truths[u]) for u in behind])
                )
            yield row


def _drifted(clip: Clip, scores: Sequence[float]) -> dict[str, int]:
    """The frames to correct; frames without the object have no mask to give."""
    begin = float(np.mean(scores[1:6]))
    usable = [t for t in range(1, len(clip) - BEHIND) if clip.truths[t].any()]
    fallen = [t for t in usable if scores[t] < begin - FALL]
    lowest = min(usable, key=lambda t: scores[t])
    found = {"first": fallen[0]} if fallen else {}
    return found | ({"lowest": lowest} if scores[lowest] < DRIFTED else {})


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/quality/correction.py", description=__doc__)
    add_clip_arguments(parser)
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    model, rows = load_model(args.model), []
    print("| sequence | corrected | frame | its J | none | correct | correct, since=1 |\n|" + 7 * " --- |")
    for clip in load_clips(args.data, args.size, args.frames, args.sequences):
        found = list(measure(model, clip, args.size))
        if not found:
            print(f"| {clip.name} | has not drifted |" + 5 * " |", flush=True)
        for row in found:
            rows.append({"sequence": clip.name, **row})
            values = [f"{row[key]:.3f}" for key in ("J", "none", "correct", "correct, since=1")]
            print(
                f"| {clip.name} | {row['kind']} | {row['frame']} | {' | '.join(values)} |",
                flush=True,
            )
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
