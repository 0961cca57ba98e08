"""Propagation backward, or in both directions, from the masks of any frames to all frames.

A backward pass is a forward pass over the reversed frames. Its results are spooled to disk, with 8 bits per
probability, so that results are returned in the order of the frames. Only one session and one frame are in
memory at a time.

With both directions, an object annotated before and after a frame has two predictions on the frame. They are
averaged, weighted by confidence and by distance to the annotation. Before its first annotation, an object has
only the backward prediction; after its last, only the forward prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from emavos.frames.preprocess import ids_of, to_mask
from emavos.io import FrameSource, Reel, Spool, open_reel
from emavos.session.result import Result
from emavos.session.session import Session

Direction = Literal["forward", "backward", "both"]
Begin = Callable[[Sequence[int]], Session]  # makes a session that steps through the frames in this order

_SURENESS = 4  # exponent of a confidence in its weight; 4 was best of 0, 1, 4 and 8 on held-out clips


def check_direction(direction: str) -> None:
    """Raise ValueError unless the direction is "forward", "backward" or "both"."""
    if direction not in get_args(Direction):
        raise ValueError(f"direction is one of {', '.join(get_args(Direction))}, not {direction!r}")


def propagate_backward(begin: Begin, frames: FrameSource, masks: Mapping[int, Any]) -> Iterator[Result]:
    """Results in the order of the frames, propagated from each mask to the earlier frames.

    begin: makes a session for frames in a given order.
    frames: the video; must be seekable.
    masks: {frame index: mask}.

    Frames after the last mask have no objects.

    Raises ValueError if the frames are a stream, or a mask is for a frame that does not exist.
    """
    with open_reel(frames) as reel, _Passes() as backward:
        size = backward.record(begin, reel, _of_frames(masks, reel), prime=False)
        for index in range(len(reel)):
            yield backward.result(index) or _nothing(index, size)


def propagate_both(
    begin: Begin, frames: FrameSource, masks: Mapping[int, Any], prime: bool = True, stop: bool = False
) -> Iterator[Result]:
    """Results in the order of the frames, propagated in both directions and fused.

    begin: makes a session for frames in a given order.
    frames: the video; must be seekable.
    masks: {frame index: mask}.
    prime: whether both passes know all annotations from the start, including those of later frames.
    stop: whether a pass has no masks after a scene cut, so that the other pass alone counts there.

    Raises the errors of `propagate_backward`.
    """
    with open_reel(frames) as reel, _Passes() as backward:
        arrays = _of_frames(masks, reel)
        backward.record(begin, reel, arrays, prime)
        annotated = {index: set(ids_of(torch.from_numpy(mask))) for index, mask in arrays.items()}
        for index, result in enumerate(steps(begin, reel, arrays, range(len(reel)), prime)):
            other = backward.result(index)
            yield result if other is None else fuse(result, other, annotated, stop)


def fuse(forward: Result, backward: Result, annotated: Mapping[int, set[int]], stop: bool = False) -> Result:
    """The fused result of two results of the same frame.

    If an object was annotated on both sides, its probabilities are averaged. The weight of each side is a
    power of its confidence, times the distance between the frame and the annotation of the *other* side.

    forward, backward: results of the two passes.
    annotated: {index of an annotated frame: ids of its mask}.
    stop: whether a pass has no masks where its `cut` is true; then the other pass counts alone.
    """
    now, device = forward.index, forward.prob.device
    ids = tuple(dict.fromkeys(forward.ids + backward.ids))
    planes, confidences = [], []
    for id in ids:
        before = max((t for t, there in annotated.items() if id in there and t <= now), default=None)
        after = min((t for t, there in annotated.items() if id in there and t >= now), default=None)
        sides = [
            (result.prob[1 + result.ids.index(id)].to(device), result.confidences[result.ids.index(id)])
            for result, annotation in ((forward, before), (backward, after))
            if annotation is not None and id in result.ids
        ]
        if stop and len(sides) == 2 and forward.cut != backward.cut:
            sides = sides[1:] if forward.cut else sides[:1]
        if len(sides) == 1 or before == after:
            plane, confidence = sides[0]
        else:
            assert before is not None
            assert after is not None
            (ahead, sure_ahead), (back, sure_back) = sides
            weights = (after - now) * sure_ahead**_SURENESS, (now - before) * sure_back**_SURENESS
            share = weights[0] / max(sum(weights), 1e-9)
            plane = share * ahead + (1 - share) * back
            confidence = share * sure_ahead + (1 - share) * sure_back
        planes.append(plane)
        confidences.append(confidence)
    objects = torch.stack(planes)
    total = objects.sum(dim=0, keepdim=True)
    objects = objects / total.clamp(min=1)  # with different weights, the sum of a pixel can exceed one
    prob = torch.cat([(1 - total).clamp(min=0), objects])
    unmatched = [each.unmatched for each in (forward, backward) if each.unmatched is not None]
    return Result(now, ids, prob, tuple(confidences), min(unmatched, default=None))


class _Passes:
    """The results of a backward pass, spooled to disk, by frame index."""

    def __init__(self) -> None:
        self._spool = Spool()
        self._facts: list[tuple[tuple[int, ...], tuple[float, ...], float | None]] = []
        self._last = -1

    def record(
        self, begin: Begin, reel: Reel, masks: Mapping[int, NDArray[np.int32]], prime: bool
    ) -> tuple[int, ...]:
        """Propagate from the last mask back to the first frame. Returns (H, W) of the frames."""
        self._last = max(masks)
        size: tuple[int, ...] = ()
        for result in steps(begin, reel, masks, range(self._last, -1, -1), prime):
            self._spool.append(_pack(result.prob))
            self._facts.append((result.ids, result.confidences, result.unmatched))
            size = tuple(result.prob.shape[1:])
        return size

    def result(self, index: int) -> Result | None:
        """The result of a frame; None after the last mask."""
        if index > self._last:
            return None
        place = self._last - index
        ids, confidences, unmatched = self._facts[place]
        return Result(index, ids, _unpack(self._spool[place]), confidences, unmatched)

    def __enter__(self) -> _Passes:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()


def steps(
    begin: Begin, reel: Reel, masks: Mapping[int, NDArray[np.int32]], order: range, prime: bool
) -> Iterator[Result]:
    """The results of a session that steps through the frames in this order.

    begin: makes the session.
    reel: the frames, by index.
    masks: {frame index: mask (H, W) of ids}.
    order: frame indices, in the order of the steps.
    prime: whether new objects also learn from their masks on later steps.
    """
    session = begin(order)
    when = {index: time for time, index in enumerate(order)}  # a session counts its steps from 0
    shown = {index: {*ids_of(torch.from_numpy(mask))} for index, mask in masks.items()}
    for time, index in enumerate(order):
        mask, before = masks.get(index), set(session.ids)
        result = session.step(reel[index], mask)
        if prime and mask is not None and {*result.ids} - before:
            for other in masks:
                whole = any(shown[other].issuperset(group.ids) for group in session.groups)
                if whole and other in when and when[other] > time:
                    session.remember(reel[other], masks[other], when[other])
        yield replace(result, index=index)


def _of_frames(masks: Mapping[int, Any], reel: Reel) -> dict[int, NDArray[np.int32]]:
    """The masks as arrays of ids, sorted by frame. Raises ValueError if a frame does not exist."""
    if (last := max(masks)) >= len(reel):
        raise ValueError(f"a mask is given for frame {last} but the video has {len(reel)} frames")
    arrays = {}
    for index in sorted(masks):
        mask = masks[index]
        size = mask.size[::-1] if isinstance(mask, Image.Image) else tuple(getattr(mask, "shape", ()))
        arrays[index] = to_mask(mask, size).cpu().numpy()
    return arrays


def _nothing(index: int, size: tuple[int, ...]) -> Result:
    return Result(index, (), torch.ones(1, *size, dtype=torch.float32), ())


def _pack(prob: Tensor) -> NDArray[np.uint8]:
    """Probabilities (1 + O, H, W) in 8 bits. The most probable object of each pixel does not change."""
    codes = (prob * 254).round()
    codes.scatter_add_(0, prob.argmax(dim=0, keepdim=True), torch.ones_like(codes[:1]))
    packed: NDArray[np.uint8] = codes.to(torch.uint8).cpu().numpy()
    return packed


def _unpack(codes: NDArray[np.uint8]) -> Tensor:
    prob = torch.from_numpy(codes.astype(np.float32))
    return prob / prob.sum(dim=0, keepdim=True)
