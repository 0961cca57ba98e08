"""Add an object in the middle of a video, and correct another: `python examples/edit.py`."""

from __future__ import annotations

import numpy as np

from emavos import Predictor
from emavos.demo import synthetic_clip
from emavos.evaluation import region_similarity


def main() -> None:
    frames, truth = synthetic_clip(frames=16)
    masks = {
        0: np.where(truth[0] == 1, 1, 0),  # one object, from the start
        5: np.where(truth[5] == 2, 2, 0),  # another, introduced at frame 5
        10: np.where(truth[10] == 1, 1, 0),  # the first again: a correction
    }
    session = Predictor.from_pretrained(size=240).session()
    for index, frame in enumerate(frames):
        result = session.step(frame, masks.get(index))
        overlaps = [
            f"{id}: {region_similarity(result.mask == id, truth[index] == id):.2f}" for id in result.ids
        ]
        print(f"frame {index:2d}  J of object {', '.join(overlaps)}")


if __name__ == "__main__":
    main()
