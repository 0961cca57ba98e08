"""Read and write files in background threads while the network runs.

Pillow and PyAV release the GIL while decoding and encoding. `ahead` and `behind` keep the order of items,
buffer only a few items, and re-raise a thread's errors in the caller. The threads end with the loop or the
block.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

from emavos.io.source import FrameSource

T = TypeVar("T")

_ITEMS = 4  # items buffered at most, including the one in progress
_END: Any = object()
_CGROUP = Path("/sys/fs/cgroup")
_QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))  # of its versions 2 and 1
_NO_LIMIT = 1 << 20  # cores


def read_ahead(frames: FrameSource) -> Iterator[Any]:
    """The frames of a source, prefetched if they come from files.

    Frames of a camera are not prefetched, as they would be outdated when used. Frames of your own iterable
    are not prefetched, as they may depend on earlier results.
    """
    return ahead(frames) if frames.stored else iter(frames)


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The items, prefetched in a thread. The thread sees the caller's context variables."""
    source, context = iter(items), copy_context()

    def read_next() -> T:
        return next(source, _END)

    pool = ThreadPoolExecutor(1, "emavos-read")
    waiting: deque[Future[T]] = deque()
    try:
        while True:
            while len(waiting) < _ITEMS:
                waiting.append(pool.submit(context.run, read_next))
            item = waiting.popleft().result()
            if item is _END:
                return
            yield item
    finally:  # also runs if the caller leaves the loop early
        pool.shutdown(cancel_futures=True)
        if close := getattr(source, "close", None):
            close()


def cores() -> int:
    """The number of cores available to this process, if the system reports it; otherwise of the machine.

    A container that may use 1.5 cores has two.
    """
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(seen, max(math.ceil(_quota()), 1))


def _quota() -> float:
    """The cores that the time of this container amounts to; infinite if it is not limited."""
    for files in _QUOTAS:
        with suppress(OSError, ValueError, ZeroDivisionError):  # "max" if there is no limit
            quota, period = map(int, " ".join((_CGROUP / file).read_text() for file in files).split())
            if quota > 0:  # -1 if there is none
                return quota / period
    return _NO_LIMIT


def has_spare_core(threads: int) -> bool:
    """Whether a core is free for a background thread, beside `threads` computing threads."""
    return 2 * threads <= cores()  # two hyperthreads share a core, so count half


@contextmanager
def behind() -> Iterator[Callable[..., None]]:
    """Yield a function that runs calls in a background thread, in order.

    >>> with behind() as later:
    ...     later(write_mask, "00000.png", mask)

    All calls are finished when the block ends normally. If the block fails, waiting calls are dropped. Errors
    of a call are raised by a later call or at the end of the block.
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
