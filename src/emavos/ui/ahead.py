"""Frames that the network encodes before a click or a step needs them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

from emavos.io import Pixels
from emavos.predictor import Predictor
from emavos.session import EncodedFrame

_FRAMES = 4  # that are kept: about 20 MB each at 480p


class Ahead:
    """Encodes each frame once, and keeps the last few. You can call the methods from several threads.

    predictor: encodes the frames.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._frames: OrderedDict[Hashable, Future[EncodedFrame]] = OrderedDict()
        self._lock = threading.Lock()

    def encoded(self, frame_key: Hashable, frame: Callable[[], Pixels]) -> EncodedFrame:
        """The frame, encoded now unless it was before.

        frame_key: unique to the frame.
        frame: returns the frame, (H, W, 3) uint8.
        """
        with self._lock:
            begun = self._frames.get(frame_key)
            future: Future[EncodedFrame] = Future() if begun is None else begun
            self._frames[frame_key] = future
            self._frames.move_to_end(frame_key)
            while len(self._frames) > _FRAMES:
                self._frames.popitem(last=False)
        if begun is None:
            try:
                future.set_result(self._predictor.encode(frame()))
            except BaseException as error:
                with self._lock:
                    self._frames.pop(frame_key, None)
                future.set_exception(error)
        return future.result()

    def peek(self, frame_key: Hashable) -> EncodedFrame | None:
        """The frame if it was encoded or is being encoded, which is waited for; otherwise None."""
        with self._lock:
            future = self._frames.get(frame_key)
        return None if future is None or future.exception() is not None else future.result()

    def clear(self) -> None:
        """Drop all frames; one that is being encoded is still returned to whoever waits for it."""
        with self._lock:
            self._frames.clear()
