"""Open folders, videos, cameras and iterables as one kind of frame source."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence, Sized
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

from emavos.io.addresses import check_reachable, is_address, without_secrets
from emavos.io.choosing import WithoutDamaged, chosen, is_pattern, matching
from emavos.io.images import (
    IMAGE_SUFFIXES,
    Images,
    Pages,
    PathLike,
    Window,
    check_file,
    check_window,
    count_pages,
    read_frame,
    read_image,
    refuse_mask,
)
from emavos.io.notices import notice
from emavos.io.source import FrameSource
from emavos.io.video import CameraSource, OnDamage, StreamSource, VideoSource

# Image formats of cameras and programs without support here; a warning lists such files.
_FOREIGN = re.compile(
    r"\.(avif|arw|cr[23]|dcm|dng|exr|fits|hdr|hei[cf]|j2k|jp[2x]|jpg_large|jxl|nef|npy|orf|pcx|pfm|psd|qoi|raf|raw|rw2|svg|"
    r"tga|xcf)"
)
_LOOKED_AT = 16  # oddly named images to check before the first frame
_DOTTED = re.compile(r"(?<![0-9.])([0-9]+)\.([0-9]+)(?![0-9]|\.[0-9])")
_ZEROS = re.compile(r"(?<![0-9.])0+(?=[0-9])")  # before a number, but not 0.05 after its point
_SIGN = re.compile(r"(?:^|(?<=[=_ (]))-(?=[0-9])")


def open_frames(
    source: PathLike | int | Iterable[Any],
    but: Collection[PathLike] = (),
    on_damage: OnDamage = "stop",
    *,
    window: Window | None = None,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
) -> FrameSource:
    """Open a source of frames: (H, W, 3) uint8 from files and cameras, unchanged from iterables.

    source: a folder of images in natural order (2.jpg before 10.jpg); a video file (extra `video`); a TIFF
        with several pages, an animated PNG or WebP; a list of image files; a camera, "camera:0" or 0 for the
        first camera on Linux and macOS, "camera:NAME" on Windows, or a stream, "rtsp://...", which play until
        you leave the loop; a pattern, "frames/*.png" or "frames/%05d.png"; or any iterable or sequence of
        frames. Folders and files can be read repeatedly.
    but: files in the folder to skip, such as the mask.
    on_damage: treatment of a damaged or truncated video. "stop" raises ValueError at the damage; "hold"
        returns the last good frame instead of a damaged one; "skip" leaves damaged frames out, and decodes
        the video once before, to find them. All list the damaged frames, "hold" and "skip" in an
        `InputWarning`.
    window: (low, high), the values of 16-bit or 32-bit gray images to show as black and white, in all frames.
        None uses 0 to 65535; or, if the first frames use at most 14 bits, 0 to the largest number with as
        many bits.
    start, stop, step: use only the frames start, start + step, ... before stop. Frames keep their names.

    Skipped, oddly named and oddly ordered files of a folder are reported as `InputWarning`.

    Raises FileNotFoundError if the source does not exist, ValueError if it contains no frames.
    """
    window = check_window(window)
    opened = _open(source, but, on_damage, window)
    if window is not None and (opened is source or not isinstance(opened, (Images, Pages))):
        raise ValueError(
            "a window is for image files of 16 or 32 bits; a video or a stream has 8 bits a channel"
        )
    frames = opened if (start, stop, step) == (0, None, 1) else chosen(opened, start, stop, step)
    skips = on_damage == "skip" and isinstance(opened, VideoSource) and opened is not source
    return WithoutDamaged(frames) if skips else frames


def _open(
    source: PathLike | int | Iterable[Any],
    but: Collection[PathLike],
    on_damage: OnDamage,
    window: Window | None,
) -> FrameSource:
    """All frames of a source."""
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, int) and not isinstance(source, bool):
        return CameraSource(str(source))
    if isinstance(source, (str, os.PathLike)):
        return _open_path(source, but, on_damage, window)
    if (
        isinstance(source, (list, tuple))
        and source
        and all(isinstance(p, (str, os.PathLike)) for p in source)
    ):
        paths = [Path(path) for path in source]
        files = _without_masks(paths, but)
        if not files:
            raise ValueError("the only image in the list is the mask; name the frames too")
        kept = {*files}
        if masks := [path for path in paths if path not in kept]:
            notice(f"left out: {', '.join(_summary(masks, []))}", stacklevel=3)
        for path in files:
            check_file(path, "an image")
        return Images(files, window)
    if isinstance(source, Iterable) or hasattr(source, "__getitem__"):
        return _Stream(source)
    raise ValueError(f"frames are a folder, a video, a camera or an iterable, not {type(source).__name__}")


class _Stream(FrameSource):
    """Frames from the user's iterable; the session checks them."""

    def __init__(self, frames: Any) -> None:
        self._frames = frames
        self.count = len(frames) if isinstance(frames, Sized) else None

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self._frames, Iterable):
            return map(_read_named, self._frames)
        if self.count is None:  # the old iteration protocol: indices from 0 until IndexError
            return map(_read_named, iter(self._frames))
        return (_read_named(self._frames[index]) for index in range(self.count))

    def reel(self) -> Any:
        return (
            self._frames if isinstance(self._frames, Sized) and hasattr(self._frames, "__getitem__") else None
        )


