"""Suggests frames of a finished video that an annotator should check first, with reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emavos.confidence.expected import ObjectState
from emavos.session.both_ways import Direction, check_direction

REACH = 10.0  # frames; the effect of a correction decays to 1 / e over this distance
UNSURE = 0.7  # confidences below this are worth a check
_LITTLE = 0.05  # frames with a need below this are not suggested

States = Mapping[int, ObjectState]  # {id: state} of one frame, as in `Result.objects`


@dataclass(frozen=True)
class Suggestion:
    """One frame to correct.

    frame: index of the frame.
    gain: upper bound of the J that a correction wins back, summed over frames and objects.
    object: id of the least confident object on the frame.
    confidence: of this object.
    first, last: first and last frame of the stretch around `frame` in which this object is uncertain.
    reason: in words.
    """

    frame: int
    gain: float
    object: int
    confidence: float
    first: int
    last: int
    reason: str


def suggest(states: Sequence[States], count: int = 8, direction: Direction = "forward") -> list[Suggestion]:
    """The frames to correct, those with the largest gain first.

    states: `Result.objects` of each frame, in order.
    count: largest number of suggestions. There are fewer if no other frame is uncertain.
    direction: how you will propagate again. A correction reaches later frames ("forward"), earlier ones
        ("backward"), or "both".

    The need of a frame is the sum of 1 - confidence over its objects. A correction removes the full need of
    its own frame, and a share of the need of the frames in reach that decays with distance. The frame that
    removes most is chosen; then the next frame is chosen with the remaining need. A long uncertain stretch
    therefore ranks before one single worse frame, and suggestions within a stretch lie apart.

    Raises ValueError if no frame has an object, `count` is below 1 or the direction is unknown.
    """
    check_direction(direction)
    if count < 1:
        raise ValueError(f"count is at least 1, not {count}")
    if not any(states):
        raise ValueError("there is no object in any frame: nothing to review")
    left = np.array([sum(1 - state.confidence for state in objects.values()) for objects in states])
    chosen: list[Suggestion] = []
    while len(chosen) < count:
        unsure = np.array(
            [any(s.confidence < UNSURE for s in objects.values()) for objects in states], dtype=bool
        )
        unsure[[one.frame for one in chosen]] = False
        gains = np.where(unsure & (left >= _LITTLE), _gains(left, direction), 0.0)
        frame = int(gains.argmax())
        if gains[frame] == 0:
            break
        chosen.append(_suggestion(states, frame, float(gains[frame])))
        left = left * (1 - _helps(np.arange(len(states)) - frame, direction))
    return chosen


def _helps(ahead: NDArray[np.int64], direction: Direction) -> NDArray[np.float64]:
    """The share of a frame's need that a correction removes, in [0, 1].

    ahead: how many frames the frame is after the correction; negative before.
    """
    helps: NDArray[np.float64] = np.exp(-abs(ahead) / REACH)
    if direction != "both":
        helps[ahead < 0 if direction == "forward" else ahead > 0] = 0
    return helps


def _gains(left: NDArray[np.float64], direction: Direction) -> NDArray[np.float64]:
    """(T,): the total need that a correction of each frame removes, from the need of each frame (T,)."""
    far = min(len(left) - 1, round(40 * REACH))  # further away, less than e^-40 is left
    return np.convolve(left, _helps(np.arange(far, -far - 1, -1), direction))[far : far + len(left)]


def _suggestion(states: Sequence[States], frame: int, gain: float) -> Suggestion:
    id, state = min(states[frame].items(), key=lambda item: item[1].confidence)
    first = last = frame
    while first > 0 and _unsure(states[first - 1], id):
        first -= 1
    while last + 1 < len(states) and _unsure(states[last + 1], id):
        last += 1
    return Suggestion(frame, gain, id, state.confidence, first, last, _reason(states, id, state))


def _unsure(objects: States, id: int) -> bool:
    return id in objects and objects[id].confidence < UNSURE


def _reason(states: Sequence[States], id: int, state: ObjectState) -> str:
    sure = [
        objects[id].area
        for objects in states
        if id in objects and objects[id].present and objects[id].confidence >= UNSURE
    ]
    if not state.present:
        return "has no mask, and was not seen to leave"
    usual = float(np.median(sure)) if sure else math.nan
    if state.area < usual / 2:
        return f"shrunk to {100 * state.area / usual:.0f}% of its usual area"
    if state.area > usual * 2:
        return f"grown to {100 * state.area / usual:.0f}% of its usual area"
    return "its outline is blurred"
