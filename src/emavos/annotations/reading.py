"""Masks in the files of annotation tools, whichever tool wrote them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emavos.annotations.coco import read_coco
from emavos.annotations.cvat import read_cvat
from emavos.annotations.labelme import read_labelme
from emavos.annotations.labels import LABEL_FILES, LabelMap, find_labels, read_labels
from emavos.annotations.labelstudio import read_label_studio
from emavos.annotations.numbering import Numbered, is_id, number_objects
from emavos.annotations.shapes import Picture, Size
from emavos.annotations.via import read_via
from emavos.annotations.yolo import read_yolo
from emavos.annotations.youtubevis import read_youtube_vis
from emavos.io.ids import IdMask
from emavos.io.images import IMAGE_SUFFIXES, PathLike
from emavos.io.notices import notice
from emavos.io.opening import natural_order
from emavos.io.text import read_json, read_text

SUFFIXES = (".json", ".xml", ".txt")
_WHAT = "a file of annotations"
_WRONG = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)  # raised by files of another structure


@dataclass(frozen=True)
class Annotations:
    """The masks of some frames of a video, as an annotation tool saved them.

    kind: the tool or format.
    pictures: the frames that have a mask.
    names: {id: label}.
    path: the file or folder, for errors.
    """

    kind: str
    path: str
    pictures: tuple[Picture, ...]
    ids: tuple[tuple[int, ...], ...]
    names: dict[int, str]

    def __len__(self) -> int:
        return len(self.pictures)

    def mask(self, place: int, size: Size | None = None) -> IdMask:
        """The mask (H, W) of ids of a frame, drawn now.

        place: of the frame among `pictures`.
        size: (H, W) of the frame; required if the format does not contain the size.

        Raises ValueError if the size is unknown, or differs from the size in the file.
        """
        picture, ids = self.pictures[place], self.ids[place]
        plane_size = size or picture.size
        if plane_size is None:
            raise ValueError(
                f"{self.path} does not say how large its frames are ({self.kind} never does); pass the "
                "frames too: --frames VIDEO of `emavos masks`, or size= here"
            )
        if size is not None and picture.size is not None and size != picture.size:
            have, want = ("x".join(map(str, s)) for s in (picture.size, size))
            raise ValueError(
                f"{self.path}: {picture.name} was annotated at {have} but its frame is {want} (height x "
                f"width)"
            )
        with _of_stranger(self.path, f"{_WHAT} that can be read ({picture.name})"):
            mask = np.zeros(plane_size, np.int32)
            for id, shape in sorted(zip(ids, picture.shapes, strict=True), key=lambda one: one[1].height):
                shape.draw(plane_size).put(mask, id)
            return mask


def read_annotations(path: PathLike, labels: LabelMap | None = None) -> Annotations:
    """The masks in a file or folder of Labelme, COCO, YouTube-VIS, Label Studio, VIA (JSON), CVAT (XML) or
    YOLO (text).

    labels: names in order, which set the ids of objects; None: the list beside the file, if there is one. See
        `emavos.annotations.numbering.number_objects` for the rules.

    Boxes, lines and points are left out, with an `InputWarning`.

    Raises ValueError with the name of the file if the file is damaged, of another kind, or without a mask.
    """
    path = with_labels(Path(path))
    files = annotation_files(path) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no annotations ({', '.join(SUFFIXES)})")
    kinds, pictures, own = Counter[str](), list[Picture](), dict[int, str]()
    for file in files:
        kind, some, names = _read(file)
        kinds[kind] += 1
        pictures.extend(some)
        own.update(names)
    if len(kinds) > 1:
        raise ValueError(f"{path} holds files of {' and '.join(kinds)}; keep those of one tool")
    (kind,) = kinds
    if labels is None:
        labels = find_labels(path)
    names_of_ids = labels.names if labels is not None else own
    if kind == "YOLO" and labels is not None:
        pictures = [_with_names(picture, names_of_ids) for picture in pictures]
    if labels is not None and all(map(is_id, names_of_ids.values())):  # as masks without names are written
        names_of_ids = {}
    with _of_stranger(path, _WHAT):
        numbered = number_objects(pictures, names_of_ids)
    _tell(path, pictures, numbered)
    kept = [place for place, picture in enumerate(pictures) if any(numbered.ids[place])]
    if not kept:
        boxes = any("box" in picture.left_out for picture in pictures)
        raise ValueError(
            f"{path} has no mask" + ("; it has boxes only, which are not masks" if boxes else "")
        )
    return Annotations(
        kind,
        os.fspath(path),
        tuple(pictures[place] for place in kept),
        tuple(numbered.ids[place] for place in kept),
        numbered.names,
    )


def read_names(path: PathLike, labels: LabelMap | None = None) -> dict[int, str]:
    """The names of objects by id: in annotations, or in a list of labels such as classes.txt.

    labels: a list that numbers the objects of annotations, see `read_annotations`.

    Raises ValueError with the name of the file if the file has no names.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() != ".txt":
        try:
            return dict(read_annotations(path, labels).names)
        except ValueError as error:
            if path.is_dir():
                raise
            try:
                return read_labels(path).names
            except ValueError:
                raise error from None
    return read_labels(path).names


