"""The command line: `emavos segment`, `demo`, `evaluate`, `train` and `convert`.

A command is two functions: one adds its parser, the other runs it and raises ValueError, OSError or
ImportError for a user's mistakes, which `main` turns into one line and an exit code.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:  # torch takes seconds to load, and `emavos --help` should not
    from emavos.io import FrameSource, IdMask, Pixels
    from emavos.predictor import Predictor
    from emavos.session import Result

T = TypeVar("T")
Commands = Any  # what add_subparsers() returns has no public name

BAD_INPUT, BAD_USAGE, INTERRUPTED = 1, 2, 130
FPS = 25.0  # of overlay videos, where the frames have no rate of their own


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line. Returns its exit code."""
    try:
        args = _parser().parse_args(argv)
        args.run(args)
    except SystemExit as stop:  # argparse has said why
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", INTERRUPTED)
    except OSError as error:
        named = error.filename is not None and error.strerror is not None
        return _fail(f"{error.filename}: {error.strerror}" if named else str(error), BAD_INPUT)
    except (ValueError, ImportError) as error:
        return _fail(str(error), BAD_INPUT)
    return 0


def _fail(message: str, code: int) -> int:
    print("emavos: error:", " ".join(message.split()), file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_fail(f"{message} (see {self.prog} --help)", BAD_USAGE))


