"""Standard streams that take whatever a command says, and show none of it as an order to the terminal."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from emavos.cli.words import shown

_MOVES = re.compile(r"\r|(\x1b\[A)+\Z")  # of a progress bar: to the begin of its line, or to lines above


@contextmanager
def speaking() -> Iterator[None]:
    """Within, nothing that is printed can fail: the work counts, and not the words about it.

    Letters that a stream cannot show are written as escapes. A stream that there is not (`2>&-`, pythonw) or
    whose reader is gone takes everything and shows nothing. What a terminal would obey is shown as an escape:
    names of files and texts in them are printed in tables, notes and progress bars.
    """
    for number in range(3):  # otherwise the next file that is opened would be taken for the stream
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:
                setattr(sys, name, stack.enter_context(open(os.devnull, "w", encoding="utf-8")))
                stack.callback(setattr, sys, name, None)
            elif isinstance(stream, io.TextIOWrapper):
                stack.callback(_handle, stream, stream.errors)
                _handle(stream, "backslashreplace")
                setattr(sys, name, Unsteered(stream))
                stack.callback(setattr, sys, name, stream)
        yield
        for name in ("stdout", "stderr"):
            _flush(getattr(sys, name))


class Unsteered:
    """A text stream that escapes what a terminal would obey, but line ends, tabs and what moves a bar.

    Bars begin with a carriage return, and go up a line if there are several; both only on a terminal.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        moves = _MOVES.match(text)
        begin = moves.end() if moves is not None and self._stream.isatty() else 0
        self._stream.write(text[:begin] + shown(text[begin:], but="\n\t"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _handle(stream: io.TextIOWrapper, errors: str | None) -> None:
    with suppress(OSError):  # it shows what is waiting first
        stream.reconfigure(errors=errors)


def _flush(stream: Any) -> None:
    """Show what is waiting; if the reader is gone or its disk is full, let it go."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
