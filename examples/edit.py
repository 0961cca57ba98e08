"""Edit a video while it plays: an object added midway, another corrected: `python examples/edit.py`."""

from __future__ import annotations

import numpy as np

from emavos import Predictor
from emavos.demo import synthetic_clip
from emavos.evaluation import region_similarity


def main() -> None:
    frames, truth = synthetic_clip(frames=16)
    session = Predictor.from_pretrained(size=240).session()
    for index, frame in enumerate(frames):
        result = session.step(frame, np.where(truth[0] == 1, 1, 0) if index == 0 else None)
        if index == 5:
            result = session.add({2: truth[5] == 2})
        if index == 10:
            result = session.correct({1: truth[10] == 1})
        overlaps = [
            f"{id}: {region_similarity(result.mask == id, truth[index] == id):.2f}" for id in result.ids
        ]
        print(f"frame {index:2d}  J of object {', '.join(overlaps)}")


if __name__ == "__main__":
    main()