class _ShowVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from emavos import __version__

        print(f"emavos {__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="emavos", description="Follow objects through a video from their mask in one frame."
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_segment(commands)
    _add_demo(commands)
    _add_evaluate(commands)
    _add_train(commands)
    _add_convert(commands)
    return parser


# segment


def _add_segment(commands: Commands) -> None:
    parser = commands.add_parser(
        "segment",
        help="masks of every frame of a video, from the mask of one",
        description="Write the objects of every frame of a video as a palette PNG of ids, named as the "
        "frame. All of it appears at the end; where something fails, nothing is written.",
    )
    parser.set_defaults(run=_segment)
    parser.add_argument("video", metavar="VIDEO", help="a folder of images, or a video file (extra: video)")
    parser.add_argument(
        "--mask",
        type=Path,
        required=True,
        metavar="PNG|DIR",
        help="the objects in the first frame, as a PNG of ids; or a folder of such, each named as its frame "
        "(00042.png for frame 42 of a video file), for objects that appear later and for corrections",
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
    _add_output_arguments(parser)
    _add_model_arguments(parser, size=480)
    _add_memory_arguments(parser)


def _segment(args: argparse.Namespace) -> None:
    from emavos.io import open_frames, write_mask
    from emavos.visualize import overlay

    if args.video.startswith("camera:"):
        raise ValueError("a camera has no last frame; follow it in Python, with Predictor.session()")
    _check_apart(args.video, args.mask, args.out, args.overlay)
    frames = open_frames(args.video)
    mask = _read_masks(args.mask, frames)
    start, count, ids = time.monotonic(), 0, set[int]()
    with ExitStack() as stack:
        folder = stack.enter_context(_staged(args.out, args.force))
        show = None
        if args.overlay is not None:
            show = stack.enter_context(_overlay_writer(args.overlay, args.force, frames.fps or FPS))
        predictor = _load_predictor(args, **_policy(args))
        for frame, result in _follow(predictor, frames, mask, args.quiet):
            name = frames.name(result.index)
            write_mask(folder / f"{name}.png", result.mask)
            if show is not None:
                show(name, overlay(frame, result.mask))
            count, ids = count + 1, ids.union(result.ids)
    if not args.quiet:
        seconds = time.monotonic() - start
        print(f"{count} frames, {len(ids)} objects: masks in {args.out} ({seconds:.1f} s)")


def _check_apart(video: str, mask: Path, out: Path, show: Path | None) -> None:
    """No output may be written over an input, or over the other output."""
    taken = {Path(video).resolve(): "the video", mask.resolve(): "the mask"}
    for name, path in (("--out", out), ("--overlay", show)):
        if path is not None and (other := taken.setdefault(path.resolve(), name)) != name:
            raise ValueError(f"{name} {path} is also {other}; choose another place")


def _read_masks(path: Path, frames: FrameSource) -> IdMask | dict[int, IdMask]:
    from emavos.io import list_images, read_mask

    if not path.is_dir():
        return read_mask(path)
    masks = {}
    for file in list_images(path):
        index = frames.find(file.stem)
        if index is None or (frames.count is not None and index >= frames.count):
            raise ValueError(f"{file} is named as no frame; the first frame's would be {frames.name(0)}.png")
        masks[index] = read_mask(file)
    return masks


@contextmanager
def _overlay_writer(path: Path, force: bool, fps: float) -> Iterator[Callable[[str, Pixels], None]]:
    """A function that writes a frame by its name, to a video or a folder."""
    from emavos.io import VideoWriter, write_image

    if path.suffix.lower() in (".avi", ".gif", ".mkv", ".mov", ".webm"):
        raise ValueError(f"--overlay {path} is written as .mp4, or as a folder of PNGs")
    if path.suffix.lower() != ".mp4":
        with _staged(path, force) as folder:
            yield lambda name, frame: write_image(folder / f"{name}.png", frame)
    else:
        if path.exists() and not force:
            raise ValueError(f"{path} exists; choose another name, or --force to write over it")
        with _staged(path.parent, force=True) as folder, VideoWriter(folder / path.name, fps) as video:
            yield lambda name, frame: video.write(frame)


# demo


def _add_demo(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="draw a clip, segment it and show the result",
        description="Draw a clip of three objects, follow them from the first frame and compare with the "
        "truth. Writes frames, masks, overlays, a contact sheet and, with the extra video, an mp4. "
        "Needs no file and no network.",
    )
    parser.set_defaults(run=_demo)
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="folder of all of it (demo)"
    )
    parser.add_argument("--frames", type=_whole(2), default=48, metavar="N", help="length of the clip (48)")
    _add_output_arguments(parser)
    _add_model_arguments(parser, size=360)


def _demo(args: argparse.Namespace) -> None:
    from emavos.demo import synthetic_clip
    from emavos.evaluation import region_similarity
    from emavos.io import open_frames, write_image, write_mask, write_video
    from emavos.visualize import contact_sheet, overlay

    with _staged(args.out, args.force) as folder:
        predictor = _load_predictor(args)
        clip, truths = synthetic_clip(args.frames)
        frames = open_frames(clip)
        for name in ("frames", "masks", "overlay"):
            (folder / name).mkdir()
        shown, scores = [], []
        for frame, result in _follow(predictor, frames, truths[0], args.quiet):
            name, truth = f"{frames.name(result.index)}.png", truths[result.index]
            shown.append(overlay(frame, result.mask))
            write_image(folder / "frames" / name, frame)
            write_mask(folder / "masks" / name, result.mask)
            write_image(folder / "overlay" / name, shown[-1])
            if result.index > 0:  # the first was given
                scores += [region_similarity(result.mask == i, truth == i) for i in result.ids]
        chosen = sorted({round(i * (len(shown) - 1) / 7) for i in range(8)})
        sheet = contact_sheet([shown[i] for i in chosen], [f"frame {i}" for i in chosen])
        write_image(folder / "contact_sheet.png", sheet)
        made = ["frames/", "masks/", "overlay/", "contact_sheet.png"]
        try:
            write_video(folder / "overlay.mp4", shown, FPS)
            made.append("overlay.mp4")
        except ImportError:
            made.append('no overlay.mp4 (pip install "emavos[video]")')
    if not args.quiet:
        print(f"{args.out}: {', '.join(made)}")
        print(f"mean J of {len(truths) - 1} frames, 3 objects: {sum(scores) / len(scores):.3f}")


# evaluate


def _add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="segment a DAVIS-like data set and score it",
        description="Follow the objects of the first ground truth of each sequence of a DAVIS-like tree, "
        "write the masks, and print J and F. Sequences that are there already are only scored.",
    )
    parser.set_defaults(run=_evaluate)
    parser.add_argument("data", type=Path, metavar="DIR", help="has JPEGImages/480p and Annotations/480p")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the masks")
    parser.add_argument("--split", metavar="NAME", help="a list of DIR/ImageSets, such as 2017/val (all)")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the table")
    _add_model_arguments(parser, size=480)
    _add_memory_arguments(parser)


