"""Measure the effect of fine-tuning on the first half of a clip.

    python docs/measure/quality/finetuning.py --data CLIPS

The stage `finetune` trains on the first half of each clip, with masks for a few frames. The second half is
scored from its first mask, with the model before and after fine-tuning.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from emavos.data import Clips
from emavos.models import PRESETS
from emavos.training import STAGES, train
from emavos.training.stages import DAVIS_HELD_OUT
from emavos.training.validation import score_clip
from emavos.weights.load import load_model


def measure(
    clips: Clips, video: int, init: str | None, masks: int, iterations: int | None
) -> dict[str, float]:
    """J&F of a clip's second half before and after fine-tuning, and the seconds of training."""
    model = load_model(init)
    preset = next(name for name, config in PRESETS.items() if config == model.config)
    config = replace(STAGES["finetune"], preset=preset)
    frames = clips.frames(video)
    half = len(frames) // 2
    before = score_clip(model, clips, video, first=half)
    with TemporaryDirectory() as folder:
        _few_masks(clips, frames[:half], Path(folder) / "clips", masks)
        start = time.perf_counter()
        train(model, Path(folder) / "clips", Path(folder) / "run", config, stop=iterations)
        seconds = time.perf_counter() - start
    return {"before": before, "after": score_clip(model, clips, video, first=half), "seconds": seconds}


def _few_masks(clips: Clips, frames: Sequence[Path], folder: Path, masks: int) -> None:
    """A data set of one clip: the given frames, with masks for some of them, evenly spaced."""
    name = frames[0].parent.name
    for kind in ("JPEGImages", "Annotations"):
        (folder / kind / name).mkdir(parents=True)
    for frame in frames:
        shutil.copy(frame, folder / "JPEGImages" / name)
    for i in np.unique(np.linspace(0, len(frames) - 1, masks).round().astype(int)).tolist():
        shutil.copy(clips.mask_of(frames[i]), folder / "Annotations" / name)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/quality/finetuning.py", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="JPEGImages/ and Annotations/"
    )
    parser.add_argument(
        "--clips", nargs="+", default=DAVIS_HELD_OUT, metavar="NAME", help=f"({' '.join(DAVIS_HELD_OUT)})"
    )
    parser.add_argument("--init", metavar="NAME|DIR", help="the model (the one in this package)")
    parser.add_argument("--masks", type=int, default=5, help="of the first half (5)")
    parser.add_argument("--iterations", type=int, help="stop early (the stage's)")
    parser.add_argument("--threads", type=int, help="threads of torch (its default)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    clips = Clips(args.data, only=args.clips)
    print(f"{args.masks} masks of the first half; J&F of the second, from its first mask")
    print(f"{'clip':24}{'before':>9}{'after':>9}{'seconds':>9}")
    rows = {}
    for video, name in enumerate(clips.names):
        rows[name] = row = measure(clips, video, args.init, args.masks, args.iterations)
        print(f"{name:24}{row['before']:9.3f}{row['after']:9.3f}{row['seconds']:9.0f}", flush=True)
    means = {
        key: sum(row[key] for row in rows.values()) / len(rows) for key in ("before", "after", "seconds")
    }
    print(f"{'mean':24}{means['before']:9.3f}{means['after']:9.3f}{means['seconds']:9.0f}")
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
