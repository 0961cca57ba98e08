"""Arguments that several commands share, and what they make."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emavos.predictor import Predictor

Commands = Any  # what add_subparsers() returns has no public name


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force", action="store_true", help="write into folders that are not empty, over old files"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def add_model_arguments(parser: argparse.ArgumentParser, size: int) -> None:
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", metavar="NAME|DIR", help="user/name of the Hub, or a folder (the model in this package)"
    )
    add_device_arguments(model)
    model.add_argument(
        "--size",
        type=_short_side,
        default=size,
        metavar="N",
        help=f"short side while working; 0: the source's ({size})",
    )


def add_device_arguments(parser: Any) -> None:
    """parser: one, or a group of its arguments."""
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it runs (auto)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the network's arithmetic; bfloat16 is faster where the processor has it (float32)",
    )


def dtype_of(args: argparse.Namespace) -> Any:
    """What --dtype means to `Predictor.from_pretrained`."""
    import torch

    return getattr(torch, args.dtype)


def add_memory_arguments(parser: argparse.ArgumentParser) -> None:
    memory = parser.add_argument_group("memory")
    memory.add_argument("--every", type=whole(1), default=5, metavar="N", help="keep every Nth frame (5)")
    memory.add_argument("--top-k", type=whole(1), default=20, metavar="K", help="cells read by each (20)")
    memory.add_argument("--include-last", action="store_true", help="read the previous frame as well")
    memory.add_argument(
        "--max-frames", type=whole(0), default=16, metavar="N", help="frames kept at most; 0: no bound (16)"
    )
    memory.add_argument(
        "--max-cells", type=whole(1), metavar="N", help="the same in cells, one for 16x16 pixels (no bound)"
    )
    memory.add_argument(
        "--eviction",
        choices=("oldest", "least-used", "consolidate"),
        default="least-used",
        help="which frame goes when the memory is full (least-used)",
    )


def policy(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "every": args.every,
        "top_k": args.top_k,
        "include_last": args.include_last,
        "max_frames": args.max_frames or None,
        "max_cells": args.max_cells,
        "eviction": args.eviction,
    }


def whole(least: int) -> Callable[[str], int]:
    """The type of an argument: a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return parse


def _short_side(text: str) -> int:
    return 0 if text == "0" else whole(16)(text)


def load_predictor(args: argparse.Namespace, **policy: Any) -> Predictor:
    from emavos.memory import MemoryPolicy
    from emavos.predictor import Predictor

    with silent_hub(bars=not args.quiet):
        return Predictor.from_pretrained(
            args.model,
            device=args.device,
            dtype=dtype_of(args),
            policy=MemoryPolicy(**policy),
            size=args.size or None,
        )


@contextmanager
def silent_hub(bars: bool) -> Iterator[None]:
    """The Hub's library warns of each try that fails, and shows bars of its own for downloads."""
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
