"""Frames of a folder, a video, a camera or an iterable, all as one kind of source."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

from emavos.io.images import IMAGE_SUFFIXES, PathLike, list_images, read_frame
from emavos.io.source import FrameSource
from emavos.io.video import CameraSource, VideoSource
from emavos.pictures import Pixels


def open_frames(source: PathLike | int | Iterable[Any]) -> FrameSource:
    """The frames of a folder, a video or a camera, (H, W, 3) of uint8, or those of an iterable as they are.

    source: a folder of images, taken in natural order (2.jpg before 10.jpg); a video file (extra `video`);
        a camera, "camera:0" or 0 for the first one on Linux and macOS, "camera:NAME" on Windows, which plays
        until the loop over it ends; or any iterable of frames. Folders and files can be read repeatedly.

    Raises FileNotFoundError where there is no such thing, ValueError where it holds no frames.
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
            return _Folder(path)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; frames are a folder of images or a video file")
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise ValueError(f"{path} is one image; frames are a folder of images or a video file")
        return VideoSource(path)
    if isinstance(source, Iterable):
        return _Stream(source)
    raise ValueError(f"frames are a folder, a video, a camera or an iterable, not {type(source).__name__}")


class _Folder(FrameSource):
    """The images of a folder."""

    stored = True

    def __init__(self, folder: Path) -> None:
        self._files = list_images(folder)
        self._indices: dict[str, int] = {}
        for index, file in enumerate(self._files):
            if (first := self._indices.setdefault(file.stem, index)) != index:
                raise ValueError(f"{folder} holds both {self._files[first].name} and {file.name}; keep one")
        self.count = len(self._files)

    def __iter__(self) -> Iterator[Pixels]:
        return map(read_frame, self._files)

    def reel(self) -> _Folder:
        return self

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Pixels:
        return read_frame(self._files[index])

    def name(self, index: int) -> str:
        return self._files[index].stem

    def find(self, name: str) -> int | None:
        return self._indices.get(name)


class _Stream(FrameSource):
    """Frames that somebody else makes; whether they are frames is for the session to say."""

    def __init__(self, frames: Iterable[Any]) -> None:
        self._frames = frames
        self.count = len(frames) if isinstance(frames, Sized) else None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._frames)

    def reel(self) -> Any:
        return (
            self._frames if isinstance(self._frames, Sized) and hasattr(self._frames, "__getitem__") else None
        )
