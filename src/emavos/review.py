"""Which frames of a followed video an annotator should look at first, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emavos.confidence.expected import ObjectState
from emavos.session.both_ways import Direction, check_direction

REACH = 10.0  # frames after which a correction does 1 / e of the good that it does beside it
UNSURE = 0.7  # a confidence below is worth a look
_LITTLE = 0.05  # what a frame needs, below which it is not worth one

States = Mapping[int, ObjectState]  # of the objects of one frame, as `Result.objects`


@dataclass(frozen=True)
class Suggestion:
    """One frame to correct.

    frame: its index. gain: how much J, summed over frames and objects, a correction may win back at most.
    object: the one that is least sure on it. confidence: of that object. first, last: the frames about it
    where that object is unsure, so how far the trouble goes. reason: in words.
    """

    frame: int
    gain: float
    object: int
    confidence: float
    first: int
    last: int
    reason: str


def suggest(states: Sequence[States], count: int = 8, direction: Direction = "forward") -> list[Suggestion]:
    """The frames where one correction would help most, the best first.

    states: `Result.objects` of each frame, in order. direction: how the video will be followed again, for
    that says which frames a correction reaches: those behind it, those before it, or both. At most `count`,
    fewer where nothing is unsure any more.

    A frame needs 1 - confidence, summed over its objects. A correction takes away all that its frame needs
    and, the further the less, of what frames in its reach need; the frame that takes most is chosen, then the
    next one from what is left. So a long stretch that is somewhat unsure comes before one frame that is
    worse, and suggestions within it lie apart: little is left to win beside one that is chosen.
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
    """How much of what a frame needs, so far ahead of another, a correction of that takes away, in [0, 1]."""
    helps: NDArray[np.float64] = np.exp(-abs(ahead) / REACH)
    if direction != "both":
        helps[ahead < 0 if direction == "forward" else ahead > 0] = 0
    return helps


def _gains(left: NDArray[np.float64], direction: Direction) -> NDArray[np.float64]:
    """(T,): how much of what all frames need, (T,), a correction of each takes away."""
    far = min(len(left) - 1, round(40 * REACH))  # beyond, e^-40 of it
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
        return f"shrunk to {100 * state.area / usual:.0f} % of its usual area"
    if state.area > usual * 2:
        return f"grown to {100 * state.area / usual:.0f} % of its usual area"
    return "its outline is blurred"
