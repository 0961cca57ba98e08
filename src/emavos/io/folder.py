"""Frames that lie in image files: the images of a folder, those of a list, the pages of one file."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from emavos.io.images import (
    IMAGE_SUFFIXES,
    PathLike,
    count_pages,
    header_size,
    list_images,
    pages_of,
    read_image,
    refuse_mask,
)
from emavos.io.order import order_to_tell
from emavos.io.pictures import InputWarning, Pixels, pixels_of
from emavos.io.source import FrameSource

# Pictures that a camera or a program writes and that are not read: told when they lie among frames.
_FOREIGN = re.compile(
    r"\.(avif|arw|cr[23]|dcm|dng|exr|fits|hdr|hei[cf]|j2k|jp[2x]|jpg_large|jxl|nef|npy|orf|pcx|pfm|psd|qoi|raf|raw|rw2|svg|"
    r"tga|xcf)"
)
_LOOKED_AT = 16  # images of a folder whose headers are read before the first frame


class Images(FrameSource):
    """Image files, a frame each."""

    stored = True

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)
        stems = [file.stem for file in self._files]
        self._named = len(set(stems)) == len(stems)  # otherwise frames are called by their number
        self._indices = {stem: index for index, stem in enumerate(stems)} if self._named else {}
        self.count = len(self._files)

    def __iter__(self) -> Iterator[Pixels]:
        return map(_read, self._files)

    def reel(self) -> Images:
        return self

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Pixels:
        return _read(self._files[index])

    def name(self, index: int) -> str:
        return self._files[index].stem if self._named else super().name(index)

    def find(self, name: str) -> int | None:
        return self._indices.get(name) if self._named else super().find(name)

    def size(self) -> tuple[int, int] | None:
        with suppress(ValueError, OSError):  # said when it is read
            return header_size(self._files[0])
        return None


def open_folder(folder: Path, but: Collection[PathLike] = ()) -> Images:
    """The images of a folder, in natural order.

    but: files that are no frames though they lie among them, as the mask may. What is left out, named unlike
    the others or ordered oddly is said by an `InputWarning`. Raises ValueError if masks lie among the images
    that nobody named, or two images have one name.
    """
    named = {os.path.realpath(path) for path in but}
    files = list_images(folder)
    masks = [file for file in files if os.path.realpath(file) in named] if named else []
    files = [file for file in files if file not in masks]
    if not files:
        raise ValueError(f"{folder} holds no image but the mask; name the folder of the frames")
    seen: dict[str, Path] = {}
    for file in files:
        if (first := seen.setdefault(file.stem, file)) != file:
            raise ValueError(f"{folder} holds both {first.name} and {file.name}; keep one")
    odd = _named_unlike_the_others(files)
    for file in dict.fromkeys((files[0], *odd[:_LOOKED_AT])):
        _check(file, alone=len(files) == 1)
    _tell(folder, masks, "is the mask, and no frame", "are masks, and no frames")
    _tell(
        folder,
        _left_out(folder, files),
        "is left out: it is no image of a kind that is read",
        "are left out: they are no images of a kind that is read",
    )
    _tell(
        folder,
        odd,
        "is named unlike the other images and is a frame as they are",
        "are named unlike the other images and are frames as they are",
    )
    if note := order_to_tell([file.stem for file in files]):
        warnings.warn(f"{folder}: {note}", InputWarning, stacklevel=3)
    return Images(files)


class Pages(FrameSource):
    """The pages of a TIFF, or the pictures of an animated PNG or WebP."""

    stored = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count, self.fps = count_pages(path)

    def __iter__(self) -> Iterator[Pixels]:
        for index, page in enumerate(pages_of(self._path)):
            yield pixels_of(page, f"picture {index} of {self._path}")

    def size(self) -> tuple[int, int] | None:
        return header_size(self._path)


def _read(path: Path) -> Pixels:
    image = read_image(path)
    refuse_mask(image, path)
    return pixels_of(image, os.fspath(path))


def _check(path: Path, alone: bool) -> None:
    """Raise before the first frame what `_read` would raise, as far as headers tell."""
    try:
        pages, _ = count_pages(path)
    except (ValueError, OSError):  # said when it is read
        return
    if pages > 1:
        way = "name that file as the video" if alone else "name that file as the video, or save one a frame"
        raise ValueError(f"{path} holds {pages} pictures, where a frame is one; {way}")
    with suppress(OSError):
        try:
            image = read_image(path) if path.suffix.lower() == ".png" else None
        except ValueError:
            return
        if image is not None:
            refuse_mask(image, path)


def _tell(folder: Path, files: Sequence[Path], one: str, several: str) -> None:
    if files:
        names = ", ".join(file.name for file in files[:4]) + (
            f" and {len(files) - 4} more" if len(files) > 4 else ""
        )
        warnings.warn(f"{folder}: {names} {one if len(files) == 1 else several}", InputWarning, stacklevel=4)


def _pattern(name: str) -> str:
    return re.sub(r"-?[0-9]+(\.[0-9]+)?", "#", name.lower())


def _named_unlike_the_others(files: Sequence[Path]) -> list[Path]:
    """The images whose names differ in more than numbers, where most are named alike."""
    patterns = [_pattern(file.stem) for file in files]
    (usual, most), *_ = Counter(patterns).most_common(1)
    if most < 2 or most == len(files) or 2 * (len(files) - most) > most:
        return []
    return [file for file, pattern in zip(files, patterns, strict=True) if pattern != usual]


def _left_out(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Files beside the images that look like frames: other kinds of pictures, and names as frames have."""
    stems = {file.stem for file in files}
    usual, _ = Counter(_pattern(file.stem) for file in files).most_common(1)[0]
    found = []
    for path in folder.iterdir():
        suffix, begin = path.suffix.lower(), path.name.partition(".")[0]
        if path.name[0] == "." or suffix in IMAGE_SUFFIXES or path.stem in stems or not path.is_file():
            continue
        like_frames = "#" in usual and _pattern(begin) == usual and begin not in stems
        if like_frames or _FOREIGN.fullmatch(suffix):
            found.append(path)
    return sorted(found)
