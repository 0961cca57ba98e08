"""Measure how much J a model loses to drift, to decoding and to resolution.

    python docs/measure/quality/where_lost.py --data CLIPS --model MODEL [--clip NAME ...]

CLIPS has JPEGImages/ and Annotations/ like DAVIS. The table shows the mean J of the objects in a clip's first
mask:

tracked     tracked from the first mask, as in `Predictor.propagate`
memory      ground truth instead of predictions in every memory frame, so without drift
drawing     the frame's own ground truth as its only memory, so only decoding remains
stride 4    ground truth reduced to stride 4 and enlarged: an upper bound for models with such an output
stride 2    the same with stride 2
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch.nn import functional

from emavos import Predictor, Session
from emavos.data import Clips
from emavos.evaluation import region_similarity
from emavos.frames import resize, working_size
from emavos.io import IdMask, Pixels, read_frame, read_mask


@dataclass(frozen=True)
class Losses:
    """Mean J of a clip under each condition."""

    tracked: float
    memory: float
    drawing: float
    stride_4: float
    stride_2: float


def where_lost(
    predictor: Predictor, frames: Sequence[Pixels], truth: Sequence[IdMask], step: int = 1
) -> Losses:
    """The J of each condition, over all frames except the first.

    predictor: model and settings to measure.
    frames: (H, W, 3) uint8 each.
    truth: (H, W) of ids each.
    step: measure drawing only on every `step`-th frame, since each costs two frames.
    """
    ids = [int(id) for id in np.unique(truth[0]) if id]
    if not ids or len(frames) < 2:
        raise ValueError("a clip has an object in its first mask and two frames or more")
    rest, some = truth[1:], slice(1, None, step)
    drawn = (_drawn(predictor, *pair, ids) for pair in zip(frames[some], truth[some], strict=True))
    return Losses(
        _mean_j(_tracked(predictor, frames, truth, ids, corrected=False), rest, ids),
        _mean_j(_tracked(predictor, frames, truth, ids, corrected=True), rest, ids),
        _mean_j(drawn, truth[some], ids),
        *(_mean_j((coarse(mask, ids, n, predictor.size) for mask in rest), rest, ids) for n in (4, 2)),
    )


def coarse(mask: IdMask, ids: Sequence[int], stride: int, size: int | None) -> IdMask:
    """A mask (H, W) reduced to a stride of the working frame: averaged, enlarged and thresholded again."""
    height, width = mask.shape
    height, width = working_size(height, width, size)
    planes = torch.stack([torch.from_numpy(mask == id) for id in (0, *ids)]).float()  # (1 + O, H, W)
    whole = resize(planes, (-(-height // stride) * stride, -(-width // stride) * stride))
    small = functional.avg_pool2d(whole[None], stride)
    large = functional.interpolate(small, mask.shape, mode="bilinear", align_corners=False)[0]
    table = np.array((0, *ids), dtype=np.int32)
    found: IdMask = table[large.argmax(dim=0).numpy()]
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="CLIPS")
    parser.add_argument("--model", default="tiny", help="a name or a folder (tiny)")
    parser.add_argument("--clip", action="append", metavar="NAME", help="only these; may be repeated")
    parser.add_argument("--size", type=int, default=480, help="short side of the working frame (480)")
    parser.add_argument("--step", type=int, default=4, metavar="N", help="drawing on every N-th frame (4)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of torch")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON of the numbers")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    clips = Clips(args.data, only=args.clip)
    predictor = Predictor.from_pretrained(args.model, device="cpu", size=args.size)
    print(
        f"{'J':28}" + "".join(f"{name.replace('_', ' '):>10}" for name in Losses.__annotations__), flush=True
    )
    found: dict[str, Losses] = {}
    for video, name in enumerate(clips.names):
        images = clips.frames(video)
        truth = [read_mask(clips.mask_of(image)) for image in images]
        found[name] = where_lost(predictor, [read_frame(image) for image in images], truth, args.step)
        print(_row(name, found[name]), flush=True)
    print(
        _row("mean", Losses(*(fmean(column) for column in zip(*map(astuple, found.values()), strict=True))))
    )
    if args.out is not None:
        args.out.write_text(json.dumps({name: asdict(losses) for name, losses in found.items()}, indent=1))


def _tracked(
    predictor: Predictor,
    frames: Sequence[Pixels],
    truth: Sequence[IdMask],
    ids: Sequence[int],
    corrected: bool,
) -> Iterator[IdMask]:
    """Masks of all frames except the first. If `corrected`, every memory frame gets its ground truth."""
    session = predictor.session()
    session.step(frames[0], truth[0])
    for index in range(1, len(frames)):
        mask = session.step(frames[index]).mask  # the prediction, before the ground truth is given
        if corrected and index % predictor.policy.every == 0:
            session.correct({id: truth[index] == id for id in ids})
        yield mask


def _drawn(predictor: Predictor, frame: Pixels, truth: IdMask, ids: Sequence[int]) -> IdMask:
    """The mask of a frame tracked with its own ground truth as the only memory."""
    if not np.isin(truth, ids).any():
        return np.zeros_like(truth)
    session: Session = predictor.session()
    session.step(frame, np.where(np.isin(truth, ids), truth, 0))
    return session.step(frame).mask


def _mean_j(pred: Iterator[IdMask], truth: Sequence[IdMask], ids: Sequence[int]) -> float:
    return fmean(
        region_similarity(mask == id, true == id)
        for mask, true in zip(pred, truth, strict=True)
        for id in ids
    )


def _row(name: str, losses: Losses) -> str:
    return f"{name[:27]:28}" + "".join(f"{value:10.3f}" for value in astuple(losses))


if __name__ == "__main__":
    main()
