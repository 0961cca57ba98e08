"""Track a video in several views (flipped, scaled) and average the probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from emavos.frames.preprocess import to_frame, to_mask
from emavos.session import Result, Session


class Views:
    """Tracks the objects of one video in several views. Use an instance instead of a `Session`.

    Each view has its own session, so each costs the time and memory of a session at its size. The result is
    the mean of the views' probabilities.

    begin: returns a session for a short side in pixels, for example `lambda size: Session(model, policy,
        size)`.
    size: short side of the view at scale 1, in pixels; None keeps the size of the frames.
    scales: factors on `size`, one per view.
    flip: whether to add a mirrored copy of each view.
    """

    def __init__(
        self,
        begin: Callable[[int | None], Session],
        size: int | None = 480,
        *,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> None:
        if not scales or not all(0.1 <= scale <= 4 for scale in scales):
            raise ValueError(f"scales are one or more numbers from 0.1 to 4, not {list(scales)}")
        self._begin, self._size = begin, size
        self._kinds = list(product(scales, (False, True) if flip else (False,)))
        self._sessions: list[Session] = []
        self._apart = False  # whether a frame failed in one view after other views had processed the frame

    def step(self, frame: object, mask: object = None) -> Result:
        """Returns the masks of the next frame, like `Session.step`.

        Raises RuntimeError after a failed step, because the views may then be at different frames.
        """
        if self._apart:
            raise RuntimeError("an earlier frame failed in one of the views; begin the video anew")
        pixels = to_frame(frame)  # (3, H, W)
        given = None if mask is None else to_mask(mask, tuple(pixels.shape[1:]))
        if not self._sessions:
            short = min(pixels.shape[1:]) if self._size is None else self._size
            sizes = [self._size if scale == 1 else max(16, round(scale * short)) for scale, _ in self._kinds]
            self._sessions = [self._begin(size) for size in sizes]
        results: list[Result] = []
        try:
            for (_, mirrored), session in zip(self._kinds, self._sessions, strict=True):
                turn = _mirrored if mirrored else _same
                result = session.step(turn(pixels), None if given is None else turn(given))
                results.append(replace(result, prob=turn(result.prob)))
        except BaseException:
            self._apart = bool(results)
            raise
        prob = torch.stack([result.prob for result in results]).mean(dim=0)  # (1 + O, H, W)
        sure = [sum(views) / len(views) for views in zip(*(r.confidences for r in results), strict=True)]
        return Result(results[0].index, results[0].ids, prob, tuple(sure))


def _mirrored(x: Tensor) -> Tensor:
    return x.flip(-1)


def _same(x: Tensor) -> Tensor:
    return x
