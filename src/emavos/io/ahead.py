"""Files read and written in threads, while the network computes.

Pillow and PyAV let other threads run while they decode and encode. `ahead` and `behind` keep the order, hold
a few items and no more, and raise in the caller what a thread raises; their threads end with the loop or the
block.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from emavos.io.source import FrameSource

T = TypeVar("T")

_ITEMS = 4  # at once: the one that is worked on, and those that wait
_END: Any = object()


def read_ahead(frames: FrameSource) -> Iterator[Any]:
    """The frames, those of files read before they are asked for.

    Those of a camera and of somebody's own iterable are not: the former would be old when they are seen, and
    the latter may depend on what was answered before.
    """
    return ahead(frames) if frames.stored else iter(frames)


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The items, made in a thread before they are asked for."""
    source = iter(items)
    pool = ThreadPoolExecutor(1, "emavos-read")
    waiting: deque[Future[T]] = deque()
    try:
        while True:
            while len(waiting) < _ITEMS:
                waiting.append(pool.submit(next, source, _END))
            item = waiting.popleft().result()
            if item is _END:
                return
            yield item
    finally:  # also where the loop over this is left
        pool.shutdown(cancel_futures=True)
        if close := getattr(source, "close", None):
            close()


def has_spare_core(threads: int) -> bool:
    """Whether the processor has a core for a thread that works ahead, beside each of so many that compute."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return 2 * threads <= cores  # of two halves of a core one is not to spare


@contextmanager
def behind() -> Iterator[Callable[..., None]]:
    """A function that has another called with arguments, in a thread, in order.

    >>> with behind() as later:
    ...     later(write_mask, "00000.png", mask)

    All calls are done when the block ends well; where it does not, those that wait are dropped. What a call
    raises is raised by a later one, or by the end of the block.
    """
    pool = ThreadPoolExecutor(1, "emavos-write")
    waiting: deque[Future[Any]] = deque()

    def later(call: Callable[..., Any], *args: Any) -> None:
        while waiting and (waiting[0].done() or len(waiting) >= _ITEMS):
            waiting.popleft().result()
        waiting.append(pool.submit(call, *args))

    try:
        yield later
        while waiting:
            waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