def _evaluate(args: argparse.Namespace) -> None:
    from emavos.evaluation import evaluate_davis, list_sequences
    from emavos.io import list_images, open_frames, read_mask, write_mask

    predictor = None
    for sequence in list_sequences(args.data, args.split):
        frames = open_frames(args.data / "JPEGImages" / "480p" / sequence)
        first = read_mask(list_images(args.data / "Annotations" / "480p" / sequence)[0])
        if (args.out / sequence).is_dir():
            continue
        predictor = predictor or _load_predictor(args, **_policy(args))
        with _staged(args.out / sequence, force=False) as folder:
            for _, result in _follow(predictor, frames, first, args.quiet):
                write_mask(folder / f"{frames.name(result.index)}.png", result.mask)
    score = evaluate_davis(args.data, args.out, args.split)
    print(f"{'sequence':24} {'object':>6} {'J':>6} {'F':>6} {'J&F':>6}")
    for sequence, objects in score.sequences.items():
        for id, one in objects.items():
            j, f = one.J.mean, one.F.mean
            print(f"{sequence:24} {id:6} {j:6.3f} {f:6.3f} {(j + f) / 2:6.3f}")
    print(f"{'mean over objects':24} {'':6} {score.J.mean:6.3f} {score.F.mean:6.3f} {score.JF:6.3f}")
    for name in score.extra:
        print(f"emavos: not scored, as no ground truth asks for it: {name}", file=sys.stderr)


# train


def _add_train(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a model on still images and clips",
        description="Run a stage of training; the same command goes on with a run that was stopped.",
    )
    parser.set_defaults(run=_train)
    parser.add_argument("--stage", required=True, metavar="NAME", help="tiny-1 or tiny-2")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="has static/ and clips/")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--init", metavar="NAME|DIR", help="model to start from (ImageNet trunks; extra: train)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it runs (auto)"
    )
    parser.add_argument("--iterations", type=_whole(1), metavar="N", help="stop early (the stage's)")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def _train(args: argparse.Namespace) -> None:
    import torch

    from emavos.predictor import choose_device
    from emavos.pretrained import load_model, save_model
    from emavos.training import STAGES, Progress, start_from_imagenet, train

    if args.stage not in STAGES:
        raise ValueError(f"there is no stage {args.stage}; the stages are {', '.join(STAGES)}")
    config = STAGES[args.stage]
    model = start_from_imagenet(config.preset, config.seed) if args.init is None else load_model(args.init)

    def report(progress: Progress) -> None:
        if not args.quiet and (progress.iteration + 1) % 20 == 0:
            print(
                f"{progress.iteration + 1}/{config.iterations}  loss {progress.loss:.3f}  "
                f"overlap {progress.overlap:.3f}  {progress.seconds:.2f} s",
                file=sys.stderr,
                flush=True,
            )

    model = train(
        model.to(choose_device(args.device)), args.data, args.out, config, stop=args.iterations, report=report
    )
    save_model(model, args.out / "model", dtype=torch.float16)
    if not args.quiet:
        print(f"the model is in {args.out / 'model'}")


# convert


def _add_convert(commands: Commands) -> None:
    parser = commands.add_parser(
        "convert",
        help="published STCN weights, as a model of ours",
        description="Read a published STCN checkpoint (.pth), tensors and nothing else, and write "
        "config.json and model.safetensors. Attention can be added; it starts as the identity.",
    )
    parser.set_defaults(run=_convert)
    parser.add_argument("checkpoint", type=Path, metavar="PTH", help="such as stcn.pth")
    parser.add_argument("out", type=Path, metavar="DIR", help="folder of the model")
    parser.add_argument(
        "--preset", default="stcn", metavar="NAME", help="stcn, or one with attention: stcn-external-both"
    )


def _convert(args: argparse.Namespace) -> None:
    from emavos.convert import from_stcn, read_checkpoint
    from emavos.models import PRESETS

    fitting = [name for name, config in PRESETS.items() if config.trunk == "resnet"]
    if args.preset not in fitting:
        raise ValueError(f"--preset {args.preset} is none of {', '.join(fitting)}")
    from_stcn(read_checkpoint(args.checkpoint), PRESETS[args.preset]).save_pretrained(args.out)
    print(f"{args.out}: config.json, model.safetensors")


