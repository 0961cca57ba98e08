"""Arguments shared by several commands, and the objects built from them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from emavos.clicks.seen import Prompter
    from emavos.predictor import Predictor
    from emavos.settings import Shortcuts

Commands = Any  # the type returned by add_subparsers() has no public name
# threads or processes; torch and the system fail at larger numbers, without a clear message
MOST_WORKERS = 1024


def add_on_damage_argument(parser: argparse.ArgumentParser, stopped: str = "write nothing") -> None:
    """Add --on-damage to a parser.

    stopped: consequence of a damaged video by default, for the help.
    """
    parser.add_argument(
        "--on-damage",
        choices=("stop", "skip", "hold"),
        default="stop",
        help=f"for a damaged or truncated video: stop and {stopped}; skip damaged frames; or hold the last "
        "good frame and its masks instead. All list the damaged frames (stop)",
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force", action="store_true", help="write to folders that are not empty, and overwrite files"
    )
    parser.add_argument("--quiet", action="store_true", help="print only errors")


def add_labels_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="labels in order, and the colours they are drawn in: labelmap.txt, label_colors.txt, "
        "classes.txt, "
        'a JSON {"name": "#rrggbb"} or the XML of Label Studio (the list beside the masks, if there is one)',
    )


def add_reference_argument(parser: argparse.ArgumentParser, objects: str, then: str) -> None:
    """Add --reference to a parser.

    objects: whose pictures references are, for the help.
    then: the consequence of a reference, for the help.
    """
    parser.add_argument(
        "--reference",
        type=Path,
        nargs=2,
        action="append",
        default=[],
        metavar=("IMAGE", "PNG"),
        help=f"another picture of {objects}, of any size, and its mask; may be repeated. {then}",
    )


def add_frame_arguments(parser: argparse.ArgumentParser) -> None:
    frames = parser.add_argument_group("frames", "all by default; frames keep their names and numbers")
    frames.add_argument(
        "--start", type=whole(0), default=0, metavar="N", help="number of the first frame (0)"
    )
    frames.add_argument(
        "--stop", type=whole(1), metavar="N", help="number of the first frame left out (none)"
    )
    frames.add_argument("--step", type=whole(1), default=1, metavar="N", help="every Nth frame (1)")
    frames.add_argument(
        "--window",
        type=_window,
        metavar="LOW,HIGH",
        help="the values of 16-bit or 32-bit gray images that become black and white (0,65535; or the "
        "bits in use, "
        "which a note says)",
    )


def frame_options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `add_frame_arguments`, as options for `open_frames`."""
    return {name: getattr(args, name) for name in ("start", "stop", "step", "window")}


def _window(text: str) -> tuple[float, float]:
    from emavos.io.images import check_window

    try:
        window = check_window(tuple(float(part) for part in text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a window LOW,HIGH, such as 0,4095") from error
    assert window is not None
    return window


def add_model_arguments(parser: argparse.ArgumentParser, size: int) -> None:
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", metavar="NAME|DIR", help="tiny (default), base, user/name on the Hub, or a folder"
    )
    add_device_arguments(model)
    model.add_argument(
        "--size",
        type=_short_side,
        default=size,
        metavar="N",
        help=f"short side of the frames for the network; 0 keeps the source's size ({size})",
    )


def add_device_arguments(parser: Any) -> None:
    """Add --device, --dtype and --compile to a parser or an argument group."""
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="device to run on (auto)"
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="float32",
        help="precision of the network; auto: the fastest type that costs less than 0.1 points of J&F "
        "(float32)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the key encoder; the first frame of each size takes about 13 s longer; "
        "needs a C++ compiler",
    )


def add_shortcut_arguments(parser: argparse.ArgumentParser) -> None:
    shortcuts = parser.add_argument_group("shortcuts, all off by default")
    shortcuts.add_argument(
        "--decode-near", action="store_true", help="decode only near regions matched to an object"
    )
    shortcuts.add_argument(
        "--encode-near", action="store_true", help="encode memory frames only around their objects"
    )
    shortcuts.add_argument(
        "--still",
        type=_amount,
        default=0.0,
        metavar="X",
        help="skip memory frames whose keys differ from the last stored frame by less than X (0)",
    )
    shortcuts.add_argument(
        "--backend",
        choices=("auto", "blocks", "native"),
        default="auto",
        help="backend of the readout; blocks: PyTorch; native: C++ on the CPU, compiled in a second; "
        "auto: native after `emavos prepare`, otherwise blocks, and triton on CUDA (auto)",
    )


_OF_A_MODEL = (
    *("model", "dtype", "compile", "size", "flip", "scales"),
    *("every", "top_k", "include_last", "max_frames", "max_cells", "eviction"),
    *("locality", "decode_near", "encode_near", "still", "backend"),
)


