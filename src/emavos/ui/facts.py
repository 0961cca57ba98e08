"""The facts of a project, in its project.json: what the video is, and which objects were given where."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from emavos.io.images import MAX_PIXELS
from emavos.ui.folder import Folder

FILE = "project.json"
LARGEST_ID = 255  # of a palette PNG, and of a byte of the page
MOST_FRAMES = 10**6  # of a project: nine hours of 30 a second
_FORMAT = 1
_LONGEST_NAME = 255  # letters
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\ud800-\udfff]")


@dataclass(frozen=True)
class Facts:
    """What a project knows of its video beside the files in its folder.

    name: of the video. fps: its frames per second, or None. size: (H, W) of its frames. count: of frames.
    names: of the frames, if they are not their numbers.
    settings: of the predictor that tracked it.
    given: {frame: the ids whose masks are known on it}.
    revisions: how often the mask of a frame was given before, which is part of the name of its file.
    """

    name: str
    fps: float | None
    size: tuple[int, int]
    count: int
    names: list[str] | None = None
    settings: dict[str, Any] | None = None
    given: dict[int, tuple[int, ...]] = field(default_factory=dict)
    revisions: dict[int, int] = field(default_factory=dict)


def read_facts(files: Folder) -> Facts:
    """The facts of a folder. Raises ValueError, or whatever parsing does, if they are none."""
    facts = json.loads(files.read(FILE))
    if facts["format"] != _FORMAT:
        raise ValueError(f"its format is {facts['format']!r:.20}; this version reads {_FORMAT}")
    name = fit_name(_of(str, facts["name"]))
    fps = None if facts["fps"] is None else number_in(facts["fps"], 0.001, 10_000)
    height, width = (whole_in(side, 1, MAX_PIXELS) for side in facts["size"])
    if height * width > MAX_PIXELS:
        raise ValueError(f"its frames are {height}x{width}, beyond {MAX_PIXELS} pixels")
    count = whole_in(facts["count"], 1, MOST_FRAMES)
    return Facts(
        name,
        fps,
        (height, width),
        count,
        _names(facts["names"], count),
        None if facts["settings"] is None else _of(dict, facts["settings"]),
        {
            number_of(index, count): tuple(whole_in(id, 1, LARGEST_ID) for id in ids)
            for index, ids in facts["given"].items()
        },
        {
            number_of(index, count): whole_in(revision, 0, 1 << 53)
            for index, revision in facts.get("revisions", {}).items()
        },
    )


def write_facts(files: Folder, facts: Facts) -> None:
    """Write them, whole or not at all."""
    revisions = {index: number for index, number in facts.revisions.items() if number}
    content = {"format": _FORMAT, **asdict(facts), "revisions": revisions}
    files.write(FILE, json.dumps(content).encode())


def fit_name(name: str) -> str:
    """A name that can be that of a file, on a page and in a terminal."""
    return _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME]


def whole_in(value: object, least: int, most: int) -> int:
    """The value; ValueError unless it is a whole number in this range."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"it has {value!r:.40} where it should have a number from {least} to {most}")
    return value


def number_in(value: object, least: float, most: float) -> float:
    """The value; ValueError unless it is a number in this range."""
    if type(value) not in (int, float) or not (isinstance(value, (int, float)) and least <= value <= most):
        raise ValueError(f"it has {value!r:.40} where it should have a number from {least} to {most}")
    return float(value)


def number_of(key: str, count: int) -> int:
    """A number that is the key of an object in JSON, below `count`."""
    if not re.fullmatch(r"\d{1,7}", key, re.ASCII):
        raise ValueError(f"it has {key!r:.40} where it should have a number")
    return whole_in(int(key), 0, count - 1)


def _of(kind: type[Any], value: object) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"it has {value!r:.40} where it should have a {kind.__name__}")
    return value


def _names(names: object, count: int) -> list[str] | None:
    """Names of frames, which become names of files in downloads."""
    if names is None:
        return None
    if not isinstance(names, list) or len(names) != count:
        raise ValueError(f"it has not a name for each of its {count} frames")
    for name in names:
        if not isinstance(name, str) or _NOT_IN_NAMES.search(name) or not 0 < len(name) <= _LONGEST_NAME:
            raise ValueError(f"{name!r:.40} is no name of a frame")
    if len({*names}) < count:
        raise ValueError("two of its frames have one name")
    return names
