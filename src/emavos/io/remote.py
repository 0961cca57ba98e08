"""Copy a video or a folder of frames from an address, such as s3:// or https://, to this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from emavos.io.images import PathLike
from emavos.io.whole import partial_folder

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_HERE = ("file", "local", "camera", "rtsp", "rtsps")  # files of this machine, and streams without an end


def is_address(text: object) -> bool:
    """Whether a text is an address such as s3://bucket/video.mp4."""
    return isinstance(text, str) and _ADDRESS.match(text) is not None


def without_password(text: str) -> str:
    """An address without the name and the password in it, for messages."""
    return re.sub(r"(?<=://)[^/@]*@", "", text)


def fetch(address: str, folder: PathLike) -> Path:
    """Copy what is at an address into a folder, and return where it lies.

    address: of a file, or of a folder of images, in any protocol of the package `fsspec`:
        https://host/video.mp4, s3://bucket/frames/ and others. Some protocols need another package, which the
        error names.
    folder: created if it does not exist. A copy that is there already is returned as it is.

    Copies appear whole. Raises ValueError if the address is of a file of this machine or of no known
    protocol, FileNotFoundError if nothing is there, ImportError if a package is missing, and OSError if the
    connection fails.

    >>> frames = open_frames(fetch("s3://bucket/video.mp4", "videos/"))
    """
    scheme = match[1].lower() if (match := _ADDRESS.match(address)) else ""
    shown = without_password(address)
    if not scheme or scheme in _HERE or "::" in address:
        raise ValueError(f"{shown} is no address of a file elsewhere, such as https://host/video.mp4")
    name = address.partition("://")[2].split("?")[0].rstrip("/").rpartition("/")[2]
    if not name or name in (".", "..") or "\\" in name or name.startswith("."):
        raise ValueError(f"{shown} does not end with the name of a file or a folder")
    place = Path(folder) / name
    if place.exists():
        return place
    files, path = _file_system(address, shown)
    try:
        if not files.exists(path):
            raise FileNotFoundError(f"{shown}: there is nothing at this address")
        place.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(place.parent, name) as stage:
            _copy(files, path, stage / name)
            os.rename(stage / name, place)
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:  # each protocol has errors of its own
        raise OSError(
            f"{shown} cannot be copied: {' '.join(str(error).split())[:200] or repr(error)}"
        ) from error
    return place


def _file_system(address: str, shown: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(address)
    except ImportError as error:
        raise ImportError(f"{shown}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from error
    return files, path


def _copy(files: Any, path: str, place: Path) -> None:
    """Copy a file; or the files of a folder, without its folders."""
    if not files.isdir(path):
        files.get_file(path, str(place))
        return
    place.mkdir()
    for each in files.ls(path, detail=True):
        name = each["name"].rstrip("/").rpartition("/")[2]
        if each["type"] == "file" and name and not name.startswith(".") and "\\" not in name:
            files.get_file(each["name"], str(place / name))
