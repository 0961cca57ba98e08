"""Arguments for data sets, and checks of inputs and outputs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emavos.cli.arguments import whole
from emavos.cli.words import plain

if TYPE_CHECKING:
    from emavos.evaluation import Protocol, Score, Video


def add_data_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, required=required, metavar="DIR", help="folder of the data set")
    data.add_argument(
        "--protocol",
        default="davis-like",
        metavar="NAME",
        help="name of a benchmark; an unknown name lists them all (davis-like)",
    )
    data.add_argument("--split", metavar="NAME", help="another list in DIR/ImageSets, such as 2017/train")
    data.add_argument(
        "--sequence", action="append", metavar="NAME", help="use only this sequence; may be repeated"
    )
    data.add_argument(
        "--binary",
        action="store_true",
        help="treat all nonzero pixels of a mask, including 255, as one object",
    )
    data.add_argument(
        "--processes",
        type=whole(0),
        default=0,
        metavar="N",
        help="processes for scoring; 0 uses one per core (0)",
    )


def protocol_of(args: argparse.Namespace) -> Protocol:
    from emavos.evaluation import PROTOCOLS

    if args.protocol not in PROTOCOLS:
        protocols = "; ".join(f"{protocol.name} ({protocol.about})" for protocol in PROTOCOLS.values())
        raise ValueError(f"there is no protocol {args.protocol}; the protocols are {protocols}")
    changes: dict[str, Any] = {}
    if args.split is not None:
        changes["lists"] = (f"ImageSets/{args.split}.txt",)
    if args.binary:
        changes["binary"] = True
    return replace(PROTOCOLS[args.protocol], **changes)


def named_folders(texts: list[str]) -> dict[str, Path]:
    """Folders by name. Each text is NAME=DIR, or DIR with its last part as the name."""
    folders: dict[str, Path] = {}
    for text in texts:
        path = Path(text)
        name = Path(os.path.realpath(path)).name  # Path.resolve raises on circular links
        # folders of this library may contain "=" too: masks/tiny+every=3
        if not path.is_dir() and "=" in text:
            name, _, place = text.partition("=")
            path = Path(place)
        if not path.is_dir():
            raise ValueError(f"{path} is not a folder of results")
        if name in folders:
            raise ValueError(f"two results are called {name}; give one as NAME={path}")
        folders[name] = path
    return folders


def check_apart(out: Path, data: Path, videos: Sequence[Video]) -> None:
    """Raise ValueError if an output folder is a file, or lies inside the data."""
    from emavos.evaluation.burst import FrameRuns

    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file, not a folder")
    if out.is_symlink() and not out.exists():
        raise ValueError(f"--out {out} is a link that leads nowhere; remove it, or choose another folder")
    root, taken = data.resolve(), set[Path]()
    for video in videos:
        places = [one.path if isinstance(one, FrameRuns) else one.parent for one in video.masks[:1]]
        for path in (*(image.parent for image in video.images[:1]), *places):
            folder = path.parent.resolve()
            taken |= {folder, *(above for above in folder.parents if root in above.parents)}
    if taken & {out.resolve(), *out.resolve().parents}:
        raise ValueError(f"--out {out} is inside the data; choose another folder")


def say(method: str, why: str, names: Sequence[str]) -> None:
    """Print a line to stderr about files left out, if there are any."""
    from emavos.evaluation.layouts import some

    if names:
        print(plain(f"emavos: {method}: {why}: {some(names)}"), file=sys.stderr)


def say_what_is_not_scored(method: str, score: Score) -> None:
    """Print a line to stderr for each kind of mask, frame or object left out of the score."""
    say(method, "not scored, because this benchmark does not want them", score.extra)
    say(method, "not scored, because there is no truth", score.untold)
    say(method, "not scored, because they begin later (see --protocol lvos and mose)", score.later)
