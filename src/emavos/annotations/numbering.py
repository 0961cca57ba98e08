"""Decides which shapes are one object, and the id of each object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emavos.annotations.labels import BACKGROUNDS
from emavos.annotations.shapes import Picture, Shape

_MOST, _VOID = 65535, 255  # ids of files


@dataclass(frozen=True)
class Numbered:
    """The ids of all shapes.

    ids: for each picture, for each of its shapes.
    names: {id: label}.
    note: a remark for the user if the result may surprise; otherwise "".
    """

    ids: tuple[tuple[int, ...], ...]
    names: dict[int, str]
    note: str = ""


def number_objects(pictures: Sequence[Picture], labels: Mapping[int, str]) -> Numbered:
    """The ids of shapes that lie in one or more frames.

    labels: {id: name} from a list of labels. If objects are distinguished by label, they get these ids.

    The first rule that applies decides:

    * The tool has ids of objects: these.
    * Every shape is in a group, no group has two labels, and the numbers of the groups are ids of files (1 to
      65535, except 255, the void): the numbers of the groups.
    * All labels are numbers: these.
    * Only one frame is annotated: an id for each shape, and one id for all shapes of a group.
    * Otherwise: an id for each label and group, because no other link connects shapes of two frames.

    A label called "background" has id 0.
    """
    shapes = [shape for picture in pictures for shape in picture.shapes if not _is_background(shape)]
    if shapes and all(shape.id is not None for shape in shapes):
        return _numbered(pictures, {shape: shape.id or 0 for shape in shapes})
    if shapes and _are_objects(shapes):
        return _numbered(pictures, {shape: int(shape.group) for shape in shapes})
    if shapes and all(is_id(shape.label) for shape in shapes) and not labels:
        return _numbered(pictures, {shape: int(shape.label) for shape in shapes})
    if sum(bool(picture.shapes) for picture in pictures) == 1:
        keys: dict[object, int] = {}
        return _numbered(
            pictures,
            {
                shape: keys.setdefault((shape.label, shape.group) if shape.group else place, len(keys) + 1)
                for place, shape in enumerate(shapes)
            },
        )
    id_of = {(name, ""): id for id, name in labels.items()}
    for shape in shapes:
        id_of.setdefault((shape.label, shape.group), max(id_of.values(), default=0) + 1)
    return _numbered(
        pictures, {shape: id_of[shape.label, shape.group] for shape in shapes}, note=_note_of(pictures)
    )


def _are_objects(shapes: Sequence[Shape]) -> bool:
    """Whether every shape is in a group, all numbers are ids of files, and no group has two labels."""
    label_of: dict[str, str] = {}
    return all(
        is_id(s.group)
        and 0 < int(s.group) <= _MOST
        and int(s.group) != _VOID
        and label_of.setdefault(s.group, s.label) == s.label
        for s in shapes
    )


def _numbered(pictures: Sequence[Picture], ids: Mapping[Shape, int], note: str = "") -> Numbered:
    if wrong := [id for id in ids.values() if id == 0 or not -(2**31) <= id < 2**31]:
        raise ValueError(f"an id is a whole number of 32 bits other than 0, the background, not {wrong[0]}")
    numbers = tuple(tuple(ids.get(shape, 0) for shape in picture.shapes) for picture in pictures)
    return Numbered(numbers, {ids[shape]: shape.label for shape in ids}, note)


def _note_of(pictures: Sequence[Picture]) -> str:
    """A note if a frame has several shapes of one label and group, which become one object; otherwise ""."""
    for picture in pictures:
        counts = Counter((s.label, s.group) for s in picture.shapes if not _is_background(s))
        if counts and (most := counts.most_common(1)[0])[1] > 1:
            (label, _), count = most
            return (
                f"{count} shapes of {label!r:.60} in {picture.name} are one object, as those of one label "
                f"are; "
                "to track them apart, give them labels or groups of their own"
            )
    return ""


def _is_background(shape: Shape) -> bool:
    return shape.label.lower() in BACKGROUNDS


def is_id(label: str) -> bool:
    """Whether a label is a whole number other than 0."""
    digits = label.removeprefix("-")
    return digits.isdecimal() and len(digits) < 11 and int(digits) > 0
