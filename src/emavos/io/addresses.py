"""Addresses, such as s3://bucket/video.mp4: distinguish them from paths, and name them in messages."""

from __future__ import annotations

import os
import re

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_AFTER_SCHEME = re.compile(r"(?<=://)[^\s'\"<>]+")
_SHORTENED = re.compile(r"([a-z][a-z0-9+.-]+):/(?!/)", re.IGNORECASE)


def is_address(text: object) -> bool:
    """Whether a text is an address such as s3://bucket/video.mp4."""
    return isinstance(text, str) and ADDRESS.match(text) is not None


def without_secrets(text: str) -> str:
    """A text without the names, passwords and queries of the addresses in it, for messages."""
    return _AFTER_SCHEME.sub(lambda match: match[0].partition("?")[0].rpartition("@")[2], text)


def lengthened(text: str) -> str:
    """A text with both slashes of an address that `Path` shortened to one, as in s3:/bucket."""
    match = _SHORTENED.match(text)
    return f"{match[1]}://{text[match.end() :]}" if match else text


def check_reachable(path: str | os.PathLike[str]) -> None:
    """Raise PermissionError if you may not enter a folder above a path, so that nothing in it is known."""
    try:
        os.stat(path)
    except PermissionError:
        raise
    except (OSError, ValueError):  # reported by the caller
        return


def absent(path: str | os.PathLike[str]) -> FileNotFoundError:
    """The error for a path without a file. Names an address as such, even one that `Path` shortened.

    Raises PermissionError if you may not enter a folder above the path.
    """
    check_reachable(path)
    text = lengthened(os.fspath(path))
    if not is_address(text):
        return FileNotFoundError(f"{text} does not exist")
    return FileNotFoundError(
        f"{without_secrets(text)} is an address, not a file of this machine; download it and pass the file "
        "(in Python: emavos.io.fetch(address, folder))"
    )
