"""Tab completion for shells (extra `completion`), and the nearest word for one that does not exist."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emavos.machine import how_to_install

_SHELLS = ("bash", "zsh", "tcsh", "fish", "powershell")
_CHOICE = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)$", re.DOTALL)


def add_completion_argument(parser: argparse.ArgumentParser) -> None:
    """Add --print-completion to the parser of all commands."""
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=_SHELLS,
        help="print a script that completes commands, options and files with the tab key, and exit (extra: "
        "completion)",
    )


class _PrintCompletion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, _: Any, shell: Any, option: Any = None) -> None:
        try:
            import shtab
        except ImportError as error:
            raise ImportError(f"{option} needs shtab: {how_to_install('completion')}") from error
        for action in _actions(parser):
            if action.type is Path or action.dest == "video":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(parser, shell))
        parser.exit()


def with_suggestion(message: str, parser: argparse.ArgumentParser, words: Sequence[str]) -> str:
    """An error of argparse, with the command, choice or option that was probably meant.

    parser: of all commands, or of the command with the error.
    words: the command line, from which an option's command is known.
    """
    if choice := _CHOICE.search(message):
        near = difflib.get_close_matches(choice[1], re.findall(r"[\w.-]+", choice[2]), 1)
        return f"{message}; did you mean {near[0]}?" if near else message
    extra = message.removeprefix("unrecognized arguments: ")
    if extra == message or not extra.startswith("--"):
        return message
    parser = command_of(parser, words)
    options = {option for action in parser._actions for option in action.option_strings}
    near = difflib.get_close_matches(re.split("[ =]", extra, maxsplit=1)[0], sorted(options), 1)
    return f"{message}; did you mean {near[0]}?" if near else message


def command_of(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command, and of its action if it has several."""
    for word in words:
        for action in parser._actions:
            if isinstance(action.choices, dict) and word in action.choices:
                parser = action.choices[word]
                break
    return parser


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of all its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action.choices, dict):
            for each in action.choices.values():
                yield from _actions(each)
