"""Choose the frames of a sample from a video, with gaps that grow during a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Gaps = Sequence[tuple[float, int]]  # (fraction of the run, largest gap from there on in frames)


def gap_at(gaps: Gaps, fraction: float) -> int:
    """The largest gap at a fraction of the run. The fractions of `gaps` start at 0 and increase."""
    return [gap for begin, gap in gaps if begin <= fraction][-1]


def draw_places(rng: np.random.Generator, length: int, count: int, gap: int) -> list[int]:
    """Draw `count` frame indices of a video, with neighbours 1 to `gap` apart, forward or backward in time.

    rng: random generator.
    length: number of frames of the video.
    count: number of indices. If `length` is smaller, the indices run back and forth.
    gap: largest gap in frames; smaller if the video is too short.
    """
    gaps = rng.integers(1, gap + 1, count - 1)
    gaps = np.minimum(gaps, max((length - 1) // (count - 1), 0))
    start = int(rng.integers(length - gaps.sum()))
    places = start + np.concatenate([[0], gaps.cumsum()])
    if 1 < length < count:
        walk = [*range(length), *range(length - 2, 0, -1)]
        places = np.array([walk[i % len(walk)] for i in range(count)])
    if rng.random() < 0.5:
        places = places[::-1]
    return [int(place) for place in places]
