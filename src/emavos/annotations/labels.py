"""The list of labels that a tool exports beside its masks: names in order, and their colours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emavos.io.ids import IdMask
from emavos.io.images import PathLike
from emavos.io.text import read_text

# How the tools call their lists: CVAT and Datumaro, CamVid, YOLO and Label Studio.
LABEL_FILES = ("labelmap.txt", "label_colors.txt", "classes.txt", "obj.names")
BACKGROUNDS = frozenset({"background", "_background_", "__background__", "__ignore__"})
MOST_COLOURS = 256  # of a set of masks that are numbered; more are smoothed, or a photograph
_MOST = 65535
_WHAT = "a list of labels"

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class LabelMap:
    """Labels in the order of their list; the first one is object 1.

    names: {id: name}.
    colours: {(red, green, blue): id}, 0 for the background; empty if the list has no colours.
    source: the file, for errors.
    """

    names: dict[int, str]
    colours: dict[Colour, int]
    source: str

    @classmethod
    def of(cls, entries: Sequence[tuple[str, Colour | None]], source: str) -> LabelMap:
        """Labels numbered from 1. A label of the background is 0; without one, black is the background."""
        if not 0 < len(entries) <= _MOST:
            raise ValueError(f"it has {len(entries)} labels; 1 to {_MOST} are read")
        names, colours = dict[int, str](), dict[Colour, int]()
        for name, colour in entries:
            id = 0 if name.lower() in BACKGROUNDS else len(names) + 1
            if id:
                names[id] = name
            if colour is not None and colours.setdefault(colour, id) != id:
                other = names.get(colours[colour], "the background")
                raise ValueError(f"{name!r:.60} has the colour of {other!r:.60}, {hex_of(colour)}")
        if colours and 0 not in colours.values():
            colours.setdefault((0, 0, 0), 0)
        return cls(names, colours, source)

    def ids_of(self, image: Image.Image, name: str) -> IdMask:
        """The ids (H, W) of a picture in the colours of the list.

        name: of the picture, for errors.

        Raises ValueError if the picture has a colour that is not listed.
        """
        if not self.colours:
            raise ValueError(f"{self.source} has no colours; it cannot number those of {name}")
        label_colours = np.array([_packed(colour) for colour in self.colours])
        order, ids = np.argsort(label_colours), np.array([*self.colours.values()], np.int32)
        pixels = np.array(image.convert("RGBA"))
        packed = pixels[..., :3].astype(np.int64) @ np.array([65536, 256, 1])
        packed[pixels[..., 3] == 0] = next(_packed(c) for c, id in self.colours.items() if id == 0)
        places = order[np.searchsorted(label_colours, packed, sorter=order).clip(max=len(label_colours) - 1)]
        if (lost := label_colours[places] != packed).any():
            colours, counts = np.unique(packed[lost], return_counts=True)
            first = int(colours[counts.argmax()])
            raise ValueError(
                f"{name} has {len(colours)} colours that {self.source} does not list, such as "
                f"{hex_of((first >> 16, first >> 8 & 255, first & 255))} in {int(counts.max())} pixels"
            )
        return ids[places]


def read_labels(path: PathLike) -> LabelMap:
    """The labels of a file: `labelmap.txt` (CVAT), `label_colors.txt` (CamVid), `classes.txt` (YOLO), the
    JSON of CVAT's raw labels or {"name": "#rrggbb"}, or Label Studio's XML of a labelling interface.

    Raises ValueError with the name of the file if the file is none of these.
    """
    text, suffix = read_text(path, _WHAT), Path(path).suffix.lower()
    try:
        if suffix == ".json":
            entries = [*_of_json(json.loads(text))]
        elif suffix == ".xml":
            entries = _of_xml(text)
        else:
            entries = [*_of_lines(text)]
        return LabelMap.of(entries, str(path))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not {_WHAT}: {error!s:.200}") from error


def find_labels(place: Path) -> LabelMap | None:
    """The list beside a mask or a folder of masks, at the place used by its tool; None if there is none."""
    path = label_file(place)
    return None if path is None else read_labels(path)


def label_file(place: Path) -> Path | None:
    """The file that `find_labels` reads."""
    folder = place if place.is_dir() else place.parent
    places = (home / name for home in (folder, folder.parent) for name in LABEL_FILES)
    return next((path for path in places if path.is_file()), None)


def number_colours(pictures: Iterable[NDArray[np.uint8]], background: Colour = (0, 0, 0)) -> LabelMap:
    """A list of the colours of pictures (H, W, 3), from 1 as they first appear, the largest first."""
    entries: dict[Colour, None] = {background: None}
    for pixels in pictures:
        packed = pixels.astype(np.int64) @ np.array([65536, 256, 1])
        values, counts = np.unique(packed, return_counts=True)
        for value in values[np.argsort(-counts, kind="stable")].tolist():
            entries.setdefault((value >> 16, value >> 8 & 255, value & 255))
        if len(entries) > MOST_COLOURS:
            raise ValueError(
                f"the masks have more than {MOST_COLOURS} colours, which are too many for objects; draw them "
                f"without smoothing"
            )
    listed = [("background" if c == background else hex_of(c), c) for c in entries]
    return LabelMap.of(listed, "the colours")


def hex_of(colour: Sequence[int]) -> str:
    """ "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def colour_of(text: str) -> Colour:
    """The colour of "#rrggbb" or "red,green,blue". Raises ValueError for other texts."""
    if re.fullmatch("#[0-9a-fA-F]{6}", text):
        return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
    parts = text.replace(",", " ").split()
    if len(parts) != 3 or not all(part.isdecimal() and int(part) < 256 for part in parts):
        raise ValueError(f"{text!r:.60} is not a colour; write #rrggbb or red,green,blue")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _packed(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _of_lines(text: str) -> Iterator[tuple[str, Colour | None]]:
    for line in map(str.strip, text.splitlines()):
        if not line or line[0] == "#":
            continue
        if camvid := re.fullmatch(r"(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(\S.*)", line):
            yield camvid[4], colour_of(" ".join(camvid.groups()[:3]))
        elif cvat := re.fullmatch(r"([^:]+):(\d{1,3},\d{1,3},\d{1,3})?:[^:]*:[^:]*", line):
            yield cvat[1], colour_of(cvat[2]) if cvat[2] else None
        elif len(line) < 200 and ":" not in line:
            yield line, None
        else:
            raise ValueError(f"{line!r:.60} is not a label")


def _of_json(content: Any) -> Iterator[tuple[str, Colour | None]]:
    pairs = (
        content.items()
        if isinstance(content, dict)
        else [(label["name"], label.get("color", label.get("colour"))) for label in content]
    )
    for name, colour in pairs:
        if isinstance(colour, list) and all(type(v) is int for v in colour):
            colour = ",".join(map(str, colour))
        if not isinstance(name, str) or not (colour is None or isinstance(colour, str)):
            raise ValueError(f"{name!r:.60} has no colour such as #rrggbb")
        yield name, None if colour is None else colour_of(colour)


def _of_xml(text: str) -> list[tuple[str, Colour | None]]:
    labels: list[tuple[str, Colour | None]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "Label":
            colour = attributes.get("background", "")
            labels.append((attributes["value"], colour_of(colour) if colour.startswith("#") else None))

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.StartDoctypeDeclHandler = start, refuse
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise ValueError(f"it is not XML: {error}") from error
    return labels
