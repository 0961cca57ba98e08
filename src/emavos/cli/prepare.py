"""`emavos prepare`: compile the native readout ahead, so that videos use it by default."""

from __future__ import annotations

import argparse

from emavos.cli.arguments import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "prepare",
        help="compile the native readout for this machine, once",
        description="Compile the native readout into your cache: EMAVOS_CACHE, or emavos in "
        "XDG_CACHE_HOME or ~/.cache. It takes a second and a C++ compiler (g++, clang, or the one that CXX "
        "names). From then on, --backend auto is native on the CPU. Runs that you began before continue with "
        "the readout they began with.",
    )
    parser.set_defaults(run=_prepare)
    parser.add_argument("--quiet", action="store_true", help="print only errors")


def _prepare(args: argparse.Namespace) -> None:
    from emavos.memory import prepare

    try:
        build = prepare()
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    if not args.quiet:
        print(f"the native readout is ready: {build.path}")
