"""Paths on the command line that a shell leaves as they are, and addresses where only a path can be."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

OUTPUTS = ("out", "overlay", "matte", "cutout", "rle", "json")  # options that name what is written


def resolve_places(args: argparse.Namespace) -> None:
    """Put your home folder in place of a leading ~ in all paths.

    A shell does not do so in `--out=~/masks` or within quotes. If a file or folder here is called ~, the path
    stays as it is.

    Raises ValueError if an output is an address, which would become a folder here, called https: or s3:.
    """
    for name, value in vars(args).items():
        setattr(args, name, _at_home(value))
    for name in OUTPUTS:
        place = getattr(args, name, None)
        if isinstance(place, Path) and ":" in os.fspath(place):
            from emavos.io.addresses import is_address, lengthened

            if is_address(address := lengthened(os.fspath(place))):
                raise ValueError(
                    f"--{name} {address} is an address; write to this machine, and copy the result there"
                )


def _at_home(value: Any) -> Any:
    """The value, or its items, with the home folder in place of a leading ~."""
    if isinstance(value, list):
        return [_at_home(each) for each in value]
    if not isinstance(value, (str, Path)) or not os.fspath(value).startswith("~"):
        return value
    first = os.fspath(value).replace("\\", "/").partition("/")[0]
    return value if os.path.lexists(first) else type(value)(os.path.expanduser(value))
