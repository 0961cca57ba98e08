"""Check a folder of training data before spending hours of training on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emavos.data.static import STILL_SUFFIXES, image_of, read_still_mask
from emavos.io import list_images, read_frame, read_mask

# subfolders of a folder with several data sets; all but the first contain clips
PARTS = ("static", "clips", "BL30K", "DAVIS", "YouTubeVOS/train")
_MOST = 255  # largest id a sample can hold; DAVIS uses 255 for void if other ids are present


@dataclass(frozen=True)
class Group:
    """Images and masks checked together: a sequence, or one still image."""

    name: str
    pairs: tuple[tuple[Path, Path], ...]  # each image with its mask
    still: bool = False


def list_groups(root: str | Path) -> tuple[list[Group], list[str]]:
    """Returns the groups to check, and a list of faults: images without a mask and masks without an image.

    root: one layout of `emavos.data`, or a folder with several, named `static`, `clips`, `BL30K`, `DAVIS` and
        `YouTubeVOS`. Each still image needs a mask, each clip needs at least one.

    Raises ValueError if the folder has none of these layouts.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder")
    parts = [root / name for name in PARTS if (root / name).is_dir()]
    if not parts:
        parts = [root / "train" if (root / "train" / "JPEGImages").is_dir() else root]
    groups: list[Group] = []
    wrong: list[str] = []
    for part in parts:
        of_part, faults = _clips(part) if (part / "JPEGImages").is_dir() else _still_images(part)
        groups += of_part
        wrong += faults
    if not groups and not wrong:
        raise ValueError(
            f"{root} holds no training data: JPEGImages/ with Annotations/, or images/ with masks/, or a "
            f"folder of such: {', '.join(PARTS)}"
        )
    return groups, wrong


def check_group(group: Group) -> Iterator[str]:
    """Yield the faults in the files of a group, one line each."""
    sizes: dict[tuple[int, ...], str] = {}
    seen, shown = False, False  # whether any mask could be read; whether any mask shows an object
    for image, mask in group.pairs:
        size = None
        try:
            size = read_frame(image).shape[:2]
        except (ValueError, OSError) as error:
            yield str(error)
        else:
            sizes.setdefault(size, image.name)
        try:
            ids = read_still_mask(mask) if group.still else read_mask(mask)
        except (ValueError, OSError) as error:
            yield str(error)
            continue
        seen, shown = True, shown or bool(ids.any())
        if size is not None and ids.shape != size:
            yield f"{mask} is {_text(ids.shape)} but {image.name} is {_text(size)} (height x width)"
        present = [i for i in np.unique(ids).tolist() if i]
        if wrong := [i for i in present if not 0 < i <= _MOST]:
            yield f"{mask} has id {wrong[0]}, out of range; ids are 1 to {_MOST}"
        elif _MOST in present and len(present) > 1:
            yield f"{mask} has id {_MOST} beside others, which is void in DAVIS and would be an object here"
    if len(sizes) > 1:
        listed = ", ".join(f"{_text(size)} ({name})" for size, name in sizes.items())
        yield f"{group.name} has frames of several sizes: {listed}"
    if seen and not shown:
        yield f"{group.name} has no object in any mask"


def _clips(root: Path) -> tuple[list[Group], list[str]]:
    images, masks = (_with_resolution(root / name) for name in ("JPEGImages", "Annotations"))
    groups, wrong = [], []
    for folder in sorted(path for path in images.iterdir() if path.is_dir()):
        frames, faults = _by_stem(folder)
        mask_files, more = _by_stem(masks / folder.name)
        wrong += [
            f"{mask} is not a PNG, so it is not read as a mask"
            for mask in mask_files.values()
            if mask.suffix != ".png"
        ]
        mask_files = {stem: mask for stem, mask in mask_files.items() if mask.suffix == ".png"}
        wrong += faults + more
        wrong += [f"{mask_files[stem]} has no image in {folder}" for stem in mask_files if stem not in frames]
        pairs = tuple((frames[stem], mask_files[stem]) for stem in frames if stem in mask_files)
        if not pairs:
            wrong.append(f"{folder} has no mask: no PNG of {masks / folder.name} has the name of a frame")
        else:
            groups.append(Group(str(folder), pairs))
    if masks.is_dir():
        alone = sorted(p for p in masks.iterdir() if p.is_dir() and not (images / p.name).is_dir())
        wrong += [f"{path} has no images: {images / path.name} does not exist" for path in alone]
    return groups, wrong


def _still_images(root: Path) -> tuple[list[Group], list[str]]:
    apart = (root / "masks").is_dir()
    masks = sorted((root / "masks").glob("*.png") if apart else root.rglob("*.png"))
    files = (root / "images").glob("*") if apart else root.rglob("*")
    images = sorted(path for path in files if path.suffix in STILL_SUFFIXES)
    ours = {image_of(root / "images" / mask.name if apart else mask): mask for mask in masks}
    there = set(images)
    groups = [
        Group(str(image), ((image, mask),), still=True) for image, mask in ours.items() if image in there
    ]
    wrong = [
        f"{mask} has no image: {image} does not exist" for image, mask in ours.items() if image not in there
    ]
    return groups, wrong + [f"{image} has no mask" for image in images if image not in ours]


def _by_stem(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Returns the images of a folder by stem, and a list of faults: two images with the same stem."""
    by_stem: dict[str, Path] = {}
    wrong = []
    try:
        images = list_images(folder)
    except (ValueError, OSError):  # empty or missing; the caller reports the missing files
        images = []
    for image in images:
        if (first := by_stem.setdefault(image.stem, image)) is not image:
            wrong.append(f"{folder} holds both {first.name} and {image.name}; keep one")
    return by_stem, wrong


def _with_resolution(folder: Path) -> Path:
    return folder / "480p" if (folder / "480p").is_dir() else folder


def _text(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