def _read_named(frame: Any) -> Any:
    """The picture at a path; other frames unchanged."""
    return read_frame(frame) if isinstance(frame, (str, os.PathLike)) else frame


def _open_path(
    source: PathLike, but: Collection[PathLike], on_damage: OnDamage, window: Window | None
) -> FrameSource:
    """All frames of a folder, a file, a pattern, a camera or a stream."""
    if isinstance(source, str) and source.startswith("camera:"):
        return CameraSource(source.removeprefix("camera:"))
    if isinstance(source, str) and source.lower().startswith(("rtsp://", "rtsps://")):
        return StreamSource(source)
    if not os.fspath(source):
        raise ValueError("the path of the frames is empty; name a folder of images or a video file")
    path = Path(source)
    if path.is_dir():
        return open_folder(path, but, window)
    if path.exists() and path.suffix.lower() in IMAGE_SUFFIXES:
        pages = Pages(path, window)
        if pages.count == 1:
            raise ValueError(f"{path} is one image; frames are a folder of images or a video file")
        return pages
    if path.exists():
        return VideoSource(path, on_damage)
    if is_address(source):
        raise ValueError(
            f"{without_secrets(os.fspath(source))} is not on this machine; copy it first, with "
            "emavos.io.fetch(address, folder) or --remote"
        )
    if is_pattern(path):
        return _of_files(natural_order(matching(path)), path.parent, but, window)
    check_reachable(path)
    raise FileNotFoundError(f"{path} does not exist; frames are a folder of images or a video file")


def open_folder(folder: Path, but: Collection[PathLike] = (), window: Window | None = None) -> Images:
    """The images of a folder, in natural order.

    folder: folder of images.
    but: files to skip, such as the mask.
    window: see `open_frames`.

    Skipped, oddly named and oddly ordered files are reported as `InputWarning`. Raises ValueError if other
    masks lie among the images, or if two images have the same stem.
    """
    images = list_images(folder)
    return _of_files(images, folder, but, window, _left_out(folder, images))


