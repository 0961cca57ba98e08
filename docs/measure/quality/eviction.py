"""Measure the cost of a bounded memory in J&F: `python docs/measure/quality/eviction.py --data CLIPS`.

Each clip is played forward and backward several times, as one long video, tracked from its first mask. Each
bound and each kind of eviction is scored on every frame but the first, beside an unbounded memory.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from emavos.data import Clips
from emavos.evaluation import boundary_accuracy, region_similarity
from emavos.frames.preprocess import working_size
from emavos.io import IdMask, Pixels, read_frame, read_mask
from emavos.io.whole import replacing
from emavos.memory import Eviction, MemoryPolicy
from emavos.models import STCN, Features
from emavos.session import Session
from emavos.weights.load import load_model


class Clip(NamedTuple):
    """A clip in memory: frames (H, W, 3) uint8 and masks (H, W) of ids."""

    frames: list[Pixels]
    masks: list[IdMask]


class EncodesOnce(STCN):
    """A model that encodes each frame only once, since these videos repeat their frames."""

    def __init__(self, model: STCN) -> None:
        super().__init__(model.config)
        self.load_state_dict(model.state_dict())
        self.eval()
        self.seen: dict[bytes, Features] = {}

    def encode_key(self, frames: Tensor) -> Features:
        name = frames.numpy().tobytes()
        if name not in self.seen:
            self.seen[name] = super().encode_key(frames)
        return self.seen[name]


def load_clip(clips: Clips, video: int, size: int | None) -> Clip:
    """A clip reduced to a short side of `size` pixels; None keeps its size."""
    frames, masks = [], []
    for path in clips.frames(video):
        frame, mask = Image.fromarray(read_frame(path)), Image.fromarray(read_mask(clips.mask_of(path)))
        height, width = working_size(frame.height, frame.width, size)
        frames.append(np.asarray(frame.resize((width, height), Image.Resampling.BILINEAR)))
        masks.append(np.asarray(mask.resize((width, height), Image.Resampling.NEAREST)))
    return Clip(frames, masks)


def there_and_back(frames: int, passes: int) -> list[int]:
    """Frame indices of a clip played forward, backward and so on; the end frames are not doubled."""
    order = list(range(frames))
    for number in range(1, passes):
        order += (range(frames - 2, -1, -1) if number % 2 else range(1, frames)) if frames > 1 else []
    return order


def score(model: STCN, clip: Clip, policy: MemoryPolicy, passes: int) -> list[float]:
    """J&F per frame after the first, averaged over objects, for the clip played back and forth."""
    session = Session(model, policy, size=None)
    ids = [i for i in np.unique(clip.masks[0]).tolist() if i]
    series = []
    for number, index in enumerate(there_and_back(len(clip.frames), passes)):
        prob = session.step(clip.frames[index], clip.masks[index] if number == 0 else None).prob
        if number:
            found = (prob[1:] == prob.amax(dim=0)).numpy()
            pairs = [(plane, clip.masks[index] == i) for plane, i in zip(found, ids, strict=True)]
            scores = [(region_similarity(*pair) + boundary_accuracy(*pair)) / 2 for pair in pairs]
            series.append(float(np.mean(scores)))
    return series


def policies(bounds: Sequence[int], evictions: Sequence[Eviction]) -> dict[str, MemoryPolicy]:
    """The memory policies to compare, by name; the unbounded memory first."""
    named = {"unbounded": MemoryPolicy(max_frames=None)}
    for bound in bounds:
        for eviction in evictions:
            named[f"{bound} {eviction}"] = MemoryPolicy(max_frames=bound, eviction=eviction)
    return named


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/quality/eviction.py", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="JPEGImages/ and Annotations/"
    )
    parser.add_argument("--clips", nargs="+", metavar="NAME", help="of them (all)")
    parser.add_argument("--model", metavar="NAME|DIR", help="model, as in emavos segment (the embedded one)")
    parser.add_argument("--bounds", type=int, nargs="+", default=[8, 16, 32], help="frames held (8 16 32)")
    parser.add_argument("--evictions", nargs="+", choices=get_args(Eviction), default=get_args(Eviction))
    parser.add_argument("--passes", type=int, default=6, help="forward and backward, together (6)")
    parser.add_argument("--size", type=int, default=240, help="short side of frames and masks (240)")
    parser.add_argument("--threads", type=int, help="threads of torch (its default)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there after each clip")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    clips = Clips(args.data, only=args.clips)
    model = EncodesOnce(load_model(args.model))
    named = policies(args.bounds, args.evictions)
    scores: dict[str, dict[str, dict[str, float]]] = {}
    print(f"| clip | measure | {' | '.join(named)} |\n| --- | --- |{' --- |' * len(named)}")
    for video, name in enumerate(clips.names):
        clip = load_clip(clips, video, args.size)
        scores[name] = {"all": {}, "last": {}}
        for label, policy in named.items():
            series = score(model, clip, policy, args.passes)
            scores[name]["all"][label] = float(np.mean(series))
            scores[name]["last"][label] = float(np.mean(series[-2 * (len(clip.frames) - 1) :]))
        model.seen.clear()
        for measure, row in scores[name].items():
            print(_row(name, measure, row), flush=True)
        if args.json is not None:
            with replacing(args.json) as partial:
                partial.write_text(json.dumps(scores, indent=2) + "\n")
    for measure in ("all", "last"):
        rows = [of_clip[measure] for of_clip in scores.values()]
        print(_row("mean", measure, {label: float(np.mean([row[label] for row in rows])) for label in named}))


def _row(name: str, measure: str, row: dict[str, float]) -> str:
    """One row of the table. measure: over all passes, or over the last two."""
    return f"| {name} | {measure} | {' | '.join(f'{value:.3f}' for value in row.values())} |"


if __name__ == "__main__":
    main()
