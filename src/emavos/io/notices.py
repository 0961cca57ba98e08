"""Warnings about input, shown or collected."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class InputWarning(UserWarning):
    """A warning about input read in a way you may not intend: files skipped, dark or in an odd order."""


_NOTES: ContextVar[list[str] | None] = ContextVar("notes", default=None)
_MOST_NOTES = 20


@contextmanager
def noting() -> Iterator[list[str]]:
    """Collect the texts of `InputWarning`s instead of showing them: each text once, at most 20 texts.

    Only notices of this thread and of the threads that read ahead for it are collected.
    """
    notes, before = list[str](), _NOTES.get()
    _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.set(before)


def notice(note: str, stacklevel: int = 1) -> None:
    """Warn about the input with an `InputWarning`, or add the text to the list of `noting`."""
    notes = _NOTES.get()
    if notes is None:
        warnings.warn(note, InputWarning, stacklevel=stacklevel + 1)
    elif note not in notes and len(notes) < _MOST_NOTES:
        notes.append(note)
