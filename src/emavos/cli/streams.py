"""Standard streams that never fail, with control characters escaped."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from emavos.cli.words import shown

# moves of a progress bar: to the start of its line, or to lines above
_MOVES = re.compile(r"\r|(\x1b\[A)+\Z")


@contextmanager
def speaking() -> Iterator[None]:
    """Within this context, printing never fails, since the work matters more than messages about it.

    Characters unknown to a stream's encoding are escaped. A missing stream (`2>&-`, pythonw) or a stream with
    a closed reader discards all text. Terminal control characters are escaped too, since file names and texts
    of files are printed in tables, notes and progress bars.
    """
    for number in range(3):  # otherwise the next opened file would take the stream's number
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
    """A text stream that escapes control characters, except line ends, tabs and moves of a progress bar.

    A bar starts with a carriage return, and moves up a line if there are several bars; both only on a
    terminal.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        moves = _MOVES.match(text)
        begin = moves.end() if moves is not None and self._stream.isatty() else 0
        try:
            self._stream.write(text[:begin] + shown(text[begin:], but="\n\t"))
        except OSError:  # of a stream that keeps nothing back, or whose buffer is full
            _silence(self._stream)
        return len(text)

    def flush(self) -> None:
        _flush(self._stream)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _handle(stream: io.TextIOWrapper, errors: str | None) -> None:
    with suppress(OSError):  # reconfigure flushes first
        stream.reconfigure(errors=errors)


def _flush(stream: Any) -> None:
    """Flush a stream; if the reader is gone or the disk is full, discard the text."""
    try:
        stream.flush()
    except OSError:
        _silence(stream)


def _silence(stream: Any) -> None:
    """Make a stream discard all text from now on."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
