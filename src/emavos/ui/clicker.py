"""Masks from clicks on the frames of the page, each frame encoded once."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np

from emavos.clicks import Clicked, SeenFrame
from emavos.clicks.prompt import make_prompt
from emavos.io import IdMask, Pixels
from emavos.predictor import Predictor
from emavos.ui.ahead import Ahead

_FRAMES = 4  # frames that are kept: about 20 MB each at 480p
_ANSWERS = 64  # masks that are kept, so that taking back a click is instant

_T = TypeVar("_T")


class Clicker:
    """Finds the mask of one object from clicks. You can call the methods from several threads.

    predictor: its prompter or click head makes the masks.
    ahead: encodes the frames, for tracking as well; None: only for clicks.
    """

    def __init__(self, predictor: Predictor, ahead: Ahead | None = None) -> None:
        self._predictor = predictor
        self._ahead = Ahead(predictor) if ahead is None else ahead
        self._seen: OrderedDict[Hashable, SeenFrame] = OrderedDict()
        self._answers: OrderedDict[Hashable, Clicked] = OrderedDict()
        self._lock = threading.Lock()
        self._trying = threading.Lock()

    @property
    def problem(self) -> str | None:
        """Why nothing can be clicked on, in words for the page; None if clicks work. The first call tries."""
        with self._trying:
            return self._problem

    @cached_property
    def _problem(self) -> str | None:
        if self._predictor.prompter is not None:
            return None
        try:
            self._predictor.look(np.zeros((32, 32, 3), np.uint8))
        except (ValueError, OSError) as error:
            return f"This network has no click head: {' '.join(str(error).split())}"
        return None

    def look(self, frame_key: Hashable, frame: Callable[[], Pixels]) -> None:
        """Encode a frame ahead of the first click.

        frame_key: unique to the frame.
        frame: returns the frame, (H, W, 3) uint8.

        Raises ValueError if clicks do not work.
        """
        with self._lock:
            self._see(frame_key, frame)

    def click(
        self,
        frame_key: Hashable,
        frame: Callable[[], Pixels],
        points: Sequence[tuple[float, float]],
        labels: Sequence[int],
        box: Sequence[float] | None = None,
        before: IdMask | None = None,
    ) -> Clicked:
        """The mask of one object.

        frame_key, frame: as for `look`.
        points: (x, y) of all clicks, in their order.
        labels: 1 if a click is on the object, 0 if not.
        box: left, top, right, bottom.
        before: (H, W) bool, the mask of the object before the first click. The mask changes only near the
            clicks, unless there is a box.

        If there is neither a mask before nor a box, parts far from all clicks on the object are left out,
        unless another tool finds the masks.

        Raises ValueError if the clicks do not fit the frame, or clicks do not work.
        """
        if len(points) != len(labels):
            raise ValueError(
                f"there are {len(points)} points and {len(labels)} labels; give one for each point"
            )
        with self._lock:
            seen = self._see(frame_key, frame)
            begun = None if before is None else hashlib.sha256(before.tobytes()).digest()
            corners = None if box is None else tuple(box)
            local = before is not None and corners is None

            def key(count: int) -> Hashable:
                return (frame_key, begun, corners, tuple(map(tuple, points[:count])), tuple(labels[:count]))

            mask = None if before is None else before.astype(np.float32)
            answer: Clicked | None = None
            # Each click refines the answer to those before it; a box counts with the first.
            for count in range(0 if corners is not None else 1, len(points) + 1):
                earlier = self._answers.get(key(count))
                if earlier is None:
                    prompt = make_prompt(
                        seen.size,
                        points[:count],
                        labels[:count],
                        box,
                        mask=mask if answer is None else answer.prob,
                    )
                    earlier = seen.answer(prompt, local=local)
                answer = _remember(self._answers, key(count), earlier, _ANSWERS)
            if answer is None:
                raise ValueError("nothing says where the object is; click on it, or draw a box")
            return answer

    def clear(self) -> None:
        """Drop all frames and answers, once the current click is answered."""
        with self._lock:
            self._seen.clear()
            self._answers.clear()
            self._ahead.clear()

    def _see(self, key: Hashable, frame: Callable[[], Pixels]) -> SeenFrame:
        seen = self._seen.get(key)
        if seen is None:
            shares = self._predictor.shares_features
            seen = self._predictor.look(self._ahead.encoded(key, frame) if shares else frame())
        return _remember(self._seen, key, seen, _FRAMES)


def _remember(cache: OrderedDict[Hashable, _T], key: Hashable, value: _T, most: int) -> _T:
    """Store a value as the newest of a cache, and drop the oldest."""
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > most:
        cache.popitem(last=False)
    return value
