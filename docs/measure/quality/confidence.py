"""Measure how well confidence predicts quality: `python docs/measure/quality/confidence.py --data DAVIS`.

Every sequence is tracked from its first mask in three ways: unchanged, through a window that the object
leaves, and with noise in growing darkness, so that objects get lost. The output shows the area under the ROC
curve for low confidence as a test of low J, the mean J by confidence, and how well absent
objects are distinguished from lost objects.

With `--objects`, each id of the masks is a separate object, and clips are only tracked unchanged.
`--first-masks` adds first masks of several objects for data whose ground truth is only their union. The
confidence of a union is the mean over its objects, weighted by area.

With `--calibrate`, the script instead fits the weights of the confidence, and prints the numbers for
`emavos/confidence/calibration.py`. Each sequence is then also tracked backward, from half a mask, and through
more windows, for more examples of failure.
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

from emavos.confidence.expected import Evidence, absent_features, present_features
from emavos.evaluation import region_similarity
from emavos.io import IdMask, read_mask
from emavos.models import STCN
from emavos.session import Session
from emavos.weights.load import load_model
from sequences import Clip, add_clip_arguments, leaving, load_clips, scaled

ABSENCES = "for absences:"  # prefix of kinds used only for absences
BINS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Seen:
    """The prediction for one object in one frame, with the ground truth."""

    clip: str
    kind: str
    frame: int
    object: int  # 0 for the union of all objects
    features: tuple[float, ...]
    confidence: float
    present: bool  # the predicted mask is not empty
    left: float  # true area as a fraction of the area in the first frame
    J: float

    @property
    def there(self) -> bool:
        """Whether the object's true mask is not empty."""
        return self.left > 0


def follow(model: STCN, clip: Clip, kind: str, first: IdMask, size: int) -> Iterator[Seen]:
    """Yield a session's prediction for each object in each frame after the first."""
    session = Session(model, size=size)
    for t, (frame, truth) in enumerate(zip(clip.frames, clip.truths, strict=True)):
        result = session.step(frame, first if t == 0 else None)
        if t == 0:
            continue
        evidence = result.evidence
        assert isinstance(evidence, Evidence)
        rows = zip(evidence.signs.tolist(), evidence.edges_before.tolist(), strict=True)
        for (id, state), ((area, agreement, _, trace), edge) in zip(
            result.objects.items(), rows, strict=True
        ):
            present = area > 0
            features = present_features(agreement) if present else absent_features(edge, trace)
            left = float((truth == id).sum() / max((clip.truths[0] == id).sum(), 1))
            J = region_similarity(result.mask == id, truth == id)
            yield Seen(clip.name, kind, t, id, features, state.confidence, present, left, J)


def follow_union(model: STCN, clip: Clip, first: IdMask, size: int) -> Iterator[Seen]:
    """Yield a session's prediction for the union of all objects, if only the union has ground truth."""
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
    """Area under the ROC curve: how often a positive scores below a negative; ties count half.

    NaN if there are no positives or no negatives.
    """
    values, is_positive = np.asarray(scores, float), np.asarray(positive, bool)
    low, high = values[is_positive], values[~is_positive]
    if not low.size or not high.size:
        return float("nan")
    below = (low[:, None] < high[None]).mean() + 0.5 * (low[:, None] == high[None]).mean()
    return float(below)


def fit(
    features: NDArray[np.float64], target: NDArray[np.float64], ridge: float = 1.0
) -> NDArray[np.float64]:
    """Logistic regression: weights to predict each target from its row of features.

    features: (n, k).
    target: (n,) in [0, 1].
    ridge: penalty on the squared weights except the first, so that a few failures do not give huge weights.
    """
    weights = np.zeros(features.shape[1])
    keep = np.diag([1e-6, *[ridge] * (features.shape[1] - 1)])
    for _ in range(50):  # Newton steps
        p = 1 / (1 + np.exp(-features @ weights))
        slope = features.T @ (p - target) + keep @ weights
        weights -= np.linalg.solve((features * (p * (1 - p))[:, None]).T @ features + keep, slope)
    return weights


def dark(clip: Clip) -> Clip:
    """The clip with noise in growing darkness."""
    g = np.random.default_rng(0)
    frames = [
        np.clip(frame * (0.6 - 0.24 * t / len(clip)) + g.normal(0, 12, frame.shape), 0, 255).astype(np.uint8)
        for t, frame in enumerate(clip.frames)
    ]
    return Clip(clip.name, [clip.frames[0], *frames[1:]], clip.truths)


def harder(clip: Clip) -> dict[str, tuple[Clip, IdMask]]:
    """Variants of the clip that make a network fail, each with its first mask."""
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
        features = np.array([one.features for one in rows])
        weights = fit(features, np.array([one.J for one in rows]))
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
