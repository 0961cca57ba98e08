"""Which objects of a project are hidden, shown alone, or locked against painting."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from emavos.ui.facts import LARGEST_ID, whole_in
from emavos.ui.folder import Folder

_FILE = "switches.json"  # beside project.json, since objects may be switched while a job changes that


@dataclass(frozen=True)
class Switches:
    """The objects that are switched; no mask depends on them.

    hidden: ids of objects that are not drawn.
    locked: ids of objects whose pixels are left alone.
    alone: id of the only object that is drawn, or None.
    """

    hidden: tuple[int, ...] = ()
    locked: tuple[int, ...] = ()
    alone: int | None = None

    def without(self, id: int) -> Switches:
        """The same switches, with all of one object off."""
        hidden, locked = (tuple(one for one in ids if one != id) for ids in (self.hidden, self.locked))
        return Switches(hidden, locked, None if self.alone == id else self.alone)


def parse_switches(text: bytes) -> Switches:
    """The switches in JSON, as `write_switches` writes them. Raises ValueError if they are invalid."""
    try:
        facts = json.loads(text)
        hidden, locked = (sorted({*map(_id, facts[name])}) for name in ("hidden", "locked"))
        alone = None if facts["alone"] is None else _id(facts["alone"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"these are not switches, which are lists of ids for hidden and locked: {error}"
        ) from error
    return Switches(tuple(hidden), tuple(locked), alone)


def _id(value: object) -> int:
    return whole_in(value, 1, LARGEST_ID)


def read_switches(files: Folder) -> Switches:
    """The switches of a project; none is on if the file is missing or damaged."""
    try:
        return parse_switches(files.read(_FILE))
    except (OSError, ValueError):
        return Switches()


def write_switches(files: Folder, switches: Switches) -> None:
    files.write(_FILE, json.dumps(asdict(switches)).encode())
