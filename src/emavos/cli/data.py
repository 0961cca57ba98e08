"""`emavos data check`: check training data for faults."""

from __future__ import annotations

import argparse
from pathlib import Path

from emavos.cli.arguments import Commands
from emavos.cli.words import counted, plain


def add(commands: Commands) -> None:
    parser = commands.add_parser("data", help="check training data", description="Check training data.")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="find faults in images and masks",
        description="Read every image and mask. Print a line for each unreadable file, missing image or "
        "mask, different size and invalid id. The exit code is 1 if there are faults.",
    )
    check.set_defaults(run=_check)
    check.add_argument("data", type=Path, metavar="DIR", help="a data set, or a folder of several")
    check.add_argument("--quiet", action="store_true", help="print only faults")


def _check(args: argparse.Namespace) -> None:
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    from emavos.data.check import check_group, list_groups

    groups, wrong = list_groups(args.data)
    for line in wrong:
        print(plain(line))
    faults = len(wrong)
    # disable=None: only on a terminal
    for group in tqdm(groups, unit="clip", leave=False, disable=args.quiet or None):
        for line in check_group(group):
            print(plain(line), flush=True)
            faults += 1
    if faults:
        raise SystemExit(1)
    if not args.quiet:
        masks = sum(len(group.pairs) for group in groups)
        whole = "1 clip or still image" if len(groups) == 1 else f"{len(groups)} clips and still images"
        print(f"{args.data}: nothing is wrong with {whole}, {counted(masks, 'mask')}")
