"""`emavos segment`: masks of every frame of a video, from the mask of one or from clicks."""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from emavos.cli.arguments import (
    Commands,
    add_damaged_argument,
    add_frame_arguments,
    add_labels_argument,
    add_memory_arguments,
    add_model_arguments,
    add_output_arguments,
    frame_options,
    load_predictor,
    policy,
    shortcuts_of,
    whole,
)
from emavos.cli.clicking import add_click_arguments, clicked, load_prompter, mask_by_clicks
from emavos.cli.confidences import write_confidences
from emavos.cli.staging import Outputs, staged_together
from emavos.cli.words import counted

if TYPE_CHECKING:
    from emavos.cli.resuming import Progress
    from emavos.io import FrameSource, IdMask, Pixels
    from emavos.predictor import Predictor
    from emavos.session import Session


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "segment",
        help="masks of every frame of a video, from the mask of one or from clicks",
        description="Write the objects of every frame of a video as a palette PNG of ids, named as the "
        "frame. All of it appears at the end; where something fails, nothing is written. Repeat the "
        "command to continue a stopped run of more than a minute.",
    )
    parser.set_defaults(run=_segment)
    parser.add_argument(
        "video",
        nargs="+",
        metavar="VIDEO",
        help="a folder of images, a pattern (frames/%%05d.png, 'frames/*.png'), images in the order of "
        "their numbers, or "
        "a video file (extra: video)",
    )
    parser.add_argument(
        "--mask",
        type=Path,
        metavar="FILE|DIR",
        help="the objects in the first frame, as a PNG of ids; or a folder of such, each named as its frame "
        "(00042.png for frame 42 of a video file), for objects that appear later and for corrections; or "
        "what "
        "Labelme, CVAT, COCO, Label Studio, VIA, YOLO or NumPy save (see `emavos masks info`)",
    )
    add_labels_argument(parser)
    parser.add_argument(
        "--reference",
        type=Path,
        nargs=2,
        action="append",
        default=[],
        metavar=("IMAGE", "PNG"),
        help="another picture of the objects, of any size, and its mask; repeatable. The video then needs no "
        "mask",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the masks, new or empty"
    )
    parser.add_argument(
        "--overlay",
        type=Path,
        metavar="MP4|DIR",
        help="coloured frames too, as a video (extra: video) or PNGs",
    )
    parser.add_argument(
        "--rle", type=Path, metavar="JSON", help="the masks as runs of COCO too, in one file for pycocotools"
    )
    parser.add_argument(
        "--confidence",
        type=Path,
        metavar="CSV",
        help="what is said of each object on each frame too: present or not, confidence, area; for `review`",
    )
    parser.add_argument(
        "--direction",
        choices=("forward", "backward", "both"),
        default="forward",
        help="where a mask is followed to: the frames behind it, those before it, or both, which fuses what "
        "lies between two masks of an object (forward)",
    )
    add_damaged_argument(parser)
    parser.add_argument(
        "--clean",
        type=whole(0),
        default=0,
        metavar="AREA",
        help="remove islands and fill holes of fewer than AREA pixels in what is written (0)",
    )
    parser.add_argument(
        "--cuts",
        choices=("tell", "stop", "ignore"),
        default="tell",
        help="after a scene cut: list the frames; also write no masks until the scene returns or you give a "
        "mask; or do not look for cuts (tell)",
    )
    parser.add_argument(
        "--drop-absent",
        type=whole(1),
        metavar="N",
        help="stop tracking an object that had no pixel in N frames in a row (never)",
    )
    parser.add_argument(
        "--keep-partial",
        action="store_true",
        help="if the run fails or is stopped, write the frames up to there instead of nothing",
    )
    add_click_arguments(parser)
    add_output_arguments(parser)
    add_frame_arguments(parser)
    add_model_arguments(parser, size=480)
    add_memory_arguments(parser)


