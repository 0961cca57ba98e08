"""Read text files from untrusted sources, with a size limit and errors that name the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from emavos.io.images import PathLike, check_file

MOST_BYTES = 1 << 28  # largest text file to read


def read_text(path: PathLike, what: str, errors: str = "strict") -> str:
    """The text of a file.

    path: file to read.
    what: expected content for error messages, such as "a list of sequences".
    errors: what Python does with bytes that are not UTF-8.

    Raises ValueError if the file is not UTF-8, too long, a pipe or a folder.
    """
    check_file(path, what)
    path = Path(path)
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size} bytes, which is too large for {what} ({MOST_BYTES} at most)")
    try:
        return path.read_text(encoding="utf-8-sig", errors=errors)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not {what}: byte {error.start} is not UTF-8") from error


def read_json(path: PathLike, what: str) -> Any:
    """The content of a JSON file. Raises ValueError like `read_text`, and if the file is not JSON."""
    try:
        return json.loads(read_text(path, what))
    except (json.JSONDecodeError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{os.fspath(path)} is not {what}: {why}") from error
    except ValueError as error:  # a number with more digits than Python converts
        if os.fspath(path) in str(error):
            raise
        raise ValueError(f"{os.fspath(path)} is not {what}: {error}") from error