def check_idle(
    args: argparse.Namespace, parser: argparse.ArgumentParser, why: str, but: Sequence[str] = ()
) -> None:
    """Raise ValueError if an option for the model is set, but no model is run."""
    for name in _OF_A_MODEL:
        if name in args and name not in but and getattr(args, name) != parser.get_default(name):
            raise ValueError(f"--{name.replace('_', '-')} changes nothing: {why}")


def dtype_of(args: argparse.Namespace) -> Any:
    """The dtype for `Predictor.from_pretrained`, from --dtype."""
    import torch

    return args.dtype if args.dtype == "auto" else getattr(torch, args.dtype)


def check_compilers(args: argparse.Namespace) -> None:
    """Raise ValueError if an option needs a compiler and this machine cannot compile.

    Compiles a small function, so that problems show before any file is read or written.
    """
    import torch

    from emavos.memory import topk_readout
    from emavos.weights.load import choose_device

    device = choose_device(args.device)
    cells = torch.zeros(1, 1, device=device)
    try:
        if args.compile:
            _compile_a_little(cells)
        if getattr(args, "backend", "auto") != "auto":
            topk_readout(cells, cells, cells[None], backend=args.backend)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def _compile_a_little(x: Tensor) -> None:
    import torch

    try:
        torch.compile(torch.sin)(x)
    except (RuntimeError, OSError) as error:
        lines = str(error).splitlines()
        reason = " ".join([*lines[:2], *(line for line in lines[2:] if "error:" in line)])
        raise RuntimeError(
            f"--compile cannot run here: {reason}; it needs a C++ compiler, g++ or clang, or one that "
            "the environment variable CXX names, and a folder that TORCHINDUCTOR_CACHE_DIR may name"
        ) from error


def shortcuts_of(args: argparse.Namespace) -> Shortcuts:
    from emavos.settings import Shortcuts

    return Shortcuts(args.decode_near, args.encode_near, args.still)


def add_memory_arguments(parser: argparse.ArgumentParser, by_protocol: bool = False) -> None:
    """Add the memory options and the shortcuts to a parser.

    by_protocol: whether --every and --max-frames default to None, for the protocol to decide.
    """
    every, bound = (None, None) if by_protocol else (5, 16)
    theirs = "the protocol's"
    memory = parser.add_argument_group("memory")
    memory.add_argument(
        "--every",
        type=whole(1),
        default=every,
        metavar="N",
        help=f"store every Nth frame in memory ({every or theirs})",
    )
    memory.add_argument(
        "--top-k",
        type=whole(1),
        metavar="K",
        help="memory cells read by each query cell (as the model has it)",
    )
    memory.add_argument("--include-last", action="store_true", help="also read from the previous frame")
    memory.add_argument(
        "--max-frames",
        type=whole(0),
        default=bound,
        metavar="N",
        help=f"memory frames to keep at most; 0 for no limit ({bound or theirs})",
    )
    memory.add_argument(
        "--max-cells", type=whole(1), metavar="N", help="the same in cells of 16x16 pixels (no limit)"
    )
    memory.add_argument(
        "--eviction",
        choices=("oldest", "least-used", "consolidate"),
        default="least-used",
        help="frame to evict when the memory is full (least-used)",
    )
    memory.add_argument(
        "--locality",
        action=argparse.BooleanOptionalAction,
        help="whether objects are less likely far from their last masks (as the model has it)",
    )
    add_shortcut_arguments(parser)


def policy(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "every": args.every,
        "top_k": args.top_k,
        "include_last": args.include_last,
        "max_frames": args.max_frames or None,
        "max_cells": args.max_cells,
        "eviction": args.eviction,
        "backend": args.backend,
    }


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argument type: a whole number of at least `least` and at most `most`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
        return int(text)

    return parse


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def _short_side(text: str) -> int:
    return 0 if text == "0" else whole(16)(text)


def load_predictor(
    args: argparse.Namespace,
    shortcuts: Shortcuts | None = None,
    prompter: Prompter | None = None,
    **policy: Any,
) -> Predictor:
    from emavos.machine import keep_freed_memory
    from emavos.memory import MemoryPolicy
    from emavos.predictor import Predictor

    keep_freed_memory()
    check_compilers(args)
    with silent_hub(bars=not args.quiet):
        predictor = Predictor.from_pretrained(
            args.model,
            device=args.device,
            dtype=dtype_of(args),
            policy=MemoryPolicy(**policy),
            size=args.size or None,
            shortcuts=shortcuts,
            compile=args.compile,
            prompter=prompter,
        )
    return predictor.with_settings(locality=getattr(args, "locality", None))


@contextmanager
def silent_hub(bars: bool) -> Iterator[None]:
    """Silence the Hub library's warnings about failed attempts and, unless `bars`, its progress bars."""
    from huggingface_hub import utils as hub

    level, shown = hub.logging.get_verbosity(), not hub.are_progress_bars_disabled()  # type: ignore[attr-defined]
    hub.logging.set_verbosity_error()
    if shown and not bars:
        hub.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        hub.logging.set_verbosity(level)
        if shown and not bars:
            hub.enable_progress_bars()  # type: ignore[attr-defined]
