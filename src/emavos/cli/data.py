"""`emavos data check`: what is wrong with training data."""

from __future__ import annotations

import argparse
from pathlib import Path

from emavos.cli.arguments import Commands
from emavos.cli.words import counted, plain


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "data", help="look through training data", description="Look through training data."
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="find what is wrong with it",
        description="Read every image and mask; print a line for each that is unreadable, lacks its other "
        "half, differs in size or has ids out of range. The exit code is 1 where something was found.",
    )
    check.set_defaults(run=_check)
    check.add_argument("data", type=Path, metavar="DIR", help="a data set, or a folder of several")
    check.add_argument("--quiet", action="store_true", help="say nothing but what is wrong")


def _check(args: argparse.Namespace) -> None:
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    from emavos.data.check import check_group, list_groups

    groups, wrong = list_groups(args.data)
    for line in wrong:
        print(plain(line))
    found = len(wrong)
    # disable=None: on a terminal alone
    for group in tqdm(groups, unit="clip", leave=False, disable=args.quiet or None):
        for line in check_group(group):
            print(plain(line), flush=True)
            found += 1
    if found:
        raise SystemExit(1)
    if not args.quiet:
        masks = sum(len(group.pairs) for group in groups)
        whole = "1 clip or still image" if len(groups) == 1 else f"{len(groups)} clips and still images"
        print(f"{args.data}: nothing is wrong with {whole}, {counted(masks, 'mask')}")
