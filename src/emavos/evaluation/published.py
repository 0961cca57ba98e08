"""The tables of Kim and Hong (JBE 28(5), 2023): published results beside results measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Published:
    """One line of a table: results on DAVIS 2017 val, in percent."""

    method: str
    JF: float
    J: float
    F: float
    fps: str | None  # as printed ("<6.0" is a bound); None: not in this table
    attention: tuple[str, str] | None = None  # attention of the key encoder and of the value encoder


_NONE, _SELF, _EXTERNAL = "none", "self", "external"

TABLES: Mapping[int, tuple[Published, ...]] = MappingProxyType(
    {
        2: (
            Published("default", 84.8, 81.5, 88.0, "24.5", (_NONE, _NONE)),
            Published("self-attention", 85.3, 81.9, 88.8, "24.3", (_SELF, _SELF)),
            Published("external attention", 85.6, 82.6, 88.6, "24.0", (_EXTERNAL, _EXTERNAL)),
        ),
        3: (
            Published("self, key encoder", 85.2, 82.0, 88.5, None, (_SELF, _NONE)),
            Published("self, value encoder", 84.7, 81.6, 87.8, None, (_NONE, _SELF)),
            Published("self, both", 85.3, 81.9, 88.8, None, (_SELF, _SELF)),
            Published("external, key encoder", 85.1, 81.8, 88.4, None, (_EXTERNAL, _NONE)),
            Published("external, value encoder", 85.2, 82.1, 88.4, None, (_NONE, _EXTERNAL)),
            Published("external, both", 85.6, 82.6, 88.6, None, (_EXTERNAL, _EXTERNAL)),
        ),
        4: (
            Published("STM", 81.8, 79.2, 84.3, "10.2"),
            Published("CFBI", 81.9, 79.1, 84.6, "5.9"),
            Published("KMN", 82.8, 80.0, 85.6, "<8.4"),
            Published("LWL", 81.6, 79.1, 84.1, "<6.0"),
            Published("MiVOS", 84.5, 81.7, 87.4, "11.2"),
            Published("STCN", 84.9, 81.8, 88.0, "24.5", (_NONE, _NONE)),
            Published("external attention", 85.6, 82.6, 88.6, "24.0", (_EXTERNAL, _EXTERNAL)),
        ),
    }
)


@dataclass(frozen=True)
class Measured:
    """A model measured here, with scores in [0, 1]."""

    name: str
    trunk: str
    attention: tuple[str, str]  # attention of the key encoder and of the value encoder
    JF: float
    J: float
    F: float
    fps: float


def compare_with_paper(table: int, measured: Sequence[Measured] = (), data: str = "") -> str:
    """A table of the paper as text. Below each line are the models measured here with the same attention.

    table: number of the table, 2 to 4.
    measured: models measured here.
    data: description of the data measured on, such as "davis-2017-val, 30 sequences".

    Raises ValueError if there is no such table.
    """
    if table not in TABLES:
        raise ValueError(f"the tables are {', '.join(map(str, TABLES))}, not {table}")
    lines = [
        f"Table {table} of Kim and Hong (JBE 28(5), 2023)",
        "published: DAVIS 2017 val, ResNet trunks, by its authors on their machine",
        f"measured:  {data or 'nothing, in this run'}; percent, on this machine",
        "",
        _line("", "", "J&F", "J", "F", "FPS"),
    ]
    for row in TABLES[table]:
        fps = "-" if row.fps is None else row.fps
        lines.append(_line(row.method, "published", f"{row.JF:.1f}", f"{row.J:.1f}", f"{row.F:.1f}", fps))
        same = [one for one in measured if one.attention == row.attention]
        for one in same:
            scores = (f"{100 * value:.1f}" for value in (one.JF, one.J, one.F))
            lines.append(_line(f"  {one.name} ({one.trunk})", "measured", *scores, f"{one.fps:.1f}"))
        if not same:
            lines.append(_line("", "never measured here", "-", "-", "-", "-"))
    return "\n".join(lines)


def _line(method: str, kind: str, *figures: str) -> str:
    return (f"{method:38} {kind:20}" + "".join(f"{figure:>7}" for figure in figures)).rstrip()