def _segment(args: argparse.Namespace) -> None:
    from emavos.batch.following import FPS, follow
    from emavos.bridges import CocoWriter
    from emavos.cli.resuming import Progress, kept_on_stop, link  # loads torch
    from emavos.frames import clean_mask
    from emavos.frames.mask_files import read_masks
    from emavos.io import behind, open_frames, read_mask, write_mask
    from emavos.io.opening import natural_order
    from emavos.visualize import overlay

    video = args.video[0] if len(args.video) == 1 else natural_order(map(Path, args.video))
    if args.video[0].startswith("camera:"):
        raise ValueError("a camera has no last frame; follow it in Python, with Predictor.session()")
    by_clicks = clicked(args)
    if args.reference and args.direction != "forward":
        raise ValueError(f"--reference goes forward; leave out --direction {args.direction}")
    check_apart(args.video[0], args.mask, args.out, args.overlay, args.rle, args.confidence)
    but = [] if args.mask is None else [args.mask]
    frames = open_frames(video, but=but, damaged=args.damaged, **frame_options(args))
    prompter = load_prompter(args.prompter)
    mask = None if args.mask is None else read_masks(args.mask, frames, args.labels)
    start = time.monotonic()
    if args.confidence is not None and args.confidence.suffix.lower() != ".csv":
        raise ValueError(f"--confidence {args.confidence} is written as .csv")
    with staged_together(args.force) as outputs, ExitStack() as stack:
        folder = outputs.folder(args.out)
        show = None
        if args.overlay is not None:
            show = stack.enter_context(_overlay_writer(args.overlay, outputs, frames.fps or FPS))
        coco = None
        if args.rle is not None:
            coco = stack.enter_context(CocoWriter(outputs.file(args.rle, "--rle")))
        table = None if args.confidence is None else outputs.file(args.confidence, "--confidence")
        predictor = load_predictor(args, shortcuts_of(args), **policy(args))
        predictor = predictor.with_settings(cuts=args.cuts, drop_absent=args.drop_absent)
        predictor.prompter = prompter
        progress = Progress(args.out, _facts(args, predictor), args.force)
        session = _session(args, predictor, progress)
        masks = mask_by_clicks(args, predictor, frames) if by_clicks else mask

        def write(name: str, frame: Pixels, mask: IdMask) -> None:
            mask = clean_mask(mask, args.clean) if args.clean else mask
            write_mask(folder / f"{name}.png", mask)
            tell(name, frame, mask)

        def tell(name: str, frame: Pixels, mask: IdMask) -> None:
            if show is not None:
                show(name, overlay(frame, mask))
            if coco is not None:
                coco.write(name, mask)

        count = progress.done
        if count and not args.quiet:
            print(f"continuing after {counted(count, 'frame')} of a stopped run")
        for index, frame in zip(range(count), frames, strict=False):  # those of a stopped run
            name = frames.name(index)
            link(progress.mask(name), folder / f"{name}.png")
            tell(name, frame, read_mask(progress.mask(name)))
        stopped = None
        with kept_on_stop(progress, args.out), behind() as later:
            try:
                for frame, result in follow(
                    predictor, frames, masks, args.quiet, args.direction, session=session
                ):
                    name = frames.name(result.index)
                    later(write, name, frame, result.mask)
                    progress.note(name, result, states=table is not None)
                    if session is not None and (commit := progress.save_if_due(session, folder)):
                        later(commit)
                    count += 1
            except BaseException as error:
                if not args.keep_partial or not count:
                    raise
                stopped = error
        if table is not None:
            write_confidences(table, [frames.name(i) for i in range(count)], progress.states)
    _tell_cuts(progress.cuts, frames, args.cuts)
    if stopped is not None:
        _fail_partly(stopped, count, args.out)
    progress.remove()
    if not args.quiet:
        seconds = time.monotonic() - start
        how = f"{seconds:.1f} s, {predictor.device.type}, {str(predictor.dtype).removeprefix('torch.')}"
        objects = counted(len(progress.ids), "object")
        print(f"{counted(count, 'frame')}, {objects}: masks in {args.out} ({how})")


