"""Validation: J&F on held-out sequences, tracked by a session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from emavos.data import Clips
from emavos.evaluation import score_sequence
from emavos.io import IdMask, list_images, read_frame, read_mask
from emavos.models import STCN
from emavos.session import Session
from emavos.training import distributed


def validate(model: STCN, sets: Sequence[Clips]) -> dict[str, float]:
    """J&F by sequence, tracked from the first mask of each; processes share the sequences.

    model: network.
    sets: held-out sequences.

    Frames keep their size, but are reduced to a short side of 480 if larger.
    """
    every = [(clips, video) for clips in sets for video in range(len(clips))]
    mode = model.training
    model.eval()
    ours = every[distributed.rank() :: distributed.count()]
    scores = {clips.names[video]: score_clip(model, clips, video) for clips, video in ours}
    model.train(mode)
    return dict(sorted(distributed.gathered(scores).items()))


def score_clip(model: STCN, clips: Clips, video: int, first: int = 0, count: int | None = None) -> float:
    """Mean J&F of the objects in a clip's frame `first`, over the later frames.

    model: network in evaluation mode.
    clips: set of clips.
    video: index of the clip.
    first: index of the first mask.
    count: number of frames to track from there; None tracks all.

    Frames without a mask are tracked but not scored. Raises ValueError with fewer than three masks.
    """
    annotated = clips.frames(video)
    frames = list_images(annotated[0].parent)
    begin = frames.index(annotated[first])
    frames = frames[begin:] if count is None else frames[begin : begin + count]
    given = read_mask(clips.mask_of(frames[0]))
    ids = [i for i in np.unique(given).tolist() if i]
    if not ids:
        raise ValueError(f"{clips.mask_of(frames[0])} shows no object; a score begins with one")
    size = None if min(given.shape) <= 480 else 480
    session = Session(model, size=size)
    with_truth = set(annotated)
    truths: list[IdMask] = []

    def found() -> Iterator[IdMask]:
        for frame in frames:
            result = session.step(read_frame(frame), given if frame == frames[0] else None)
            if frame in with_truth:
                truths.append(_numbered(read_mask(clips.mask_of(frame)), ids))
                yield _numbered(result.mask, ids)

    pred = list(found())
    objects = score_sequence(truths, pred).values()
    return float(np.mean([(score.J.mean + score.F.mean) / 2 for score in objects]))


def _numbered(mask: IdMask, ids: Sequence[int]) -> IdMask:
    """Objects renumbered 1, 2, ... in the order of `ids`, without any other id, as scoring expects."""
    out = np.zeros_like(mask)
    for number, i in enumerate(ids, 1):
        out[mask == i] = number
    return out
