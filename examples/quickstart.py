"""Track three objects through a clip and write their masks: `python examples/quickstart.py [OUT]`."""

from __future__ import annotations

import sys
from pathlib import Path

from emavos import Predictor
from emavos.demo import synthetic_clip
from emavos.io import write_image, write_mask
from emavos.visualize import contact_sheet, overlay


def main(out: Path) -> None:
    frames, truth = synthetic_clip(frames=12)
    predictor = Predictor.from_pretrained(size=240)
    out.mkdir(parents=True, exist_ok=True)
    pictures = []
    for frame, result in zip(frames, predictor.propagate(frames, truth[0]), strict=True):
        write_mask(out / f"{result.index:05d}.png", result.mask)
        pictures.append(overlay(frame, result.mask))
    write_image(out / "contact_sheet.png", contact_sheet(pictures[::3]))
    print(f"{len(pictures)} masks and contact_sheet.png are in {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart"))
