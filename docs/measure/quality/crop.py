"""Measure the benefit of a window around a small object: `python docs/measure/quality/crop.py --data CLIPS`.

Clips are reduced. Each is tracked in three ways: as whole frames at one working size, as whole frames at
twice this size, and at the first working size in a window around the object, with twice the larger side of
its first box.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from emavos.data import Clips
from emavos.evaluation import boundary_accuracy, region_similarity
from emavos.io import IdMask
from emavos.models import STCN
from emavos.session import Session
from emavos.weights.load import load_model
from eviction import Clip, load_clip

Follow = Callable[[Clip], Iterator[IdMask]]


def whole(model: STCN, size: int) -> Follow:
    """Track whole frames at a short side of `size`; yields masks (H, W)."""

    def follow(clip: Clip) -> Iterator[IdMask]:
        session = Session(model, size=size)
        for number, frame in enumerate(clip.frames):
            yield session.step(frame, clip.masks[0] if number == 0 else None).mask

    return follow


def window(model: STCN, size: int) -> Follow:
    """Track in a window of fixed size at the object's last position; yields masks (H, W)."""

    def follow(clip: Clip) -> Iterator[IdMask]:
        session, mask = Session(model, size=size), clip.masks[0]
        side = window_side(mask)
        height, width = min(side, mask.shape[0]), min(side, mask.shape[1])
        top = left = 0
        for number, frame in enumerate(clip.frames):
            if mask.any():
                top, left = _corner(mask, height, width)
            part = (slice(top, top + height), slice(left, left + width))
            mask = np.zeros_like(mask)
            mask[part] = session.step(frame[part], clip.masks[0][part] if number == 0 else None).mask
            yield mask

    return follow


def window_side(mask: IdMask) -> int:
    """Twice the larger side of the object's box, at least 32 pixels."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(max(2 * (rows[-1] - rows[0] + 1), 2 * (columns[-1] - columns[0] + 1), 32))


def _corner(mask: IdMask, height: int, width: int) -> tuple[int, int]:
    """The corner of the window around the object, inside the frame."""
    centres = [(lambda at: (at[0] + at[-1] + 1) // 2)(np.flatnonzero(mask.any(axis=axis))) for axis in (1, 0)]
    top, left = (
        min(max(int(centre) - side // 2, 0), limit - side)
        for centre, side, limit in zip(centres, (height, width), mask.shape, strict=True)
    )
    return top, left


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/quality/crop.py", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="JPEGImages/ and Annotations/"
    )
    parser.add_argument("--clips", nargs="+", metavar="NAME", help="of them (all)")
    parser.add_argument("--model", metavar="NAME|DIR", help="model, as in emavos segment (the embedded one)")
    parser.add_argument("--scaled", type=int, default=72, help="short side to which clips are scaled (72)")
    parser.add_argument("--size", type=int, default=240, help="the first working size (240)")
    parser.add_argument("--frames", type=int, default=40, help="of each clip, from the first on (40)")
    parser.add_argument("--threads", type=int, help="threads of torch (its default)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    clips, model = Clips(args.data, only=args.clips), load_model(args.model)
    ways = {
        f"whole at {args.size}": whole(model, args.size),
        f"whole at {2 * args.size}": whole(model, 2 * args.size),
        f"window at {args.size}": window(model, args.size),
    }
    print(f"| clip | enlarged by a window | {' | '.join(ways)} |\n| --- | --- |{' --- |' * len(ways)}")
    rows: dict[str, dict[str, float]] = {}
    for video, name in enumerate(clips.names):
        whole_clip = load_clip(clips, video, args.scaled)
        clip = Clip(whole_clip.frames[: args.frames], whole_clip.masks[: args.frames])
        short = min(clip.masks[0].shape)
        rows[name] = {"enlarged": short / min(window_side(clip.masks[0]), short)}
        for label, follow in ways.items():
            pairs = [(found != 0, true != 0) for found, true in zip(follow(clip), clip.masks, strict=True)]
            series = [(region_similarity(*pair) + boundary_accuracy(*pair)) / 2 for pair in pairs[1:]]
            rows[name][label] = float(np.mean(series))
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in rows[name].values())} |", flush=True)
    means = [float(np.mean([row[label] for row in rows.values()])) for label in ways]
    print(f"| mean | | {' | '.join(f'{value:.3f}' for value in means)} |")
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
