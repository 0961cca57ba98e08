"""Compose clips of two objects with exact ground truth.

    python docs/measure/quality/composites.py --data CLIPS --out TREE

Two clips are made from each: one with the next clip's object pasted in, moving across the picture, and one
with its own object mirrored, as a look-alike. Score with `emavos evaluate --data TREE`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from emavos.data import Clips
from emavos.io import IdMask, Pixels, write_image, write_mask
from emavos.training.stages import DAVIS_HELD_OUT

_CROSSING = 1 / 3  # movement of the pasted object over the clip, as a fraction of the width

Frames = Iterator[tuple[Pixels, IdMask]]


def frames_of(clips: Clips, video: int) -> Frames:
    """The pixels (H, W, 3) and masks (H, W) of 0 and 1 of a clip's frames, back and forth without end."""
    length = clips.length(video)
    for place in cycle([*range(length), *range(length - 2, 0, -1)]):
        image, mask = clips.load(video, place)
        yield _pixels(image), (mask > 0).numpy().astype(np.int32)


def paste(below: tuple[Pixels, IdMask], above: tuple[Pixels, IdMask], shift: int) -> tuple[Pixels, IdMask]:
    """Paste the object of a frame over another frame, `shift` pixels to the right. Ids: 2 pasted, 1 below.

    The upper frame is resized to the lower frame. The pasted edge is blended over one pixel.
    """
    (ground, ids), (pixels, mask) = below, above
    size = (ground.shape[1], ground.shape[0])
    pixels = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    mask = np.array(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))
    pixels, mask = _moved(pixels, shift), _moved(mask, shift)
    share = _smooth(mask.astype(np.float32))[..., None]
    mixed = (share * pixels + (1 - share) * ground).round().astype(np.uint8)
    return mixed, np.where(mask > 0, 2, ids).astype(np.int32)


def compose(lower: Frames, upper: Frames, length: int) -> Frames:
    """A clip of `length` frames; the upper object moves across the lower clip from left to right."""
    for i in range(length):
        below, above = next(lower), next(upper)
        way = i / max(length - 1, 1) - 0.5
        yield paste(below, above, round(way * _CROSSING * below[1].shape[1]))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/quality/composites.py", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="JPEGImages/ and Annotations/"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="TREE", help="folder to make")
    parser.add_argument(
        "--clips", nargs="+", default=DAVIS_HELD_OUT, metavar="NAME", help=f"({' '.join(DAVIS_HELD_OUT)})"
    )
    args = parser.parse_args(argv)
    if args.out.exists():
        parser.error(f"{args.out} exists; choose another folder")
    clips = Clips(args.data, only=args.clips)
    for video, name in enumerate(clips.names):
        other = (video + 1) % len(clips)
        length = clips.length(video)
        mirrored = ((np.ascontiguousarray(p[:, ::-1]), m[:, ::-1]) for p, m in frames_of(clips, video))
        uppers = {f"{name}-twin": mirrored, f"{name}-with-{clips.names[other]}": frames_of(clips, other)}
        for title, upper in uppers.items():
            missing = _write(args.out, title, compose(frames_of(clips, video), upper, length))
            print(f"{title}: {length} frames{missing}", flush=True)


def _write(out: Path, title: str, frames: Frames) -> str:
    """Write a clip; returns a note if the first frame does not show both objects."""
    first: list[int] = []
    for kind in ("JPEGImages", "Annotations"):
        (out / kind / title).mkdir(parents=True)
    for i, (pixels, ids) in enumerate(frames):
        first = first or np.unique(ids).tolist()
        write_image(out / "JPEGImages" / title / f"{i:05d}.png", pixels)
        write_mask(out / "Annotations" / title / f"{i:05d}.png", ids)
    return "" if first == [0, 1, 2] else f", of which the first shows ids {first} alone"


def _pixels(image: Tensor) -> Pixels:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _moved(x: np.ndarray, shift: int) -> np.ndarray:
    """x (H, W, ...) shifted to the right, padded with zeros."""
    out = np.zeros_like(x)
    width = x.shape[1]
    out[:, max(shift, 0) : width + min(shift, 0)] = x[:, max(-shift, 0) : width - max(shift, 0)]
    return out


def _smooth(x: np.ndarray) -> np.ndarray:
    """The mean of each pixel (H, W) and its eight neighbours; 0 if x is 0."""
    padded = np.pad(x, 1, mode="edge")
    height, width = x.shape
    near = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.where(x > 0, sum(near) / 9, 0)


if __name__ == "__main__":
    main()
