"""`emavos demo`: draw a clip, segment the clip and show the result."""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emavos.cli.arguments import Commands, add_model_arguments, add_output_arguments, load_predictor, whole
from emavos.cli.staging import staged
from emavos.cli.words import counted

if TYPE_CHECKING:
    from emavos.io import Pixels

FPS = 25.0  # frame rate of the clip


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="draw a clip, segment it and show the result",
        description="Draw a clip of three objects, track them from the first frame and compare with the "
        "ground truth. Writes frames, masks, overlays, a contact sheet and, with the extra video, an mp4. "
        "Needs no file and no internet.",
    )
    parser.set_defaults(run=_demo)
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="folder for the outputs (demo)"
    )
    parser.add_argument("--frames", type=whole(2), default=48, metavar="N", help="length of the clip (48)")
    add_output_arguments(parser)
    add_model_arguments(parser, size=360)


def _demo(args: argparse.Namespace) -> None:
    started = time.monotonic()
    from emavos.batch.tracking import track
    from emavos.demo import synthetic_frames
    from emavos.evaluation import region_similarity
    from emavos.io import (
        ahead,
        behind,
        list_images,
        open_frames,
        read_frame,
        write_image,
        write_mask,
        write_video,
    )
    from emavos.visualize import contact_sheet, overlay

    with staged(args.out, args.force) as folder:
        predictor = load_predictor(args)
        drawn = ahead(synthetic_frames(args.frames))
        first = next(drawn)
        truths = deque([first[1]])  # ground truths of the next frames

        def draw() -> Iterator[Pixels]:
            yield first[0]
            for frame, truth in drawn:
                truths.append(truth)
                yield frame

        frames = open_frames(draw())
        frames.count = args.frames
        for name in ("frames", "masks", "overlay"):
            (folder / name).mkdir()
        chosen = sorted({round(i * (args.frames - 1) / 7) for i in range(8)})
        shown, scores = [], []
        with behind() as later:
            for frame, result in track(predictor, frames, truths[0], args.quiet):
                name, truth = f"{frames.name(result.index)}.png", truths.popleft()
                painted = overlay(frame, result.mask)
                if result.index in chosen:
                    shown.append(painted)
                later(write_image, folder / "frames" / name, frame)
                later(write_mask, folder / "masks" / name, result.mask)
                later(write_image, folder / "overlay" / name, painted)
                if result.index > 0:  # the first mask was given
                    scores += [region_similarity(result.mask == i, truth == i) for i in result.ids]
                if result.index == 1:
                    waited = time.monotonic() - started
        sheet = contact_sheet(shown, [f"frame {i}" for i in chosen])
        write_image(folder / "contact_sheet.png", sheet)
        made = ["frames/", "masks/", "overlay/", "contact_sheet.png"]
        try:
            write_video(folder / "overlay.mp4", map(read_frame, list_images(folder / "overlay")), FPS)
            made.append("overlay.mp4")
        except ImportError:
            from emavos.machine import how_to_install

            made.append(f"no overlay.mp4 ({how_to_install('video')})")
    if not args.quiet:
        print(f"{args.out}: {', '.join(made)}")
        print(f"first mask after {waited:.1f} s")
        print(f"mean J of {counted(args.frames - 1, 'frame')}, 3 objects: {sum(scores) / len(scores):.3f}")
