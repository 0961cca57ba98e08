"""`emavos segment`: masks of every frame of a video, from the mask of one or from clicks."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from emavos.cli.arguments import (
    Commands,
    add_frame_arguments,
    add_labels_argument,
    add_memory_arguments,
    add_model_arguments,
    add_on_damage_argument,
    add_output_arguments,
    add_reference_argument,
    load_predictor,
    policy,
    shortcuts_of,
    whole,
)
from emavos.cli.clicking import add_click_arguments, clicked, load_prompter, mask_by_clicks
from emavos.cli.confidences import write_confidences
from emavos.cli.opened import at_hand, check_ids, opened
from emavos.cli.staging import staged_together
from emavos.cli.words import counted
from emavos.cli.written import Written

if TYPE_CHECKING:
    from emavos.cli.opened import Reference
    from emavos.cli.resuming import Progress
    from emavos.io import FrameSource, IdMask
    from emavos.predictor import Predictor
    from emavos.session import Session


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "segment",
        help="masks of every frame of a video, from the mask of one frame or from clicks",
        description="Track the objects of a video, and write a palette PNG of ids for each frame, with the "
        "name of the frame. All outputs appear together at the end; if a run fails, nothing is written. If "
        "a run of more than a minute was stopped, repeat the command to continue.",
    )
    parser.set_defaults(run=_segment)
    _add_inputs(parser)
    _add_outputs(parser)
    _add_tracking(parser)
    add_click_arguments(parser)
    add_output_arguments(parser)
    add_frame_arguments(parser)
    add_model_arguments(parser, size=480)
    add_memory_arguments(parser)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "video",
        nargs="+",
        metavar="VIDEO",
        help="a folder of images, a pattern (frames/%%05d.png, 'frames/*.png'), several images, sorted by "
        "their numbers, a video file, camera:0 or rtsp://HOST/... (extra: video); with --remote an address",
    )
    parser.add_argument(
        "--remote",
        action="store_true",
        help="VIDEO is an address of fsspec, such as https://HOST/video.mp4 or s3://BUCKET/frames/, which is "
        "copied to a temporary folder first",
    )
    parser.add_argument(
        "--mask",
        type=Path,
        metavar="FILE|DIR",
        help="the objects of the first frame, as a PNG of ids; or a folder of masks named like their frames "
        "(00042.png for frame 42 of a video file), with later objects and corrections; or a file of "
        "Labelme, CVAT, COCO, Label Studio, VIA, YOLO or NumPy (see `emavos masks info`)",
    )
    add_labels_argument(parser)
    add_reference_argument(parser, "the objects", "The video then needs no mask")


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the masks, new or empty"
    )
    parser.add_argument(
        "--overlay",
        type=Path,
        metavar="MP4|GIF|WEBP|DIR",
        help="also write coloured frames, as a video with the sound of VIDEO (extra: video), as a small "
        "animation, or as PNGs",
    )
    parser.add_argument(
        "--matte",
        type=Path,
        metavar="DIR|MP4|MOV",
        help="also write the opacity of the objects, white with soft edges on black, as gray PNGs or as a "
        "video (H.264 or ProRes 4444; extra: video)",
    )
    parser.add_argument(
        "--cutout",
        type=Path,
        metavar="DIR|MOV",
        help="also write the objects with soft edges on a transparent background, as RGBA PNGs or as a "
        "video (ProRes 4444; extra: video)",
    )
    parser.add_argument(
        "--matte-of",
        type=_ids,
        metavar="ID,ID,...",
        help="objects in --matte and --cutout (all)",
    )
    parser.add_argument(
        "--matte-bits",
        type=int,
        choices=(8, 16),
        default=8,
        help="bits per pixel of --matte PNGs (8)",
    )
    parser.add_argument(
        "--rle",
        type=Path,
        metavar="JSON",
        help="also write the masks as COCO runs, in one file for pycocotools",
    )
    parser.add_argument(
        "--confidence",
        type=Path,
        metavar="CSV",
        help="also write a table of each object on each frame, for `review`: presence, confidence and area",
    )


def _add_tracking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--direction",
        choices=("forward", "backward", "both"),
        default="forward",
        help="track from a mask to later frames, to earlier frames, or both. Between two masks of an object, "
        "both directions are fused (forward)",
    )
    add_on_damage_argument(parser)
    parser.add_argument(
        "--clean",
        type=whole(0),
        default=0,
        metavar="AREA",
        help="remove islands and fill holes of fewer than AREA pixels in the outputs (0)",
    )
    parser.add_argument(
        "--cuts",
        choices=("tell", "stop", "ignore"),
        default="tell",
        help="tell: list the frames after scene cuts; stop: also write no masks until the scene returns or "
        "you pass a mask; ignore: do not look for cuts (tell)",
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
        help="if the run fails or is stopped, write the finished frames instead of nothing",
    )


def _segment(args: argparse.Namespace) -> None:
    with at_hand(args):
        _run(args)


def _run(args: argparse.Namespace) -> None:
    from emavos.cli.resuming import Progress, facts_of_stopped  # loads torch

    frames, mask, references = opened(args)
    prompter = load_prompter(args.prompter)
    start = time.monotonic()
    with staged_together(args.force) as outputs, ExitStack() as stack:
        written = Written(args, frames, outputs, stack)
        table = None if args.confidence is None else outputs.file(args.confidence, "--confidence")
        predictor = load_predictor(args, shortcuts_of(args), prompter=prompter, **policy(args))
        predictor = predictor.with_settings(cuts=args.cuts, drop_absent=args.drop_absent)
        predictor = predictor.continuing(facts_of_stopped(args.out))
        any_backend = predictor.settings.auto_backend
        progress = Progress(args.out, _facts(args, predictor, frames), args.force, any_backend)
        session = _session(args, predictor, progress, references)
        if clicked(args):
            mask = mask_by_clicks(args, predictor, frames)
            check_ids(args.matte_of, mask, references)
        count, stopped = _track(args, predictor, frames, mask, session, progress, written)
        if table is not None:
            write_confidences(table, [frames.name(i) for i in range(count)], progress.states[:count])
    _tell_cuts([index for index in progress.cuts if index < count], frames, args.cuts, args.direction)
    if stopped is not None:
        frames.tell_damage()
        _fail_partly(stopped, count, args.out)
    progress.remove()
    if not args.quiet:
        seconds = time.monotonic() - start
        how = f"{seconds:.1f} s, {predictor.device.type}, {str(predictor.dtype).removeprefix('torch.')}"
        objects = counted(len(progress.ids), "object")
        print(f"{counted(count, 'frame')}, {objects}: masks in {args.out} ({how})")


def _track(
    args: argparse.Namespace,
    predictor: Predictor,
    frames: FrameSource,
    masks: IdMask | dict[int, IdMask] | None,
    session: Session | None,
    progress: Progress,
    written: Written,
) -> tuple[int, BaseException | None]:
    """Write the outputs of all frames. Returns their number, and the error that stopped a partial run."""
    from emavos.batch.tracking import track
    from emavos.cli.resuming import kept_on_stop
    from emavos.io import behind

    if progress.done and not args.quiet:
        print(f"continuing after {counted(progress.done, 'frame')} of a stopped run")
    written.repeat(progress)
    # opacities are not kept, so a run that writes them begins again after a stop
    resumable = None if written.wants_matte or frames.live else session
    stopped: BaseException | None = None
    with kept_on_stop(progress, args.out):
        try:
            with behind() as later:
                try:
                    results = track(predictor, frames, masks, args.quiet, args.direction, session=session)
                    commit: partial[None] | None = None
                    for frame, result in results:
                        name = frames.name(result.index)
                        progress.damaged |= frames.damaged
                        if commit is not None and frames.stands_in(result.index):
                            progress.withdraw(commit)  # to continue here, the frame before is needed
                        elif commit is not None:
                            later(written.after, commit)
                        later(written.write, name, frame, result.mask, written.matte_of(result))
                        progress.note(name, result, states=args.confidence is not None)
                        commit = None
                        if resumable is not None:
                            commit = progress.save_if_due(resumable, written.folder)
                        if commit is not None and not frames.holds:
                            later(written.after, commit)
                            commit = None
                except BaseException as error:
                    if not args.keep_partial:
                        raise
                    stopped = error  # waiting frames are still written
        except BaseException as error:  # of writing the last frames
            if not args.keep_partial:
                raise
            stopped = stopped or error
        if stopped is not None and not written.count:
            raise stopped
    return written.count, stopped


def _facts(args: argparse.Namespace, predictor: Predictor, frames: FrameSource) -> dict[str, Any]:
    """Everything that affects the masks and the notes of a run, as plain values."""
    from emavos import __version__
    from emavos.batch.run import inputs_sha256

    references = {f"{i}.{j}": path for i, pair in enumerate(args.reference) for j, path in enumerate(pair)}
    labels = {} if args.labels is None else {"labels": args.labels}
    videos = [path for path in map(Path, args.video) if path.exists()]
    videos = videos or getattr(frames.whole, "files", [])  # of a pattern
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
        "on damage": args.on_damage,
        "confidence": args.confidence is not None,
        "matte": args.matte is not None or args.cutout is not None,
    }


def _session(
    args: argparse.Namespace, predictor: Predictor, progress: Progress, references: Sequence[Reference]
) -> Session | None:
    """The session to run: of a stopped run, or new; None for directions that need several."""
    if args.direction != "forward":
        return None
    if progress.session is not None:
        session = predictor.session(progress.session)
        if session.index != progress.done:
            raise ValueError(f"{progress.folder} is damaged; remove this folder to start over")
        return session
    session = predictor.session()
    for image, picture, ids in references:
        try:
            session.remember(picture, ids)
        except ValueError as error:
            raise ValueError(f"--reference {image}: {error}") from error
    return session


def _tell_cuts(cuts: Sequence[int], frames: FrameSource, how: str, direction: str) -> None:
    """Note the first frame of each scene without memory; the last, if it is tracked backward."""
    from emavos.io import InputWarning

    indices, step = {*cuts}, 1 if direction == "backward" else -1
    if not (firsts := [index for index in cuts if index + step not in indices]):
        return
    verb, way = ("ends", "before") if direction == "backward" else ("begins", "from there on")
    names = ", ".join(frames.name(index) for index in firsts[:8]) + (
        f" and {len(firsts) - 8} more" if len(firsts) > 8 else ""
    )
    rest = (
        "the frames until the scene returns have no masks; give a mask there"
        if how == "stop"
        else f"masks {way} may be wrong; give a mask there, or --cuts stop to write none"
    )
    warnings.warn(f"another scene {verb} at {names}: {rest}", InputWarning, stacklevel=2)


def _fail_partly(error: BaseException, count: int, out: Path) -> NoReturn:
    """Raise the error of a run whose finished frames were written."""
    if not isinstance(error, ValueError):
        raise error
    text = str(error).partition("; nothing was written")[0]
    raise ValueError(f"{text}; {out} has the {counted(count, 'frame')} before") from error


def _ids(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a list of ids such as 1,3") from error
