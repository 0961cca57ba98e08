"""Fine-tune the embedded model on a few masks of your own: `python examples/finetune.py [CLIPS OUT]`.

CLIPS has JPEGImages/CLIP/FRAME.jpg and Annotations/CLIP/FRAME.png (docs/training.md). Without arguments, the
example runs two iterations on a drawn clip; a real run takes about forty.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

from emavos import Predictor
from emavos.demo import synthetic_clip
from emavos.io import write_image, write_mask
from emavos.training import STAGES, train
from emavos.weights import load_model, save_model


def drawn_clips(folder: Path) -> Path:
    """Write one clip with a mask on every other frame, and return its folder."""
    for index, (frame, mask) in enumerate(zip(*synthetic_clip(frames=6, size=(96, 160)), strict=True)):
        for kind in ("JPEGImages", "Annotations"):
            (folder / kind / "sea").mkdir(parents=True, exist_ok=True)
        write_image(folder / "JPEGImages" / "sea" / f"{index:05d}.jpg", frame)
        if index % 2 == 0:
            write_mask(folder / "Annotations" / "sea" / f"{index:05d}.png", mask)
    return folder


def main() -> None:
    recipe = STAGES["finetune"]
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 2:
            clips, out = Path(sys.argv[1]), Path(sys.argv[2])
        else:
            clips, out = drawn_clips(Path(folder, "clips")), Path(folder, "run")
            recipe = dataclasses.replace(recipe, iterations=2, decay_from=0, size=64, batch=1)
        model = train(
            load_model(),
            clips,
            out,
            recipe,
            workers=0,
            report=lambda now: print(f"iteration {now.iteration}  loss {now.loss:.3f}"),
        )
        save_model(model, out / "model")
        predictor = Predictor.from_pretrained(out / "model", size=96)
        frames, truth = synthetic_clip(frames=3, size=(96, 160))
        for result in predictor.propagate(frames, truth[0]):
            print(f"frame {result.index}  {(result.mask > 0).mean():.1%} of the pixels")


if __name__ == "__main__":
    main()
