"""Track many videos, one of them broken, and resume the run: `python examples/many_videos.py`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from emavos import Predictor
from emavos.batch import Outcome, find_jobs, run_batch
from emavos.demo import synthetic_clip
from emavos.io import write_image, write_mask


def main() -> None:
    predictor = Predictor.from_pretrained(size=64)
    with tempfile.TemporaryDirectory() as folder:
        videos, results = Path(folder, "videos"), Path(folder, "results")
        for seed, name in enumerate(["cat", "dog", "fox"]):
            frames, truth = synthetic_clip(frames=6, size=(64, 96), seed=seed)
            (videos / name).mkdir(parents=True)
            for index, frame in enumerate(frames):
                write_image(videos / name / f"{index:05d}.png", frame)
            if name != "dog":  # the mask of this video is missing
                write_mask(videos / f"{name}.png", truth[0])

        def tell(outcome: Outcome) -> None:
            state = outcome.error.replace(folder, "...") or ("made" if outcome.made else "was there")
            print(f"{outcome.name}: {state}")

        run_batch(find_jobs(videos), predictor, results, each=tell)
        write_mask(videos / "dog.png", synthetic_clip(frames=1, size=(64, 96), seed=1)[1][0])
        run_batch(find_jobs(videos), predictor, results, each=tell)  # tracks only dog


if __name__ == "__main__":
    main()
