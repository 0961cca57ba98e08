"""Masks in files, for any frames of a video: finds the frame of each mask."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from emavos.annotations import Annotations, LabelMap, read_annotations, read_arrays, read_labels
from emavos.annotations.labels import find_labels
from emavos.annotations.reading import SUFFIXES, annotation_files, with_labels
from emavos.frames.preprocess import check_given
from emavos.io import FrameSource, IdMask, Pixels, list_images, read_mask
from emavos.io.ids import flat_colours
from emavos.io.images import IMAGE_SUFFIXES, PathLike, read_image
from emavos.io.notices import notice
from emavos.io.opening import natural_order

ARRAYS = (".npy", ".npz")
MASK_SUFFIXES = frozenset({*IMAGE_SUFFIXES, *ARRAYS, *SUFFIXES})
_EXPORTS = ("SegmentationObject", "SegmentationClass")  # folders of CVAT and Datumaro, the better one first
# a brush as Label Studio names its file; the part before the label is the name of the tool in its interface
_BRUSH = re.compile(
    r"task-(?P<task>[0-9]{1,18})-annotation-(?P<annotation>[0-9]{1,18})-by-[^-]*-[^-]*-(?P<label>.+)-[0-9]{1,9}"
)
_MOST = 0xFFFF  # the largest id of a PNG
_INDEXED = ("P", "1", "L", "LA", "F")  # and all that begin with I: image modes with ids as values

Size = tuple[int, int]


@dataclass(frozen=True)
class GivenMask:
    """A mask of one frame.

    name: of the frame, or its number; None for the first frame.
    title: description of the mask in errors.
    read: returns the ids (H, W) of the mask, from (H, W) of the frame, or None if the size is unknown.
    names: {id: label}, if there are any.
    """

    name: str | int | None
    title: str
    read: Callable[[Size | None], IdMask]
    names: Mapping[int, str] = field(default_factory=dict)


def read_masks(
    mask: PathLike | Mapping[str, Path], frames: FrameSource, labels: PathLike | None = None
) -> IdMask | dict[int, IdMask]:
    """The mask of the first frame, or {frame index: mask} of several frames.

    mask: as for `open_masks`.
    frames: the video.
    labels: a list of labels with their colours and their order; None: the list beside the masks, if any.

    A single image is the mask of the first frame, unless it has the name of a later frame. Masks without an
    object are skipped if other masks have one. An `InputWarning` lists skipped masks, and masks matched to
    frames only by number.

    Raises ValueError with the name of the file if a frame does not exist, sizes differ, or no mask has an
    object.
    """
    entries = [*open_masks(mask, None if labels is None else read_labels(labels))]
    if len(entries) == 1 and entries[0].name is None:
        assert not isinstance(mask, Mapping)
        later = frames.find(Path(mask).stem) or 0
        if not later or not _there(later, frames):
            ids = entries[0].read(None)
            _check_ids(ids, entries[0].title)
            check_given(ids, frames.size(), f"{entries[0].title}, the mask of the first frame,")
            return ids
        _tell(f"{os.fspath(mask)} is named as frame {later}, counted from 0, and is the mask of that frame")
        entries = [replace(entries[0], name=later)]
    masks: dict[int, IdMask] = {}
    size, empty, numbered = frames.size(), list[str](), list[str]()
    whole, elsewhere = frames.whole, list[str]()
    by_number = _by_number(whole)
    for entry in entries:
        number, certain = _frame_of(entry.name, whole, by_number)
        if number is None or not _there(number, whole):
            raise ValueError(
                f"{entry.title} is for frame {entry.name}, which the video does not have; name masks like "
                f"their frames, of which the first is {whole.name(0)}"
            )
        index = frames.place(number)
        if index is None or not _there(index, frames):
            elsewhere.append(str(entry.name))
            continue
        if index in masks:
            raise ValueError(f"{entry.title} is for frame {entry.name}, which has a mask already")
        ids = entry.read(size)
        if not ids.any():
            empty.append(str(entry.name))
            continue
        _check_ids(ids, entry.title)
        size = check_given(ids, size, f"{entry.title}, the mask of frame {entry.name},")
        masks[index] = ids
        if not certain:
            numbered.append(f"{entry.name} for frame {frames.name(index)}")
    if elsewhere:
        _tell(f"masks of frames that are not tracked are left out: {_some(elsewhere)}")
    if not masks and elsewhere:
        raise ValueError(
            f"{entries[0].title} has no mask of a frame that is tracked; change start, stop or step"
        )
    if not masks:
        raise ValueError(f"{entries[0].title} is empty: every pixel is 0, the background")
    if numbered:
        _tell(f"masks are matched to frames by the number in their names: {_some(numbered)}")
    if empty:
        _tell(f"masks without an object are left out: {_some(empty)}")
    return masks


def _check_ids(ids: IdMask, title: str) -> None:
    """Raise ValueError if masks with these ids could not be written, which would fail only after a frame."""
    low, high = int(ids.min(initial=0)), int(ids.max(initial=0))
    if low < 0 or high > _MOST:
        raise ValueError(
            f"{title} has the id {low if low < 0 else high}; ids of files are 0 (the background) to {_MOST}"
        )


def names_its_frames(path: PathLike) -> bool:
    """Whether a path can contain masks of several frames: a folder, or a file other than an image."""
    return os.path.isdir(path) or Path(path).suffix.lower() in MASK_SUFFIXES - IMAGE_SUFFIXES


def open_masks(mask: PathLike | Mapping[str, Path], labels: LabelMap | None = None) -> Iterator[GivenMask]:
    """The masks of a file, or of a folder of files, each with its frame.

    mask: an image of ids; a `.npy` or `.npz`; a file of Labelme, CVAT, COCO, Label Studio, VIA or YOLO; a
        folder of these, each named like its frame; or {name of a frame: file}.
    labels: a list of labels with their colours and their order; None: the list beside the masks, if any.
    """
    if isinstance(mask, Mapping):
        for name, file in mask.items():
            yield from _of_file(file, labels, name)
        return
    path = Path(mask)
    if not path.is_dir():
        yield from _of_file(path, labels, None)
        return
    path = _in_export(path)
    files = mask_files(path)
    if files[0].suffix.lower() in SUFFIXES:
        yield from _of_annotations(read_annotations(path, labels))
        return
    brushes = [match for file in files if (match := _BRUSH.fullmatch(file.stem))]
    if len(brushes) == len(files):
        yield _of_brushes(path, files, brushes)
        return
    if labels is None and path.name != "SegmentationObject":  # uses the colours of DAVIS
        labels = find_labels(path)
    for file in files:
        yield from _of_file(file, labels, file.stem)


def _of_brushes(folder: Path, files: Sequence[Path], names: Sequence[re.Match[str]]) -> GivenMask:
    """The mask of the brushes that Label Studio exports as files, a plane each, of its last annotation.

    Raises ValueError if they are of several tasks, because their names do not say of which images.
    """
    if len(tasks := {name["task"] for name in names}) > 1:
        raise ValueError(
            f"{folder} has brushes of {len(tasks)} tasks, and their names do not say of which images; export "
            "JSON instead, or pass a folder with the files of one task"
        )
    last = max(int(name["annotation"]) for name in names)
    kept = [(file, name) for file, name in zip(files, names, strict=True) if int(name["annotation"]) == last]

    def read(size: Size | None) -> IdMask:
        planes = [
            read_arrays(file)[0] if file.suffix in ARRAYS else np.array(read_image(file).convert("L"))
            for file, _ in kept
        ]
        if shapes := {plane.shape for plane in planes} - {planes[0].shape}:
            raise ValueError(f"{folder} has brushes of {planes[0].shape} and {shapes.pop()} (height, width)")
        mask = np.zeros(planes[0].shape, np.int32)
        for id, plane in enumerate(planes, 1):
            mask[plane > 0] = id
        return mask

    return GivenMask(
        None, os.fspath(folder), read, {id: name["label"] for id, (_, name) in enumerate(kept, 1)}
    )


def mask_files(folder: Path) -> list[Path]:
    """The files of a folder that `open_masks` reads, in natural order: annotations, or images and arrays.

    If a folder has both images and annotations, as from Labelme, JPEGs are the frames.
    """
    folder = _in_export(folder)
    texts = annotation_files(folder)
    files = [p for p in folder.iterdir() if p.suffix.lower() in ARRAYS and p.name[0] != "."]
    try:
        images = list_images(folder)
    except ValueError:
        if texts and not files:
            return texts
        if not files:
            raise
        images = []
    frames = [image for image in images if image.suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif")]
    if texts and frames == images and not files and {p.stem for p in texts} & {p.stem for p in images}:
        return texts
    return natural_order([*images, *files])


def _in_export(folder: Path) -> Path:
    """The folder of the masks or labels in an unpacked export; another folder as it is."""
    masks = next((folder / name for name in _EXPORTS if (folder / name).is_dir()), None)
    return with_labels(folder) if masks is None else masks


def _of_file(path: Path, labels: LabelMap | None, name: str | None) -> Iterator[GivenMask]:
    """The masks of one file. name: of the frame, if known."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        yield from _of_annotations(read_annotations(path, labels))
    elif suffix in ARRAYS:
        arrays = read_arrays(path)
        for index, mask in arrays.items():
            alone = name is not None and len(arrays) == 1
            yield GivenMask(name if alone else index, os.fspath(path), partial(_same, mask))
    else:
        if labels is None and name is None and path.parent.name != "SegmentationObject":
            labels = find_labels(path)
        yield GivenMask(name, os.fspath(path), partial(_read_image_mask, path, labels), _names_of(labels))


