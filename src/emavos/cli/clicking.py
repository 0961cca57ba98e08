"""`--click`, `--not`, `--box`, `--scribble`: objects of one frame, from clicks instead of a mask."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any

from emavos.cli.arguments import whole

if TYPE_CHECKING:
    from emavos.clicks.seen import Prompter
    from emavos.io import FrameSource, IdMask
    from emavos.predictor import Predictor

_OPTIONS = ("click", "not_click", "box", "scribble")


def add_click_arguments(parser: argparse.ArgumentParser) -> None:
    clicks = parser.add_argument_group(
        "clicks",
        "Click on objects instead of passing --mask. Pixels count from the left and the top. You can repeat "
        "each option, and begin it with the id of an object, as in 2:310,95 (1)",
    )
    for option, count, metavar, meaning in (
        ("click", 2, "X,Y", "a pixel on the object"),
        ("not", 2, "X,Y", "a pixel beside the object"),
        ("box", 4, "X0,Y0,X1,Y1", "a box around the object: left, top, right, bottom"),
        ("scribble", None, "X,Y,X,Y,...", "a stroke over the object, through these pixels"),
    ):
        clicks.add_argument(
            f"--{option}",
            action="append",
            type=_numbers(count),
            default=[],
            dest="not_click" if option == "not" else option,
            metavar=f"[ID:]{metavar}",
            help=meaning,
        )
    clicks.add_argument(
        "--click-frame",
        type=whole(0),
        default=0,
        metavar="N",
        help="the frame you click on, counted from 0 (0)",
    )
    clicks.add_argument(
        "--prompter",
        metavar="MODULE:FUNCTION",
        help="your own function for clicks, instead of the model's head; see docs/clicks.md",
    )


def clicked(args: argparse.Namespace) -> bool:
    """Whether there are clicks. Raises ValueError unless there are either clicks or --mask."""
    clicks = any(getattr(args, name) for name in _OPTIONS)
    if clicks and args.mask is not None:
        raise ValueError("--mask and clicks both name the objects; pass one of them")
    if clicks and args.labels is not None:
        raise ValueError("--labels is for the colours of --mask; leave it out with clicks")
    if not clicks and args.mask is None and not args.reference:
        raise ValueError("nothing says what to track; pass --mask PNG, --click X,Y or --box X0,Y0,X1,Y1")
    if not clicks and (args.click_frame or args.prompter is not None):
        name = "click-frame" if args.click_frame else "prompter"
        raise ValueError(f"--{name} changes nothing without --click, --box or --scribble")
    return clicks


def mask_by_clicks(args: argparse.Namespace, predictor: Predictor, frames: FrameSource) -> dict[int, IdMask]:
    """{frame: mask} of the clicked objects. If two claim a pixel, the more probable one gets it."""
    import numpy as np
    import torch

    frame = next(islice(iter(frames), args.click_frame, None), None)
    if frame is None:
        raise ValueError(f"--click-frame {args.click_frame} is after the last frame of the video")
    seen = predictor.look(frame)
    ids = sorted({id for name in _OPTIONS for id, _ in getattr(args, name)})
    probs = []
    for id in ids:
        yes, no, boxes, lines = (
            [numbers for other, numbers in getattr(args, name) if other == id] for name in _OPTIONS
        )
        if len(boxes) > 1:
            raise ValueError(f"object {id} has {len(boxes)} boxes; give one around the whole object")
        clicked = seen.click(
            [*yes, *no],
            [1] * len(yes) + [0] * len(no),
            box=boxes[0] if boxes else None,
            scribbles=[list(zip(line[::2], line[1::2], strict=True)) for line in lines],
        )
        probs.append(clicked.prob.cpu())
    best, place = torch.stack(probs).max(dim=0)
    mask: IdMask = np.where(best > 0.5, np.array(ids, dtype=np.int32)[place.numpy()], 0).astype(np.int32)
    if missing := [id for id in ids if not (mask == id).any()]:
        raise ValueError(
            f"no object was found at the clicks of object {missing[0]}; click on its middle, add clicks, or "
            "draw a box around it"
        )
    return {args.click_frame: mask}


def load_prompter(name: str | None) -> Prompter | None:
    """The function MODULE:FUNCTION. The module may lie in this directory."""
    if name is None:
        return None
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise ValueError(f"--prompter {name} is not MODULE:FUNCTION, such as my_tool:click")
    import sys

    sys.path.insert(0, "")
    try:
        value: Any = getattr(import_module(module), function, None)
    except ImportError as error:
        raise ValueError(f"--prompter {name}: {module} cannot be imported ({error})") from error
    finally:
        sys.path.remove("")
    if not callable(value):
        raise ValueError(f"--prompter {name}: {module} has no function {function}")
    prompter: Prompter = value
    return prompter


def _numbers(count: int | None) -> Callable[[str], tuple[int, Sequence[float]]]:
    """The type of an argument: [ID:] and so many numbers; None: four or more, in pairs."""

    def parse(text: str) -> tuple[int, Sequence[float]]:
        id, colon, rest = text.partition(":")
        try:
            numbers = [float(part) for part in (rest if colon else text).split(",")]
            object_id = int(id) if colon else 1
        except ValueError:
            numbers, object_id = [], 1
        fits = len(numbers) == count if count else len(numbers) >= 4 and len(numbers) % 2 == 0
        if not fits or object_id < 1:
            form = {2: "X,Y", 4: "X0,Y0,X1,Y1", None: "X,Y,X,Y,..."}[count]
            raise argparse.ArgumentTypeError(
                f"{text!r} is not {form} in pixels, with ID: before it or without (an id from 1)"
            )
        return object_id, numbers

    return parse