def with_labels(path: Path) -> Path:
    """The folder of labels in a YOLO data set, as exported; another path as it is."""
    labels = path / "labels"
    is_export = labels.is_dir() and not any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir())
    return labels if is_export and any(file.suffix == ".txt" for file in labels.iterdir()) else path


def annotation_files(folder: Path) -> list[Path]:
    """The files of a folder that may be annotations of an image each, in natural order."""
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES
        and file.name[0] != "."
        and file.name not in (*LABEL_FILES, "notes.json")
    ]
    return natural_order(files)


def _read(path: Path) -> tuple[str, list[Picture], dict[int, str]]:
    """The tool that wrote a file, its annotated frames, and the names of its labels by id."""
    suffix = path.suffix.lower()
    if suffix == ".xml":
        text = read_text(path, _WHAT)
        with _of_stranger(path, "a file of CVAT"):
            pictures, labels = read_cvat(text)
            numbered = all(is_id(label) for label in labels)  # as masks without names are written
            return "CVAT", pictures, {} if numbered else dict(enumerate(labels, 1))
    if suffix == ".txt":
        text = read_text(path, _WHAT)
        with _of_stranger(path, "a file of YOLO"):
            picture = read_yolo(text, path.stem)
            return "YOLO", [picture], {int(shape.label) + 1: shape.label for shape in picture.shapes}
    content = read_json(path, _WHAT)
    with _of_stranger(path, f"{_WHAT} of Labelme, COCO, Label Studio or VIA"):
        return _of_json(content, path.stem)


def _of_json(content: Any, name: str) -> tuple[str, list[Picture], dict[int, str]]:
    if (
        isinstance(content, list)
        and content
        and all(isinstance(t, Mapping) and "annotations" in t for t in content)
    ):
        return "Label Studio", read_label_studio(content), {}
    if isinstance(content, list) and any(isinstance(t, Mapping) and "annotator" in t for t in content):
        raise ValueError("it looks like JSON-MIN of Label Studio, which is not read; export as JSON")
    if not isinstance(content, Mapping):
        raise ValueError("it has neither shapes, images and annotations, tasks nor regions")
    if "shapes" in content:
        return "Labelme", [read_labelme(content, name)], {}
    if "videos" in content and "annotations" in content:
        pictures, categories = read_youtube_vis(content)
        return "YouTube-VIS", pictures, {id: label for id, label in categories.items() if id > 0}
    if "images" in content and "annotations" in content:
        pictures, categories = read_coco(content)
        return "COCO", pictures, {id: label for id, label in categories.items() if id > 0}
    images = content.get("_via_img_metadata", content)
    if (
        isinstance(images, Mapping)
        and images
        and all(isinstance(i, Mapping) and "regions" in i for i in images.values())
    ):
        return "VIA", read_via(content), {}
    raise ValueError("it has neither shapes, images and annotations, tasks nor regions")


def _with_names(picture: Picture, names: Mapping[int, str]) -> Picture:
    """A frame of YOLO with the names of its classes instead of their numbers, which count from 0."""
    shapes = [replace(s, label=names.get(int(s.label) + 1, s.label)) for s in picture.shapes]
    return replace(picture, shapes=tuple(shapes))


def _tell(path: Path, pictures: Sequence[Picture], numbered: Numbered) -> None:
    left_out = Counter(kind for picture in pictures for kind in picture.left_out)
    notes = [numbered.note] if numbered.note else []
    if left_out and any(map(any, numbered.ids)):
        what = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        notes.append(f"left out, as they enclose no mask: {what:.100}")
    if notes:
        notice(f"{path}: {'; '.join(notes)}", stacklevel=4)


@contextmanager
def _of_stranger(path: PathLike, what: str) -> Iterator[None]:
    """Turn every error about a file of another structure into a ValueError with the name of the file."""
    try:
        yield
    except _WRONG as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
        raise ValueError(f"{os.fspath(path)} is not {what}: {reason:.300}") from error