def _of_annotations(annotations: Annotations) -> Iterator[GivenMask]:
    for place, picture in enumerate(annotations.pictures):
        name = picture.name if picture.index is None else picture.index
        yield GivenMask(name, annotations.path, partial(annotations.mask, place), annotations.names)


def pictures_in_colours(mask: Path) -> Iterator[Pixels]:
    """The images (H, W, 3) at a path with colours instead of ids, to make a list of labels.

    Raises ValueError if an image looks anti-aliased.
    """
    files = mask_files(mask) if mask.is_dir() else [mask]
    for path in files:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            image = read_image(path)
            if not _holds_numbers(image):
                yield flat_colours(image, os.fspath(path))


def _names_of(labels: LabelMap | None) -> Mapping[int, str]:
    return labels.names if labels is not None and labels.colours else {}


def _same(mask: IdMask, size: Size | None) -> IdMask:
    return mask


def _read_image_mask(path: Path, labels: LabelMap | None, size: Size | None = None) -> IdMask:
    """The ids of an image. Colours are converted to ids with the list of labels, if it has colours."""
    if labels is None or not labels.colours:
        return read_mask(path)
    image = read_image(path)
    if _holds_numbers(image):
        return read_mask(path)
    return labels.ids_of(image, os.fspath(path))


def _holds_numbers(image: Image.Image) -> bool:
    """Whether the values of an image are ids. Also true for a JPEG, because `read_mask` refuses JPEGs."""
    return image.format in ("JPEG", "MPO") or image.mode in _INDEXED or image.mode.startswith("I")


