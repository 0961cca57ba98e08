"""The contents of project.json: facts about the video, and the objects given on each frame."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from emavos.io.images import MAX_PIXELS
from emavos.ui.folder import Folder

FILE = "project.json"
LARGEST_ID = 255  # largest id of a palette PNG and of the page's 8-bit masks
MOST_FRAMES = 10**6  # frames of a project: nine hours at 30 frames per second
_FORMAT = 2
_READABLE = (1, 2)  # 1 had no history
LONGEST_LABEL = 60  # letters of the name of an object
MOST_EDITS = 999_000  # of a project; their numbers have six digits
MOST_VERSIONS = 10**12  # of a frame's mask; a number in the mask's file name
_LONGEST_NAME = 255  # letters
_LONGEST_SETTINGS = 10_000  # letters in JSON
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\ud800-\udfff]")


@dataclass(frozen=True)
class Facts:
    """A project's facts about its video, beside the files in its folder.

    name: name of the video.
    fps: frames per second, or None.
    size: (H, W) of the frames.
    count: number of frames.
    names: names of the frames, or None if frames are named by their numbers.
    settings: settings of the predictor used for tracking, or None before tracking.
    given: {frame: ids given on the frame}.
    revisions: {frame: number of earlier masks given}, part of the mask's file name.
    hidden: {frame: the largest version of its tracked mask that is not shown as outdated}.
    generation: version of the masks that are tracked next, part of their file names.
    step: number of edits, less those undone.
    labels: {id: name that the user gave to the object}.
    origin: tells the video apart from others, as `shelf.origin_of`; empty if unknown.
    """

    name: str
    fps: float | None
    size: tuple[int, int]
    count: int
    names: list[str] | None = None
    settings: dict[str, Any] | None = None
    given: dict[int, tuple[int, ...]] = field(default_factory=dict)
    revisions: dict[int, int] = field(default_factory=dict)
    hidden: dict[int, int] = field(default_factory=dict)
    generation: int = 0
    step: int = 0
    origin: str = ""
    labels: dict[int, str] = field(default_factory=dict)


def read_facts(files: Folder) -> Facts:
    """Read the facts of a folder. Raises ValueError or any parsing error if the file is invalid."""
    facts = json.loads(files.read(FILE))
    if facts["format"] not in _READABLE:
        raise ValueError(f"its format is {facts['format']!r:.20}; this version reads up to {_FORMAT}")
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
        settings_of(facts["settings"]),
        ids_by_frame(facts["given"], count),
        numbers_by_frame(facts.get("revisions", {}), count),
        numbers_by_frame(facts.get("hidden", {}), count),
        whole_in(facts.get("generation", 0), 0, MOST_VERSIONS),
        whole_in(facts.get("step", 0), 0, MOST_EDITS),
        _of(str, facts.get("origin", ""))[:64],
        labels_of(facts.get("labels", {})),
    )


def write_facts(files: Folder, facts: Facts) -> None:
    """Write the facts to a folder, atomically."""
    revisions = {index: number for index, number in facts.revisions.items() if number}
    content = {"format": _FORMAT, **asdict(facts), "revisions": revisions}
    files.write(FILE, json.dumps(content).encode())


def ids_by_frame(given: dict[str, list[object]], count: int) -> dict[int, tuple[int, ...]]:
    """{frame: ids} from its checked JSON."""
    return {number_of(index, count): _ids(ids) for index, ids in given.items()}


def _ids(ids: list[object]) -> tuple[int, ...]:
    if len(ids) > LARGEST_ID:
        raise ValueError(f"it has {len(ids)} ids on a frame, of at most {LARGEST_ID}")
    return tuple(whole_in(id, 1, LARGEST_ID) for id in ids)


def numbers_by_frame(numbers: dict[str, object], count: int) -> dict[int, int]:
    """{frame: number} from its checked JSON."""
    return {number_of(index, count): whole_in(number, 0, MOST_VERSIONS) for index, number in numbers.items()}


def labels_of(labels: dict[str, object]) -> dict[int, str]:
    """{id: name of the object} from its checked JSON."""
    named = {number_of(id, LARGEST_ID + 1): _of(str, label) for id, label in labels.items()}
    return {id: fit_name(label)[:LONGEST_LABEL] for id, label in named.items() if label}


def settings_of(settings: object) -> dict[str, Any] | None:
    """Settings from their JSON: numbers and words, as in `emavos.settings.Settings.facts`; None without any.

    Lists and objects of these are accepted too. Raises ValueError for settings nested deeper, or too long.
    """
    if settings is None:
        return None
    facts: dict[str, Any] = _of(dict, settings)
    for fact in facts.values():
        inner = fact.values() if isinstance(fact, dict) else fact if isinstance(fact, list) else ()
        if any(isinstance(one, dict | list) for one in inner):
            raise ValueError("its settings are not numbers and words")
    if len(json.dumps(facts)) > _LONGEST_SETTINGS:
        raise ValueError(f"its settings have more than {_LONGEST_SETTINGS:,} letters")
    return facts


def fit_name(name: str) -> str:
    """Replace the characters of a name that do not fit a file name, a page or a terminal."""
    return _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME]


def whole_in(value: object, least: int, most: int) -> int:
    """Returns the value; raises ValueError unless it is a whole number within the range."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"it has {value!r:.40} where it should have a number from {least} to {most}")
    return value


def number_in(value: object, least: float, most: float) -> float:
    """Returns the value; raises ValueError unless it is a number within the range."""
    if type(value) not in (int, float) or not (isinstance(value, (int, float)) and least <= value <= most):
        raise ValueError(f"it has {value!r:.40} where it should have a number from {least} to {most}")
    return float(value)


def number_of(key: str, count: int) -> int:
    """The number in a JSON key. Raises ValueError unless the number is below `count`."""
    if not re.fullmatch(r"\d{1,7}", key, re.ASCII):
        raise ValueError(f"it has {key!r:.40} where it should have a number")
    return whole_in(int(key), 0, count - 1)


def _of(kind: type[Any], value: object) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"it has {value!r:.40} where it should have a {kind.__name__}")
    return value


def _names(names: object, count: int) -> list[str] | None:
    """Checked names of frames, used as file names in downloads."""
    if names is None:
        return None
    if not isinstance(names, list) or len(names) != count:
        raise ValueError(f"it has not a name for each of its {count} frames")
    for name in names:
        if not isinstance(name, str) or _NOT_IN_NAMES.search(name) or not 0 < len(name) <= _LONGEST_NAME:
            raise ValueError(f"{name!r:.40} is not the name of a frame")
    if len({*names}) < count:
        raise ValueError("two of its frames have one name")
    return names
