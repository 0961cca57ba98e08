"""Which frames of a video make a sample, and how far apart they may be as a run goes on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Gaps = Sequence[tuple[float, int]]  # (from this fraction of the run on, so many frames at most)


def gap_at(gaps: Gaps, fraction: float) -> int:
    """The largest gap at a fraction of the run; `gaps` rise in their fractions and begin at 0."""
    return [gap for begin, gap in gaps if begin <= fraction][-1]


def draw_places(rng: np.random.Generator, length: int, count: int, gap: int) -> list[int]:
    """`count` frames of a video of `length`, neighbours 1 to `gap` apart, forwards or backwards in time.

    Gaps shrink where the video is too short for them; one with fewer frames than wanted is walked to and fro.
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
