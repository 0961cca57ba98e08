"""Measure how well scene cuts are found: precision and recall on spliced clips, false alarms on whole clips.

    python docs/measure/quality/cuts.py --data TRAIN

A splice is the beginning of one clip followed by that of another, so every pair of clips has one cut. Frames
are resized to one size, and keys are those of the model. The share of a frame that resembles nothing in the
memory is computed by the library, for a memory that stores frames as by default. No mask is needed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from emavos.data import Clips
from emavos.frames.preprocess import normalize, to_frame
from emavos.memory import MemoryPolicy
from emavos.models import STCN, folded
from emavos.session.memory import UNLIKE, Banks, unlike_from
from emavos.session.result import CUT
from emavos.weights import load_model

THRESHOLDS = (0.3, 0.4, CUT, 0.6, 0.7)


@torch.no_grad()
def keys_of(network: STCN, paths: Sequence[Path], size: tuple[int, int]) -> Tensor:
    """Keys (T, Ck, h, w) of images, resized to (H, W)."""
    keys = []
    for path in paths:
        image = Image.open(path).convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
        keys.append(network.encode_key(normalize(to_frame(image))[None]).key[0])
    return torch.stack(keys).half()


def unmatched(keys: Tensor, policy: MemoryPolicy, distance: float = UNLIKE) -> list[float]:
    """The share of each frame after the first that resembles nothing in the memory.

    keys: (T, Ck, h, w).
    distance: see `Banks.unmatched`.
    """
    banks = Banks(policy)
    banks.introduce((1,))
    shares = []
    for index, key in enumerate(keys.float()):
        if index:
            shares.append(float(banks.unmatched(key, distance)))
        if index % policy.every == 0:
            value = torch.zeros(1, 1, *key.shape[1:])
            banks.adding(key, value, index, given=() if index else (1,), scheduled=True)()
    return shares


def splices(clips: Sequence[Tensor], before: int, after: int) -> Iterator[Tensor]:
    """`before` frames of a clip and `after` frames of another, for every pair of clips."""
    for one, other in permutations(clips, 2):
        if len(one) >= before and len(other) >= after:
            yield torch.cat([one[:before], other[:after]])


def measure(clips: Sequence[Tensor], before: int, after: int, distance: float = UNLIKE) -> dict[str, object]:
    """Shares on uncut clips and on splices, and precision and recall for each threshold."""
    policy = MemoryPolicy()
    whole = [unmatched(clip, policy, distance) for clip in clips]
    spliced = [unmatched(clip, policy, distance) for clip in splices(clips, before, after)]
    uncut = [share for clip in whole for share in clip]
    at_cuts = [shares[before - 1] for shares in spliced]
    elsewhere = [share for shares in spliced for share in shares[: before - 1]]
    rows = []
    for threshold in THRESHOLDS:
        found = sum(share >= threshold for share in at_cuts)
        false = sum(share >= threshold for share in elsewhere)
        rows.append(
            {
                "threshold": threshold,
                "recall": found / max(len(at_cuts), 1),
                "precision": found / max(found + false, 1),
                "alarms": sum(share >= threshold for share in uncut),
                "clips_with_alarms": sum(max(clip) >= threshold for clip in whole),
            }
        )
    return {
        "clips": len(whole),
        "uncut_frames": len(uncut),
        "splices": len(at_cuts),
        "highest_uncut": max(uncut),
        "lowest_cut": min(at_cuts, default=1.0),
        "rows": rows,
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="TRAIN", help="with clips/ in it")
    parser.add_argument("--clips", nargs="+", metavar="NAME", help="(all)")
    parser.add_argument("--frames", type=int, metavar="N", help="the first N of each clip (all)")
    parser.add_argument("--size", type=int, nargs=2, default=(192, 336), metavar=("H", "W"), help="(192 336)")
    parser.add_argument("--before", type=int, default=15, help="frames before a cut (15)")
    parser.add_argument("--after", type=int, default=6, help="frames after it (6)")
    parser.add_argument("--model", metavar="NAME", help="(tiny)")
    parser.add_argument(
        "--keys", type=Path, metavar="DIR", help="folder to keep the keys in, for another run"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    places = [args.data / name for name in ("clips", "more/clips") if (args.data / name).is_dir()]
    if not places:
        parser.error(f"{args.data} has no folder clips/")
    found = [clips.frames(video) for clips in map(Clips, places) for video in range(len(clips))]
    if args.clips is not None:
        found = [paths for paths in found if paths[0].parent.name in args.clips]
    network = folded(load_model(args.model).eval())
    clips = []
    for paths in found:
        kept = None if args.keys is None else args.keys / f"{paths[0].parent.name}.npz"
        if kept is not None and kept.exists():
            clips.append(torch.from_numpy(np.load(kept)["keys"]))
            continue
        clips.append(keys_of(network, paths[: args.frames], tuple(args.size)))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept, keys=clips[-1].numpy())
    figures = measure(clips, args.before, args.after, unlike_from(network.config))
    print(f"{figures['clips']} clips, {figures['uncut_frames']} uncut frames, {figures['splices']} splices")
    print(f"share of new cells: at most {figures['highest_uncut']:.2f} uncut, ", end="")
    print(f"at least {figures['lowest_cut']:.2f} at a cut\n")
    print(
        "| threshold | recall | precision | false alarms | clips with one |\n| --- | --- | --- | --- | --- |"
    )
    rows = figures["rows"]
    assert isinstance(rows, list)
    for row in rows:
        print(
            f"| {row['threshold']} | {row['recall']:.3f} | {row['precision']:.3f} | {row['alarms']} | "
            f"{row['clips_with_alarms']} |"
        )
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
