"""Standard streams that take whatever a command says."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


@contextmanager
def speaking() -> Iterator[None]:
    """Within, nothing that is printed can fail: the work counts, and not the words about it.

    Letters that a stream cannot show are written as escapes. A stream that there is not (`2>&-`, pythonw) or
    whose reader is gone takes everything and shows nothing.
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
        yield
        for name in ("stdout", "stderr"):
            _flush(getattr(sys, name))


def _handle(stream: io.TextIOWrapper, errors: str | None) -> None:
    with suppress(OSError):  # it shows what is waiting first
        stream.reconfigure(errors=errors)


def _flush(stream: io.TextIOBase) -> None:
    """Show what is waiting; if the reader is gone or its disk is full, let it go."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
