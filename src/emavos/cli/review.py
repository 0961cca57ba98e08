"""`emavos review`: list the frames of a video where one correction would help most."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emavos.cli.arguments import (
    Commands,
    add_frame_arguments,
    add_labels_argument,
    add_memory_arguments,
    add_model_arguments,
    add_on_damage_argument,
    add_output_arguments,
    check_idle,
    frame_options,
    load_predictor,
    policy,
    shortcuts_of,
    whole,
)
from emavos.cli.confidences import read_confidences, rounded
from emavos.cli.staging import staged
from emavos.cli.words import plain
from emavos.cli.written import check_apart

if TYPE_CHECKING:
    from emavos.confidence.expected import ObjectState
    from emavos.io import FrameSource, Pixels
    from emavos.review import Suggestion


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "review",
        help="list the frames whose correction helps most",
        description="List the frames to correct first, with reasons, as a table and a contact sheet. Pass "
        "masks from `emavos segment --confidence`, or let this command track the video.",
    )
    parser.set_defaults(run=_review, parser=parser)
    parser.add_argument("video", metavar="VIDEO", help="a folder of images, or a video file (extra: video)")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--masks", type=Path, metavar="DIR", help="masks of every frame; requires their --confidence"
    )
    source.add_argument(
        "--mask", type=Path, metavar="FILE|DIR", help="track the video from this mask, like `emavos segment`"
    )
    add_labels_argument(parser)
    parser.add_argument(
        "--confidence",
        type=Path,
        metavar="CSV",
        help="table written by `emavos segment --confidence` with --masks",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for review.csv and review.png, new or empty",
    )
    parser.add_argument(
        "--count", type=whole(1), default=8, metavar="N", help="largest number of frames to list (8)"
    )
    parser.add_argument(
        "--direction",
        choices=("forward", "backward", "both"),
        default="forward",
        help="direction of tracking, which decides the frames reached by a correction (forward)",
    )
    add_on_damage_argument(parser)
    add_output_arguments(parser)
    add_frame_arguments(parser)
    add_model_arguments(parser, size=480)
    add_memory_arguments(parser)


def _review(args: argparse.Namespace) -> None:
    from emavos.io import open_frames, write_image
    from emavos.review import suggest

    if args.video.startswith("camera:"):
        raise ValueError("a camera has no frames to go back to; review a folder of images or a video file")
    if (args.masks is None) != (args.confidence is None):
        raise ValueError(
            "--masks and --confidence go together: both are written by "
            "`emavos segment VIDEO --mask PNG --out DIR --confidence CSV`"
        )
    if args.masks is not None:
        check_idle(args, args.parser, "with --masks the video is not tracked")
    check_apart(args.video, args.masks or args.mask, args.out)
    frames = open_frames(args.video, [args.mask] if args.mask else [], args.on_damage, **frame_options(args))
    with staged(args.out, args.force) as folder:
        masks = args.masks
        if masks is None:
            masks = folder / "masks"
            states = _track(args, frames, masks)
        else:
            states = read_confidences(args.confidence, frames)
        suggestions = suggest(states, args.count, args.direction)
        if suggestions:
            write_image(folder / "review.png", _sheet(frames, suggestions, masks))
        _write_table(folder / "review.csv", frames, suggestions)
    if not args.quiet:
        _tell(args, frames, suggestions)


def _track(args: argparse.Namespace, frames: FrameSource, folder: Path) -> list[dict[int, ObjectState]]:
    """Track the video, write its masks, and return the object states of each frame."""
    from emavos.batch.tracking import track
    from emavos.frames.mask_files import read_masks
    from emavos.io import write_mask

    folder.mkdir()
    states = []
    predictor = load_predictor(args, shortcuts_of(args), **policy(args))
    given = read_masks(args.mask, frames, args.labels)
    for _, result in track(predictor, frames, given, args.quiet, args.direction):
        write_mask(folder / f"{frames.name(result.index)}.png", result.mask)
        states.append(rounded(result.objects))
    return states


def _sheet(frames: FrameSource, suggestions: Sequence[Suggestion], masks: Path) -> Pixels:
    """A contact sheet of the frames to correct, best first, with masks and reasons."""
    from emavos.io import read_mask
    from emavos.visualize import contact_sheet, overlay

    indices = {one.frame for one in suggestions}
    reel = frames.reel()
    pictures = (
        {index: reel[index] for index in indices}
        if reel is not None
        else {index: frame for index, frame in enumerate(frames) if index in indices}
    )
    if lost := indices - {*pictures}:
        raise ValueError(f"frame {min(lost)} is in the table but not in the video")
    images, labels = [], []
    for rank, one in enumerate(suggestions, 1):
        name = frames.name(one.frame)
        images.append(overlay(pictures[one.frame], read_mask(masks / f"{name}.png")))
        labels.append(f"{rank}. {name}: object {one.object} {one.reason} ({one.confidence:.2f})")
    return contact_sheet(images, labels, columns=2, width=1280)


def _rows(frames: FrameSource, suggestions: Sequence[Suggestion]) -> Iterator[tuple[str, ...]]:
    for rank, one in enumerate(suggestions, 1):
        unsure = frames.name(one.first), frames.name(one.last)
        numbers = f"{one.confidence:.2f}", f"{one.gain:.1f}"
        yield str(rank), frames.name(one.frame), str(one.object), *numbers, *unsure, one.reason


HEADER = ("rank", "frame", "object", "confidence", "gain", "from", "to", "why")


def _write_table(path: Path, frames: FrameSource, suggestions: Sequence[Suggestion]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(HEADER)
        rows.writerows(_rows(frames, suggestions))


def _tell(args: argparse.Namespace, frames: FrameSource, suggestions: Sequence[Suggestion]) -> None:
    if not suggestions:
        print(f"no frame is unsure; an empty table is in {args.out}")
        return
    rows = [HEADER, *_rows(frames, suggestions)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    for row in rows:
        print("  ".join(plain(word).ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())
    print(f"table and contact sheet in {args.out}")
