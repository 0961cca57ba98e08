"""The command line, `emavos COMMAND ...`.

Each command is a module with a function `add` for its parser, and a function to run the command. Commands
raise ValueError, OSError, ImportError or FloatingPointError for problems the user can fix; `main` turns these
into one line and an exit code. torch takes seconds to load, and `emavos --help` should be fast, so commands
import their dependencies when run.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from emavos.cli import (
    batch,
    bench,
    compare,
    convert,
    data,
    demo,
    doctor,
    evaluate,
    export,
    masks,
    prepare,
    review,
    segment,
    train,
    ui,
)
from emavos.cli.completion import add_completion_argument, command_of, with_suggestion
from emavos.cli.places import resolve_places
from emavos.cli.streams import speaking
from emavos.cli.words import plain
from emavos.machine import spin_briefly

_NO_MEMORY = "out of memory; try a smaller --size or --max-frames, or fewer --workers"
BAD_INPUT, BAD_USAGE, INTERRUPTED, TERMINATED = 1, 2, 130, 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    with speaking():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = _parser().parse_args(argv)
        resolve_places(args)
        spin_briefly()
        with _terminable(), _notices_in_a_line():
            args.run(args)
    except _Terminated:
        return _fail("terminated", TERMINATED)
    except SystemExit as stop:  # argparse has printed the reason
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            return _fail(_NO_MEMORY, BAD_INPUT)
        named = error.filename is not None and error.strerror is not None
        return _fail(f"{error.filename}: {error.strerror}" if named else str(error), BAD_INPUT)
    except (ValueError, FloatingPointError) as error:
        return _fail(str(error), BAD_INPUT)
    except (ImportError, MemoryError, RuntimeError) as error:
        from emavos.machine import is_out_of_memory

        if is_out_of_memory(error):
            return _fail(_NO_MEMORY, BAD_INPUT)
        if not isinstance(error, ImportError):
            raise
        return _fail(str(error), BAD_INPUT)
    return 0


class _Terminated(BaseException):
    """Raised on SIGTERM, to clean up like Ctrl-C."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Within this context, SIGTERM raises an exception, so that no half-written files remain."""

    def terminate(*_: object) -> NoReturn:
        raise _Terminated

    # only the main thread may set signal handlers
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _notices_in_a_line() -> Iterator[None]:
    """Print warnings about the input as single lines on stderr, like errors."""
    from emavos.io import InputWarning

    with warnings.catch_warnings():
        warnings.simplefilter("default", InputWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, InputWarning):
                print("emavos: note:", plain(str(message)), file=sys.stderr)
            else:
                others(message, category, *rest, **more)

        warnings.showwarning = show
        yield


def _fail(message: str, code: int) -> int:
    print("emavos: error:", plain(message), file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._words: Sequence[str] = ()
        self.color = False  # in help, from Python 3.14 on: it would be shown as escapes
        self.suggest_on_error = False  # of Python 3.14; `with_suggestion` is for all versions

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = sys.argv[1:] if args is None else [*args]
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        extra = message.removeprefix("unrecognized arguments: ")
        if extra != message and all(map(os.path.isfile, extra.split()[:1])):
            message = f"{message[:200]}; a video of images is named by its folder, one argument"
        else:
            message = with_suggestion(message, self, self._words)
        named = self if extra == message else command_of(self, self._words)
        self.exit(_fail(f"{message} (see {named.prog} --help)", BAD_USAGE))


class _ShowVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from emavos import __version__

        print(f"emavos {__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="emavos", description="Track objects through a video from their masks in one frame."
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    add_completion_argument(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        segment,
        batch,
        prepare,
        review,
        ui,
        demo,
        evaluate,
        compare,
        train,
        data,
        masks,
        convert,
        export,
        bench,
        doctor,
    ):
        command.add(commands)
    return parser
