"""Copy a video or a folder of frames from an address, such as s3:// or https://, to this machine."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from emavos.io.addresses import ADDRESS, without_secrets
from emavos.io.images import PathLike
from emavos.io.whole import partial_folder

_HERE = ("file", "local", "camera", "rtsp", "rtsps")  # files of this machine, and streams without an end


def fetch(address: str, folder: PathLike) -> Path:
    """Copy what is at an address into a folder, and return the path of the copy.

    address: of a file, or of a folder of images, in any protocol of the package `fsspec`:
        https://host/video.mp4, s3://bucket/frames/ and others. Some protocols need another package, which the
        error names.
    folder: created if it does not exist.

    The copy is named after the end of the address and a hash of the address, such as `video-1f0c22ab.mp4`. If
    you fetch the same address again, the first copy is returned.

    Copies appear whole. Raises ValueError if the address is of a file of this machine or of no known
    protocol, FileNotFoundError if nothing is there, ImportError if a package is missing, and OSError if the
    connection fails.

    >>> frames = open_frames(fetch("s3://bucket/video.mp4", "videos/"))
    """
    name = Path(name_in(address))
    place = Path(folder) / f"{name.stem}-{_hash_of(address)}{name.suffix}"
    if not place.exists():
        copy_from(address, place)
    return place


def name_in(address: str) -> str:
    """The name of the file or folder at the end of an address.

    Raises ValueError if there is none, or the address is of a file of this machine.
    """
    scheme = match[1].lower() if (match := ADDRESS.match(address)) else ""
    if not scheme or scheme in _HERE or "::" in address:
        raise ValueError(
            f"{without_secrets(address)} is not an address of a file on another machine, such as https://host/video.mp4"
        )
    name = address.partition("://")[2].partition("?")[0].rstrip("/").rpartition("/")[2]
    if not name or name in (".", "..") or "\\" in name or name.startswith("."):
        raise ValueError(f"{without_secrets(address)} does not end with the name of a file or a folder")
    return name


def copy_from(address: str, place: Path) -> None:
    """Copy what is at an address to a new path. The copy appears whole. Raises errors as `fetch` does."""
    name_in(address)  # checks the address
    shown = without_secrets(address)
    try:
        files, path = _file_system(address, shown)
        _check_there(files, path, shown)
        place.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(place.parent, place.name) as stage:
            _copy(files, path, stage / place.name)
            os.rename(stage / place.name, place)
    except (ImportError, ValueError):
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(_reason(error, address)) from error
    except Exception as error:  # each protocol has errors of its own
        reason = _reason(error, address)[:200] or type(error).__name__
        raise OSError(f"{shown} cannot be copied: {reason}") from error


def _hash_of(address: str) -> str:
    """8 digits that differ between addresses, whatever their passwords."""
    before, mark, query = address.partition("?")
    plain = re.sub(r"(?<=://)([^/:]*):[^/]*(?=@)", r"\1", before.rstrip("/"))
    return hashlib.sha256(os.fsencode(f"{plain}{mark}{query}")).hexdigest()[:8]


def _reason(error: Exception, address: str) -> str:
    """An error on one line, without secrets."""
    return without_secrets(" ".join(str(error).replace(address, without_secrets(address)).split()))


def _file_system(address: str, shown: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise type(error)(f"{shown}: {_reason(error, address)}") from error
    return files, path


def _check_there(files: Any, path: str, shown: str) -> None:
    """Raise FileNotFoundError if nothing is at a path, or OSError if this cannot be found out.

    For http, fsspec also reports a missing file if the server does not answer, or refuses.
    """
    if files.exists(path):
        return
    try:
        files.info(path)
    except FileNotFoundError as error:
        reason = error.__cause__
        absent = isinstance(reason, FileNotFoundError) or getattr(reason, "status", None) in (404, 410)
        if reason is not None and not absent:
            raise OSError(str(reason) or type(reason).__name__) from error
    raise FileNotFoundError(f"{shown}: there is nothing at this address")


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
