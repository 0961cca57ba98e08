"""The earlier states of a project's masks, so that edits can be undone and redone, also after a restart."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from emavos.ui.facts import (
    LARGEST_ID,
    MOST_VERSIONS,
    fit_name,
    ids_by_frame,
    labels_of,
    number_in,
    number_of,
    numbers_by_frame,
    settings_of,
    whole_in,
)
from emavos.ui.folder import Folder

MOST = 50  # states that are kept
_NAMED = re.compile(r"(\d{6})\.json", re.ASCII)


@dataclass(frozen=True)
class Tracked:
    """What is known of a tracked frame.

    sure: {id: confidence in [0, 1]}.
    version: number in the name of the frame's file in masks/.
    back: whether the mask also depends on masks of later frames.
    """

    sure: dict[int, float]
    version: int = 0
    back: bool = False


@dataclass(frozen=True)
class Snapshot:
    """All that an edit of the masks may change: `given`, `revisions`, `hidden` as in `Facts`, and the track.

    track: {frame: Tracked}.
    settings: those that `track` was made with.
    what: the edit that followed this state, in words for the page; empty if none did.
    frame: the frame of that edit.
    labels: {id: name} of the objects which that edit removed.
    """

    given: dict[int, tuple[int, ...]]
    revisions: dict[int, int]
    hidden: dict[int, int]
    track: dict[int, Tracked] = field(default_factory=dict)
    settings: dict[str, Any] | None = None
    what: str = ""
    frame: int = 0
    labels: dict[int, str] = field(default_factory=dict)

    def first_difference(self, other: Snapshot) -> int:
        """The first frame whose given mask differs; the tracked masks before it are equal."""
        frames = {*self.given, *other.given}
        return min((i for i in frames if self._of(i) != other._of(i)), default=1 << 53)

    def _of(self, index: int) -> object:
        return self.given.get(index), self.revisions.get(index, 0)


class History:
    """A folder with numbered snapshots. The project counts its edits; snapshot n is the state after n edits.

    folder: folder of the files.
    count: number of frames of the video.
    """

    def __init__(self, files: Folder, count: int) -> None:
        self._files = files
        self._count = count
        matches = (_NAMED.fullmatch(name) for name in files.names())
        self._numbers = {int(match[1]) for match in matches if match}

    def has(self, number: int) -> bool:
        return number in self._numbers

    def write(self, number: int, snapshot: Snapshot) -> None:
        self._files.write(f"{number:06d}.json", json.dumps(asdict(snapshot)).encode())
        self._numbers.add(number)

    def read(self, number: int) -> Snapshot:
        """A snapshot. Raises ValueError if the file is damaged."""
        name = f"{number:06d}.json"
        try:
            facts = json.loads(self._files.read(name))
            track = {number_of(i, self._count): tracked_of(fact) for i, fact in facts["track"].items()}
            return Snapshot(
                ids_by_frame(facts["given"], self._count),
                numbers_by_frame(facts["revisions"], self._count),
                numbers_by_frame(facts["hidden"], self._count),
                track,
                settings_of(facts["settings"]),
                fit_name(str(facts["what"])),
                whole_in(facts["frame"], 0, self._count - 1),
                labels_of(facts.get("labels", {})),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise ValueError(
                f"{self._files.path / name} is damaged, so this is not possible: {error}"
            ) from error

    def all(self) -> list[Snapshot]:
        """All snapshots that can be read."""
        snapshots = []
        for number in sorted(self._numbers):
            try:
                snapshots.append(self.read(number))
            except (ValueError, OSError):
                continue
        return snapshots

    def keep(self, first: int, last: int) -> bool:
        """Remove the snapshots outside of a range of numbers; returns whether there were any."""
        gone = {number for number in self._numbers if not first <= number <= last}
        for number in gone:
            self._files.remove(f"{number:06d}.json")
        self._numbers -= gone
        return bool(gone)


def tracked_of(fact: dict[str, object]) -> Tracked:
    """A tracked frame from its checked JSON."""
    sure = fact["sure"]
    if not isinstance(sure, dict):
        raise TypeError("it has no confidence for each object")
    of = {number_of(id, LARGEST_ID + 1): number_in(x, 0, 1) for id, x in sure.items()}
    return Tracked(of, whole_in(fact.get("version", 0), 0, MOST_VERSIONS), fact.get("back") is True)
