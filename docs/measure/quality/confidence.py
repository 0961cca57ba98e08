"""How well a confidence tells how good a mask is: `python docs/measure/quality/confidence.py --data DAVIS`.

Every sequence is followed from its first mask as it is, through a window that the object leaves, and with
noise in growing dark, where objects are lost. Told are the area under the ROC curve of low confidence as a
test of low J, the mean J of frames of like confidence, and how well an object that is gone is told from one
that was lost.

With `--objects` each id of the masks is an object of its own, and clips are followed as they are.
`--first-masks` takes first masks of several objects where the truth is of their union: the confidence of that
is the mean of theirs, by their areas.

`--calibrate` fits the weights of the confidence in place of that, and prints those of
`emavos/confidence/calibration.py`. It follows each sequence also backward, from half a mask, and through more
windows, so that there is enough to be seen of failure.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from emavos.evaluation import region_similarity
from emavos.io import IdMask, read_mask
from emavos.models import STCN
from emavos.session import Session
from emavos.weights.load import load_model
from sequences import Clip, add_clip_arguments, leaving, load_clips, scaled

ABSENCES = "for absences:"  # what kinds begin with that are not there for the masks
BINS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Seen:
    """One frame: what was said of its object, and what is true."""

    clip: str
    kind: str
    frame: int
    object: int  # 0: the union of all
    signs: tuple[float, ...]
    confidence: float
    present: bool  # it has a mask
    left: float  # its true area, a share of what it had in the first frame
    J: float

    @property
    def there(self) -> bool:
        """Whether it has a true mask."""
        return self.left > 0


def follow(model: STCN, clip: Clip, kind: str, first: IdMask, size: int) -> Iterator[Seen]:
    """What a session says of each object of each frame after the first."""
    session = Session(model, size=size)
    for t, (frame, truth) in enumerate(zip(clip.frames, clip.truths, strict=True)):
        result = session.step(frame, first if t == 0 else None)
        if t == 0:
            continue
        signs = session.signs()
        for id, state in result.objects.items():
            present = len(signs[id]) == 2  # an absence has three
            left = float((truth == id).sum() / max((clip.truths[0] == id).sum(), 1))
            J = region_similarity(result.mask == id, truth == id)
            yield Seen(clip.name, kind, t, id, signs[id], state.confidence, present, left, J)


def follow_union(model: STCN, clip: Clip, first: IdMask, size: int) -> Iterator[Seen]:
    """What a session says of several objects together, where no more is known than their union."""
    session = Session(model, size=size)
    for t, (frame, truth) in enumerate(zip(clip.frames, clip.truths, strict=True)):
        result = session.step(frame, first if t == 0 else None)
        if t == 0:
            continue
        states = result.objects.values()
        area = sum(state.area for state in states)
        confidence = (
            sum(state.area * state.confidence for state in states) / area
            if area
            else min(state.confidence for state in states)
        )
        J = region_similarity(result.mask != 0, truth != 0)
        left = float((truth != 0).sum() / (clip.truths[0] != 0).sum())
        yield Seen(clip.name, "union", t, 0, (), confidence, area > 0, left, J)


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Area under the ROC curve: how often a positive scores below a negative, ties counting half.

    NaN where one of the two is missing.
    """
    values, is_positive = np.asarray(scores, float), np.asarray(positive, bool)
    low, high = values[is_positive], values[~is_positive]
    if not low.size or not high.size:
        return float("nan")
    below = (low[:, None] < high[None]).mean() + 0.5 * (low[:, None] == high[None]).mean()
    return float(below)


def fit(signs: NDArray[np.float64], target: NDArray[np.float64], ridge: float = 1.0) -> NDArray[np.float64]:
    """Logistic regression: the weights that give each row of signs (n, k) its target (n,) in [0, 1].

    ridge: of the squared weights but the first, so that few failures do not give weights without bound.
    """
    weights = np.zeros(signs.shape[1])
    keep = np.diag([1e-6, *[ridge] * (signs.shape[1] - 1)])
    for _ in range(50):  # Newton's steps
        p = 1 / (1 + np.exp(-signs @ weights))
        slope = signs.T @ (p - target) + keep @ weights
        weights -= np.linalg.solve((signs * (p * (1 - p))[:, None]).T @ signs + keep, slope)
    return weights


def dark(clip: Clip) -> Clip:
    """The clip with noise in growing dark."""
    g = np.random.default_rng(0)
    frames = [
        np.clip(frame * (0.6 - 0.24 * t / len(clip)) + g.normal(0, 12, frame.shape), 0, 255).astype(np.uint8)
        for t, frame in enumerate(clip.frames)
    ]
    return Clip(clip.name, [clip.frames[0], *frames[1:]], clip.truths)