def _frame_of(
    name: str | int | None, frames: FrameSource, by_number: Mapping[tuple[int, ...], int] | None
) -> tuple[int | None, bool]:
    """The index of a mask's frame, None if there is no such frame; and whether the names match exactly."""
    if name is None or isinstance(name, int):
        return name or 0, True
    for exact in (name, name.zfill(5)):  # a number is enough if frames have no names of their own
        if (index := frames.find(exact)) is not None:
            return index, True
    numbers = _numbers(name)
    if by_number is None:
        return None, False
    if by_number:
        return by_number.get(numbers), False
    return (numbers[0] if len(numbers) == 1 else None), False


def _by_number(frames: FrameSource) -> dict[tuple[int, ...], int] | None:
    """{numbers in the name of a frame: index}. Empty if the names are the indices; None if names are
    ambiguous.
    """
    if frames.count is None or not frames.exact or frames.count > 1_000_000:
        return {} if frames.find("00000") == 0 else None
    names = [frames.name(index) for index in range(frames.count)]
    if all(name == f"{index:05d}" for index, name in enumerate(names)):
        return {}
    numbers = {_numbers(name): index for index, name in enumerate(names)}
    return numbers if len(numbers) == len(names) else None


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"[0-9]{1,18}", name))


def _there(index: int, frames: FrameSource) -> bool:
    return not (frames.exact and frames.count is not None and index >= frames.count)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _tell(note: str) -> None:
    notice(note, stacklevel=3)
