"""Frames of a folder, a video, a camera or an iterable, all as one kind of source."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

from emavos.io.folder import Images, Pages, open_folder
from emavos.io.images import IMAGE_SUFFIXES, PathLike, check_file, read_frame
from emavos.io.source import FrameSource
from emavos.io.video import CameraSource, Damaged, VideoSource


def open_frames(
    source: PathLike | int | Iterable[Any], but: Collection[PathLike] = (), damaged: Damaged = "refuse"
) -> FrameSource:
    """The frames of a folder, a video or a camera, (H, W, 3) of uint8, or those of an iterable as they are.

    source: a folder of images, taken in natural order (2.jpg before 10.jpg); a video file (extra `video`); a
        TIFF of several pages, an animated PNG or WebP; a list of image files; a camera, "camera:0" or 0 for
        the first one on Linux and macOS, "camera:NAME" on Windows, which plays until the loop over it ends;
        or any iterable or sequence of frames. Folders and files can be read repeatedly.
    but: files of that folder that are no frames, as the mask may be.
    damaged: what is done with a video that is damaged or cut off: "refuse" raises ValueError where it is;
        "keep" goes on with what can be read, and says at the end which frames that concerns.

    An `InputWarning` says what of a folder is left out, or ordered or named oddly.
    Raises FileNotFoundError if there is no such thing, ValueError if it holds no frames.
    """
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, int) and not isinstance(source, bool):
        return CameraSource(str(source))
    if isinstance(source, (str, os.PathLike)):
        if isinstance(source, str) and source.startswith("camera:"):
            return CameraSource(source.removeprefix("camera:"))
        if not os.fspath(source):
            raise ValueError("the path of the frames is empty; name a folder of images or a video file")
        path = Path(source)
        if path.is_dir():
            return open_folder(path, but)
        if not path.exists():
            raise _nothing_there(path)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            pages = Pages(path)
            if pages.count == 1:
                raise ValueError(f"{path} is one image; frames are a folder of images or a video file")
            return pages
        return VideoSource(path, damaged)
    if (
        isinstance(source, (list, tuple))
        and source
        and all(isinstance(p, (str, os.PathLike)) for p in source)
    ):
        for path in map(Path, source):
            check_file(path, "an image")
        return Images([Path(p) for p in source])
    if isinstance(source, Iterable) or hasattr(source, "__getitem__"):
        return _Stream(source)
    raise ValueError(f"frames are a folder, a video, a camera or an iterable, not {type(source).__name__}")


class _Stream(FrameSource):
    """Frames that somebody else makes; whether they are frames is for the session to say."""

    def __init__(self, frames: Any) -> None:
        self._frames = frames
        self.count = len(frames) if isinstance(frames, Sized) else None

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self._frames, Iterable):
            return map(_read, self._frames)
        if self.count is None:  # the older protocol: indices from 0 until IndexError
            return map(_read, iter(self._frames))
        return (_read(self._frames[index]) for index in range(self.count))

    def reel(self) -> Any:
        return (
            self._frames if isinstance(self._frames, Sized) and hasattr(self._frames, "__getitem__") else None
        )


def _read(frame: Any) -> Any:
    """A frame that is named by its path; all others as they are."""
    return read_frame(frame) if isinstance(frame, (str, os.PathLike)) else frame


def _nothing_there(path: Path) -> FileNotFoundError:
    hint = "frames are a folder of images or a video file"
    if re.search(r"[*?]|%[0-9]*d", path.name):
        hint = f"name the folder, {path.parent}: its images are taken in the order of their numbers"
    return FileNotFoundError(f"{path} does not exist; {hint}")