def list_images(folder: PathLike) -> list[Path]:
    """The image files of a folder in natural order, without hidden files."""
    images = [p for p in Path(folder).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
    if not images:
        raise ValueError(f"{folder} holds no images ({', '.join(sorted(s[1:] for s in IMAGE_SUFFIXES))})")
    return natural_order(images)


def natural_order(files: Iterable[Path]) -> list[Path]:
    """Files ordered by the numbers in their names: 2 before 10, 0.25 before 0.5, -1 before 0."""
    files = list(files)
    decimals, signs = _number_style([file.stem for file in files])
    number = r"[0-9]+"
    if decimals:
        number = r"(?:(?<![0-9.])[0-9]+\.[0-9]+(?![0-9]|\.[0-9])|[0-9]+)"
    if signs:
        number = rf"(?:(?:^|(?<=[=_ (]))-)?{number}"
    split = re.compile(f"({number})").split

    def key(path: Path) -> tuple[list[str | int | Decimal], str]:
        parts = split(path.stem.lower())  # text at even indices, numbers at odd indices
        return [_number(part) if i % 2 else part for i, part in enumerate(parts)], path.name

    return sorted(files, key=key)


def _number_style(stems: Sequence[str]) -> tuple[bool, bool]:
    """Whether 0.25 in these names is a decimal (not 0 and 25), and whether -1 is negative."""
    fractions: dict[str, set[str]] = {}
    for stem in stems:
        for whole, part in _DOTTED.findall(stem):
            fractions.setdefault(whole, set()).add(part)
    parts = {part for each in fractions.values() for part in each}
    decimals = len({len(part) for part in parts}) > 1 and not all(map(_counts_up, fractions.values()))
    signed = [bool(_SIGN.search(stem)) for stem in stems]
    return decimals, any(signed) and not all(signed)


def _counts_up(parts: Collection[str]) -> bool:
    """Whether the numbers count up 1, 2, ... 10 without leading zeros."""
    if any(part != str(int(part)) for part in parts):
        return False
    numbers = sorted(map(int, parts))
    return numbers[0] <= 1 and numbers == [*range(numbers[0], numbers[0] + len(numbers))]


def _number(text: str) -> int | Decimal:
    return Decimal(text) if "." in text else int(text)


def _of_files(
    files: Sequence[Path],
    folder: Path,
    but: Collection[PathLike],
    window: Window | None,
    others: Sequence[Path] = (),
) -> Images:
    """The images of one folder, in order. others: files left out, for the note."""
    frames = _without_masks(files, but)
    kept = {*frames}
    masks = [file for file in files if file not in kept]
    if not frames:
        raise ValueError(f"{folder} holds no image but the mask; name the folder of the frames")
    by_stem: dict[str, Path] = {}
    for file in frames:
        if (first := by_stem.setdefault(file.stem, file)) != file:
            raise ValueError(f"{folder} holds both {first.name} and {file.name}; keep one")
    odd = _named_unlike_the_others(frames)
    for file in dict.fromkeys((frames[0], *odd[:_LOOKED_AT])):
        _check_frame_file(file, alone=len(frames) == 1)
    if masks or others:
        notice(f"{folder}: left out: {', '.join(_summary(masks, others))}", stacklevel=3)
    if odd:
        one = "is named unlike the other images and is a frame as they are"
        several = "are named unlike the other images and are frames as they are"
        notice(f"{folder}: {_some(odd)} {one if len(odd) == 1 else several}", stacklevel=3)
    if pair := _same_number(frames):
        notice(
            f"{folder}: {pair[0].name} and {pair[1].name} have the same number, and both are frames",
            stacklevel=3,
        )
    if note := _note_of_order([file.stem for file in frames]):
        notice(f"{folder}: {note}", stacklevel=3)
    return Images(frames, window)


def _without_masks(files: Sequence[Path], but: Collection[PathLike]) -> list[Path]:
    named = {os.path.realpath(path) for path in but}
    return [file for file in files if os.path.realpath(file) not in named] if named else list(files)


def _check_frame_file(path: Path, alone: bool) -> None:
    """Raise the errors that `Images` would raise at this file, if its header shows them."""
    try:
        pages, _ = count_pages(path)
    except (ValueError, OSError):  # reported when the file is read
        return
    if pages > 1:
        way = "name that file as the video" if alone else "name that file as the video, or save one a frame"
        raise ValueError(f"{path} holds {pages} pictures, and a frame is one picture; {way}")
    with suppress(OSError):
        try:
            image = read_image(path) if path.suffix.lower() == ".png" else None
        except ValueError:
            return
        if image is not None:
            refuse_mask(image, path)


def _left_out(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Skipped files that look like frames: other image formats, and names with the usual pattern."""
    stems = {file.stem for file in files}
    usual, _ = Counter(_pattern(file.stem) for file in files).most_common(1)[0]
    left_out = []
    for path in folder.iterdir():
        suffix, begin = path.suffix.lower(), path.name.partition(".")[0]
        if path.name[0] == "." or suffix in IMAGE_SUFFIXES or path.stem in stems or not path.is_file():
            continue
        like_frames = "#" in usual and _pattern(begin) == usual and begin not in stems
        if like_frames or _FOREIGN.fullmatch(suffix):
            left_out.append(path)
    return sorted(left_out)


def _summary(masks: Sequence[Path], others: Sequence[Path]) -> Iterator[str]:
    """Files left out, in words: "8 .heic", "cover.avif", "the mask first.png"."""
    for suffix, count in Counter(path.suffix for path in others).items():
        kind = [path for path in others if path.suffix == suffix]
        yield f"{count} {suffix}" if suffix and count > 2 else _some(kind)
    if masks:
        yield f"the {'mask' if len(masks) == 1 else 'masks'} {_some(masks)}"


def _some(files: Sequence[Path]) -> str:
    names = ", ".join(file.name for file in files[:4])
    return names + (f" and {len(files) - 4} more" if len(files) > 4 else "")


def _named_unlike_the_others(files: Sequence[Path]) -> list[Path]:
    """The images whose names differ from the usual pattern in more than numbers."""
    patterns = [_pattern(file.stem) for file in files]
    (usual, most), *_ = Counter(patterns).most_common(1)
    if most < 2 or most == len(files) or 2 * (len(files) - most) > most:
        return []
    return [file for file, pattern in zip(files, patterns, strict=True) if pattern != usual]


def _pattern(name: str) -> str:
    return re.sub(r"-?[0-9]+(\.[0-9]+)?", "#", name.lower())


def _same_number(files: Sequence[Path]) -> tuple[Path, Path] | None:
    """The first two files whose names differ only in zeros before a number, such as frame1 and frame01."""
    firsts: dict[str, Path] = {}
    for file in files:
        name = _ZEROS.sub("", file.stem.lower())
        if (first := firsts.setdefault(name, file)) != file:
            return first, file
    return None


def _note_of_order(stems: Sequence[str]) -> str:
    """A note about a surprising order of names (decimals of unequal length, minus signs); otherwise ""."""
    decimals, signs = _number_style(stems)
    lengths = {len(part) for stem in stems for _, part in _DOTTED.findall(stem)}
    if signs:
        return f"names with a minus sign are ordered as negative numbers: {stems[0]} comes first"
    if len(lengths) < 2:
        return ""
    how = "numbers with decimals" if decimals else "two numbers, 1.9 before 1.10"
    return f"names with a point between digits are ordered as {how}: {', '.join(stems[:3])} come first"
