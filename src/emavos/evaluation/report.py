"""Scores as text, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from emavos.evaluation.prediction import Run
from emavos.evaluation.scores import ObjectScore, Score
from emavos.io.whole import replacing, sweep

Cell = str | int | float | None


@dataclass(frozen=True)
class Method:
    """A method's masks of a data set, with its score and its run."""

    name: str
    folder: Path  # with masks at FOLDER/<sequence>/<frame>.png
    score: Score | None = None  # None if the data has no ground truth
    run: Run | None = None  # None if the masks were made elsewhere


@dataclass(frozen=True)
class Table:
    """A table of cells with named columns. Numbers stay unformatted until shown."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def text(self) -> str:
        """The table as aligned text: names to the left, numbers to the right."""
        cells = [self.columns, *([shown(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[c]) for row in cells) for c in range(len(self.columns))]
        numeric = [all(not isinstance(row[c], str) for row in self.rows) for c in range(len(self.columns))]
        lines = (
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, numeric, strict=True)
            )
            for row in cells
        )
        return "\n".join(line.rstrip() for line in lines)

    def csv(self) -> str:
        """The table as CSV with numbers in full; missing values are empty."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([["" if _nothing(cell) else cell for cell in row] for row in self.rows])
        return file.getvalue()


def shown(cell: Cell) -> str:
    """A cell as text: scores with three digits, larger numbers with fewer, missing values as "-"."""
    if _nothing(cell):
        return "-"
    if isinstance(cell, float):
        return f"{cell:.3f}" if abs(cell) < 2 else f"{cell:.2f}" if abs(cell) < 10 else f"{cell:.0f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def overview(methods: Sequence[Method]) -> Table:
    """One row per method: scores, speed, memory and number of parameters."""
    classes = any(method.score is not None and method.score.classes for method in methods)
    more = list(dict.fromkeys(name for m in methods if m.score is not None for name in m.score.more))
    columns = ["method", *(["G"] if classes else []), "J&F", "J", "F", *more]
    columns += [f"{m} {kind}" for kind in ("seen", "unseen") for m in "JF"] if classes else []
    rows = []
    for method in methods:
        score, run = method.score, method.run
        row: list[Cell] = [method.name]
        if classes:
            row.append(score.overall if score else None)
        row += [score.JF, score.J.mean, score.F.mean] if score else [None] * 3
        row += [score.more.get(name) if score else None for name in more]
        if classes:
            parts = score.classes if score else {}
            for kind in ("seen", "unseen"):
                part = parts.get(kind)
                row += [part.J.mean, part.F.mean] if part else [None, None]
        # without a network nothing is tracked, so the speed would mislead
        timed = run is not None and run.parameters is not None
        row += [run.fps if timed else None, run.peak_mb if timed else None] if run else [None, None]
        row.append(run.parameters if run else None)
        rows.append(tuple(row))
    return Table((*columns, "fps", "peak MB", "parameters"), tuple(rows))


def unit_note(methods: Sequence[Method]) -> str:
    """The unit of the speed in `overview`, with the machine; empty if nothing was timed."""
    timed = [method.run for method in methods if method.run is not None and method.run.parameters is not None]
    machines = ", ".join(dict.fromkeys(run.machine for run in timed if run.machine))
    note = "fps: frames tracked per second, without reading and writing"
    return (f"{note} ({machines})" if machines else note) if timed else ""


def by_sequence(methods: Sequence[Method]) -> Table:
    """J&F of each sequence (the mean over its objects), one column per scored method."""
    scored = [method for method in methods if method.score is not None]
    names = list(dict.fromkeys(name for method in scored for name in _scores(method).sequences))
    rows = [
        (name, *(_sequence_mean(_scores(method).sequences.get(name, {})) for method in scored))
        for name in names
    ]
    return Table(("sequence", *(method.name for method in scored)), tuple(rows))


def objects_table(score: Score) -> Table:
    """One row per object of each sequence."""
    rows = [
        (name, i, one.JF, *asdict(one.J).values(), *asdict(one.F).values(), len(one.J_frames))
        for name, objects in score.sequences.items()
        for i, one in objects.items()
    ]
    return Table(("sequence", "object", "J&F", *_STATISTICS, "frames"), tuple(rows))


def sequences_table(score: Score) -> Table:
    """One row per sequence, averaged over its objects."""
    parts = {name: Score({name: objects}) for name, objects in score.sequences.items() if objects}
    rows = [
        (name, part.JF, *asdict(part.J).values(), *asdict(part.F).values(), len(part.objects))
        for name, part in parts.items()
    ]
    return Table(("sequence", "J&F", *_STATISTICS, "objects"), tuple(rows))


def global_table(score: Score) -> Table:
    """The mean over all objects, plus rows for seen and unseen classes if classes are known."""
    parts = {"all": score, **score.classes}
    rows = [
        (name, part.JF, *asdict(part.J).values(), *asdict(part.F).values(), len(part.objects))
        for name, part in parts.items()
    ]
    return Table(("objects", "J&F", *_STATISTICS, "count"), tuple(rows))


def write_scores(score: Score, folder: str | PathLike[str]) -> None:
    """Write `global.csv`, `sequences.csv`, `objects.csv`, and `scores.json` with every frame."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    tables = {"global": global_table, "sequences": sequences_table, "objects": objects_table}
    for name, table in tables.items():
        _write(folder / f"{name}.csv", table(score).csv())
    _write(folder / "scores.json", json.dumps(_finite(to_dict(score)), indent=1) + "\n")


def write_overview(methods: Sequence[Method], facts: Mapping[str, Any], folder: str | PathLike[str]) -> None:
    """Write `overview.csv` and `overview.json` with one line per method.

    facts: plain values for JSON about all methods, added to the JSON file.
    """
    table = overview(methods)
    lines = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    settings = {method.name: None if method.run is None else method.run.settings for method in methods}
    content = {**facts, "methods": lines, "settings": settings}
    Path(folder).mkdir(parents=True, exist_ok=True)
    _write(Path(folder) / "overview.csv", table.csv())
    _write(Path(folder) / "overview.json", json.dumps(_finite(content), indent=1) + "\n")


def to_dict(score: Score) -> dict[str, Any]:
    """A score as plain values for JSON."""
    return {
        "J&F": score.JF,
        "J": asdict(score.J),
        "F": asdict(score.F),
        **score.more,
        "classes": {
            kind: {"J&F": part.JF, "J": asdict(part.J), "F": asdict(part.F)}
            for kind, part in score.classes.items()
        },
        "extra": list(score.extra),
        "sequences": {
            name: {
                "frames": list(score.names.get(name, ())),
                "objects": {str(i): _object(one) for i, one in objects.items()},
            }
            for name, objects in score.sequences.items()
        },
    }


_STATISTICS = tuple(f"{measure} {kind}" for measure in "JF" for kind in ("mean", "recall", "decay"))


def _object(one: ObjectScore) -> dict[str, Any]:
    return {
        "J": asdict(one.J),
        "F": asdict(one.F),
        "begin": one.begin,
        "J_frames": list(one.J_frames),
        "F_frames": list(one.F_frames),
    }


def _scores(method: Method) -> Score:
    assert method.score is not None
    return method.score


def _sequence_mean(objects: Mapping[int, ObjectScore]) -> float | None:
    return sum(one.JF for one in objects.values()) / len(objects) if objects else None


def _nothing(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _finite(value: Any) -> Any:
    """The same value with None instead of NaN and infinity, for JSON."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")