def harder(clip: Clip) -> dict[str, tuple[Clip, IdMask]]:
    """The clip in more ways that make a network fail, with the first mask that is given of each."""
    first = clip.truths[0]
    half = first.copy()
    half[: int(np.nonzero(first)[0].mean())] = 0
    backward = Clip(clip.name, clip.frames[::-1], clip.truths[::-1])
    clips = {
        "backward": backward,
        f"{ABSENCES} backward": leaving(backward),
        f"{ABSENCES} narrow": leaving(clip, 0.3, 0.5),
        f"{ABSENCES} narrow, backward": leaving(backward, 0.3, 0.5),
    }
    return {"half": (clip, half)} | {kind: (one, one.truths[0]) for kind, one in clips.items()}


def _calibrate(seen: Sequence[Seen]) -> None:
    for name, present in (("PRESENT", True), ("ABSENT", False)):
        rows = [one for one in seen if one.present == present]
        rows = [one for one in rows if not (present and one.kind.startswith(ABSENCES))]
        signs = np.array([one.signs for one in rows])
        weights = fit(signs, np.array([one.J for one in rows]))
        print(f"{name} = ({', '.join(f'{w:.3f}' for w in weights)})  # {len(rows)} frames")


def _report(seen: Sequence[Seen]) -> None:
    for kind in dict.fromkeys(one.kind for one in seen):
        rows = [one for one in seen if one.kind == kind]
        print(f"\n{kind}: {len(rows)} frames, mean J {np.mean([one.J for one in rows]):.3f}")
        for bound in (0.5, 0.7):
            low = [bound > one.J for one in rows]
            area = auc([one.confidence for one in rows], low)
            print(f"  low confidence tells J < {bound} ({sum(low)} frames): AUC {area:.3f}")
    print(f"\n{'confidence':14}{'frames':>8}{'mean J':>9}{'mean confidence':>17}")
    for low_end, high_end in pairwise(BINS):
        rows = [one for one in seen if low_end <= one.confidence < high_end + (high_end == 1)]
        if rows:
            mean, said = np.mean([one.J for one in rows]), np.mean([one.confidence for one in rows])
            print(f"{low_end:.1f} to {high_end:.1f}    {len(rows):8}{mean:9.3f}{said:17.3f}")
    error = np.mean([abs(one.confidence - one.J) for one in seen])
    print(f"a confidence is {error:.3f} from J in the mean")
    empty = [one for one in seen if not one.present]
    if not (gone := sum(not one.there for one in seen)):
        return
    print(f"\ngone in {gone} frames, {sum(not one.there for one in empty)} of them without a mask")
    for name, rows in {
        "lost": empty,
        "as they leave": [one for one in empty if one.kind != "dark"],
        "a twentieth or more": [one for one in empty if not one.there or one.left >= 0.05],
    }.items():
        lost = [one.there for one in rows]
        area = auc([one.confidence for one in rows], lost)
        print(f"  {name}: without a mask in {sum(lost)} frames: AUC {area:.3f}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/quality/confidence.py", description=__doc__)
    add_clip_arguments(parser)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--calibrate", action="store_true", help="fit the weights instead")
    way.add_argument("--objects", action="store_true", help="each id of the masks by itself")
    way.add_argument(
        "--first-masks", type=Path, metavar="DIR", help="<sequence>.png of several objects, scored as one"
    )
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    names = args.sequences
    if args.calibrate and names is None:
        from emavos.training.stages import DAVIS_HELD_OUT

        names = DAVIS_HELD_OUT
    if args.first_masks and names is None:
        names = sorted(path.stem for path in args.first_masks.glob("*.png"))
    model = load_model(args.model)
    seen: list[Seen] = []
    for clip in load_clips(args.data, args.size, args.frames, names, merge=not args.objects):
        if args.first_masks:
            first = read_mask(args.first_masks / f"{clip.name}.png")
            height, width = clip.truths[0].shape
            seen += follow_union(model, clip, scaled(first, (width, height)), args.size)
            continue
        kinds = {"whole": (clip, clip.truths[0])}
        if not args.objects:
            window = leaving(clip)
            kinds |= {"leaving": (window, window.truths[0]), "dark": (dark(clip), clip.truths[0])}
        kinds |= harder(clip) if args.calibrate else {}
        for kind, (one, first) in kinds.items():
            seen += follow(model, one, kind, first, args.size)
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(one) for one in seen]) + "\n")
    if args.calibrate:
        _calibrate(seen)
    else:
        _report(seen)


if __name__ == "__main__":
    main()
