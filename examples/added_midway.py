"""Track a second object from the middle of a video on: `python examples/added_midway.py`."""

from __future__ import annotations

import numpy as np

from emavos import Predictor
from emavos.demo import synthetic_clip
from emavos.evaluation import region_similarity


def main() -> None:
    frames, truth = synthetic_clip(frames=8, size=(120, 213))
    starfish, fish = np.where(truth[0] == 1, 1, 0), np.where(truth[4] == 3, 3, 0)
    predictor = Predictor.from_pretrained(size=240)
    for result in predictor.propagate(frames, {0: starfish, 4: fish}):  # frame: mask
        scores = [
            f"{id}: {region_similarity(result.mask == id, truth[result.index] == id):.2f}"
            for id in result.ids
        ]
        print(f"frame {result.index:2d}  J of object {', '.join(scores)}")


if __name__ == "__main__":
    main()