def _facts(args: argparse.Namespace, predictor: Predictor) -> dict[str, Any]:
    """All that decides the masks and the notes of a run, as plain values."""
    from emavos import __version__
    from emavos.batch.run import inputs_sha256

    references = {f"{i}.{j}": path for i, pair in enumerate(args.reference) for j, path in enumerate(pair)}
    labels = {} if args.labels is None else {"labels": args.labels}
    videos = [path for path in map(Path, args.video) if path.exists()]  # a pattern does not
    clicks = [str(getattr(args, name)) for name in ("click", "not_click", "box", "scribble")]
    return {
        **predictor.facts(),
        "emavos": __version__,
        "video": inputs_sha256(videos, {}),
        "mask": inputs_sha256([], args.mask or {}) + inputs_sha256([], labels),
        "reference": inputs_sha256([], references),
        "clicks": [*clicks, args.click_frame, args.prompter],
        **{name: getattr(args, name) for name in ("start", "stop", "step", "window", "clean", "direction")},
        "cuts": args.cuts,
        "confidence": args.confidence is not None,
    }


def _session(args: argparse.Namespace, predictor: Predictor, progress: Progress) -> Session | None:
    """The session to run: of a stopped run, or new; None for directions that need several."""
    from emavos.io import read_frame, read_mask

    if args.direction != "forward":
        return None
    if progress.session is not None:
        return predictor.session(progress.session)
    session = predictor.session()
    for image, mask in args.reference:
        try:
            session.remember(read_frame(image), read_mask(mask))
        except ValueError as error:
            raise ValueError(f"--reference {image}: {error}") from error
    return session


def _tell_cuts(cuts: Sequence[int], frames: FrameSource, how: str) -> None:
    """Note the first frame of each scene without memory."""
    from emavos.io import InputWarning

    if not (firsts := [index for index in cuts if index - 1 not in {*cuts}]):
        return
    names = ", ".join(frames.name(index) for index in firsts[:8]) + (
        f" and {len(firsts) - 8} more" if len(firsts) > 8 else ""
    )
    rest = (
        "the frames until the scene returns have no masks; give a mask there"
        if how == "stop"
        else "masks from there on may be wrong; give a mask there, or --cuts stop to write none"
    )
    warnings.warn(f"another scene begins at {names}: {rest}", InputWarning, stacklevel=2)


def _fail_partly(error: BaseException, count: int, out: Path) -> NoReturn:
    """Raise the error of a run whose finished frames were written."""
    if not isinstance(error, ValueError):
        raise error
    text = str(error).partition("; nothing was written")[0]
    raise ValueError(f"{text}; {out} has the {counted(count, 'frame')} before") from error


def check_apart(
    video: str,
    mask: Path | None,
    out: Path,
    show: Path | None = None,
    runs: Path | None = None,
    table: Path | None = None,
) -> None:
    """No output may be written over an input, or over another output."""
    if not video:
        raise ValueError("VIDEO is empty; name a folder of images or a video file")
    taken = {_place(video): "the video"}
    if mask is not None:
        taken[_place(mask)] = "the mask"
    if mask is not None and mask.is_file():
        taken.setdefault(os.path.dirname(_place(mask)), "the folder of the mask")
    for name, path in (
        ("--out", out),
        ("--overlay", show),
        ("--rle", runs),
        ("--confidence", table),
    ):
        if path is not None and (other := taken.setdefault(_place(path), name)) != name:
            raise ValueError(f"{name} {path} is also {other}; choose another place")


_place = os.path.realpath  # Path.resolve raises where links lead in a circle


@contextmanager
def _overlay_writer(path: Path, outputs: Outputs, fps: float) -> Iterator[Callable[[str, Pixels], None]]:
    """A function that writes a frame by its name, to a video or a folder."""
    from emavos.io import VideoWriter, write_image

    if path.suffix.lower() in (".avi", ".gif", ".jpeg", ".jpg", ".mkv", ".mov", ".png", ".webm"):
        raise ValueError(f"--overlay {path} is written as .mp4, or as a folder of PNGs")
    if path.suffix.lower() != ".mp4":
        folder = outputs.folder(path)
        yield lambda name, frame: write_image(folder / f"{name}.png", frame)
    else:
        with VideoWriter(outputs.file(path, "--overlay"), fps) as video:
            yield lambda name, frame: video.write(frame)