# what the commands share


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force", action="store_true", help="write into folders that are not empty, over old files"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def _add_model_arguments(parser: argparse.ArgumentParser, size: int) -> None:
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", metavar="NAME|DIR", help="user/name of the Hub, or a folder (the model in this package)"
    )
    model.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it runs (auto)"
    )
    model.add_argument(
        "--size",
        type=_size,
        default=size,
        metavar="N",
        help=f"short side while working; 0: the source's ({size})",
    )


def _add_memory_arguments(parser: argparse.ArgumentParser) -> None:
    memory = parser.add_argument_group("memory")
    memory.add_argument("--every", type=_whole(1), default=5, metavar="N", help="keep every Nth frame (5)")
    memory.add_argument("--top-k", type=_whole(1), default=20, metavar="K", help="cells read by each (20)")
    memory.add_argument("--include-last", action="store_true", help="read the previous frame as well")
    memory.add_argument(
        "--max-frames", type=_whole(0), default=32, metavar="N", help="frames kept at most; 0: no bound (32)"
    )


def _policy(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "every": args.every,
        "top_k": args.top_k,
        "include_last": args.include_last,
        "max_frames": args.max_frames or None,
    }


def _whole(least: int) -> Callable[[str], int]:
    """The type of an argument: a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return parse


def _size(text: str) -> int:
    return 0 if text == "0" else _whole(16)(text)


def _load_predictor(args: argparse.Namespace, **policy: Any) -> Predictor:
    import torch

    from emavos.memory import MemoryPolicy
    from emavos.predictor import Predictor

    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here; leave it out, or use cpu")
    return Predictor.from_pretrained(
        args.model, device=args.device, policy=MemoryPolicy(**policy), size=args.size or None
    )


def _follow(
    predictor: Predictor, frames: FrameSource, mask: IdMask | dict[int, IdMask], quiet: bool
) -> Iterator[tuple[Pixels, Result]]:
    """Each frame with its result, and a progress bar."""
    import torch

    read: deque[Pixels] = deque()

    def source() -> Iterator[Pixels]:
        for frame in frames:
            read.append(frame)
            yield frame

    done = 0
    try:
        for result in _progress(predictor.propagate(source(), mask), frames.count, quiet):
            yield read.popleft(), result
            done += 1
    except torch.OutOfMemoryError as error:
        raise ValueError(f"out of memory at frame {done}; try a smaller --size or --max-frames") from error
    except ValueError as error:
        raise ValueError(f"{error}; nothing was written" if done else str(error)) from error


def _progress(items: Iterable[T], total: int | None, quiet: bool) -> Iterator[T]:
    """The items, while a line on the terminal says how far they are."""
    if quiet or not sys.stderr.isatty():
        yield from items
        return
    start = drawn = time.monotonic()
    try:
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - drawn < 0.1 and done != total:
                continue
            drawn, rate = now, done / max(now - start, 1e-6)
            line = f"{done} frames  {rate:.1f} fps"
            if total is not None and done <= total:
                bar = "#" * (24 * done // total)
                left = round((total - done) / rate)
                line = f"[{bar:.<24}] {done}/{total}  {rate:.1f} fps  eta {left // 60}:{left % 60:02d}"
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def _staged(target: Path, force: bool) -> Iterator[Path]:
    """A hidden folder to fill; its files go to `target` if the block ends well, and vanish otherwise."""
    target = Path(os.path.abspath(target))
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file, not a folder")
    if target.is_dir() and not force and any(target.iterdir()):
        raise ValueError(f"{target} is not empty; choose another folder, or --force to write over old files")
    # inside the target where there is one, which may be a disk of its own
    home = next(folder for folder in (target, *target.parents) if folder.exists())
    stage = home / f".{target.name}.{secrets.token_hex(4)}.partial"
    try:
        stage.mkdir()
    except OSError as error:
        raise ValueError(f"{target} cannot be written: {error.strerror}") from error
    try:
        yield stage
        for file in sorted(path for path in stage.rglob("*") if path.is_file()):
            goal = target / file.relative_to(stage)
            goal.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, goal)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
