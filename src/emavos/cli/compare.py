"""`emavos compare`: pictures of several methods side by side, scores over time, and the worst frames."""

from __future__ import annotations

import argparse
from pathlib import Path

from emavos.cli.arguments import Commands
from emavos.cli.datasets import (
    add_data_arguments,
    check_apart,
    named_folders,
    protocol_of,
    say_what_is_not_scored,
)
from emavos.cli.staging import staged
from emavos.cli.words import counted


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="pictures of several results side by side",
        description="For each sequence draw a grid of frames by method with objects in colour. If the data "
        "has ground truth, also plot J&F over time and show the worst frames of each method. Writes PNGs "
        "and a self-contained HTML page.",
    )
    parser.set_defaults(run=_compare)
    parser.add_argument(
        "results",
        nargs="+",
        metavar="[NAME=]DIR",
        help="folders of masks, DIR/<sequence>/<frame>.png, such as those from `emavos evaluate`",
    )
    add_data_arguments(parser, required=True)
    parser.add_argument(
        "--frames",
        default="6",
        metavar="N|A,B",
        help="number of frames in a grid, or their names separated by commas (6)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("comparison"),
        metavar="DIR",
        help="folder for the pictures (comparison)",
    )
    parser.add_argument("--force", action="store_true", help="write to a folder that is not empty")
    parser.add_argument("--quiet", action="store_true", help="print only errors")


def _compare(args: argparse.Namespace) -> None:
    from emavos.evaluation import find_videos, score_videos
    from emavos.evaluation.comparison import file_name
    from emavos.evaluation.gallery import pictures_of
    from emavos.evaluation.html import Section, html_report
    from emavos.evaluation.report import Method, by_sequence
    from emavos.io import write_image

    protocol = protocol_of(args)
    videos = find_videos(args.data, protocol, args.sequence)
    check_apart(args.out, args.data, videos)
    folders = named_folders(args.results)
    with_truth = [video for video in videos if video.truths]
    with staged(args.out, args.force) as out:
        methods = [
            Method(
                name,
                folder,
                score_videos(with_truth, folder, processes=args.processes) if with_truth else None,
            )
            for name, folder in folders.items()
        ]
        sections = [Section("J&F of each sequence", [("", by_sequence(methods))])] if with_truth else []
        for video in videos:
            pictures = pictures_of(video, methods, _frames(args.frames))
            for name, (_, picture) in pictures.items():
                write_image(out / f"{file_name(video.name)}-{file_name(name)}.png", picture)
            sections.append(Section(video.name, pictures=[*pictures.values()]))
        facts = {"protocol": protocol.name, "methods": ", ".join(folders)}
        page = html_report(f"Comparison on {protocol.name}", facts, sections)
        (out / "report.html").write_text(page, encoding="utf-8")
    for method in methods:
        if method.score is not None:
            say_what_is_not_scored(method.name, method.score)
    if not args.quiet:
        print(
            f"{args.out}: pictures of {counted(len(videos), 'sequence')}, "
            f"{counted(len(folders), 'method')}, and report.html"
        )


def _frames(text: str) -> int | list[str]:
    """A number of frames, or names of frames. Four digits or more are a name, as used for frames."""
    names = text.split(",")
    return int(text) if len(names) == 1 and text.isdecimal() and len(text) < 4 else names
