"""Correct one frame, and see later frames improve: `python examples/corrected_frame.py`."""

from __future__ import annotations

import numpy as np

from emavos import Predictor
from emavos.demo import synthetic_clip
from emavos.evaluation import region_similarity


def main() -> None:
    frames, truth = synthetic_clip(frames=9, size=(120, 213))
    first = np.where(truth[0] == 2, 1, 0)
    first[np.nonzero(first)[0].mean().astype(int) :] = 0  # a poor mask: the upper half of the ball
    predictor = Predictor.from_pretrained(size=120)
    for corrected in (False, True):
        session, scores = predictor.session(), []
        for index, frame in enumerate(frames):
            result = session.step(frame, first if index == 0 else None)
            if corrected and index == 4:
                result = session.correct(
                    {1: truth[index] == 2}, since=1
                )  # the masks of frames 1 to 3 are wrong
            scores.append(region_similarity(result.mask == 1, truth[index] == 2))
        print(f"corrected at frame 4: {corrected!s:5}  J", *(f"{score:.2f}" for score in scores))


if __name__ == "__main__":
    main()
