"""The table of confidences: one CSV row per object and frame, written by `segment` and read by `review`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emavos.confidence.expected import ObjectState
    from emavos.io import FrameSource

_MOST_FRAMES = 1 << 22  # limit for videos of unknown length: 38 hours at 30 frames per second
COLUMNS = ("frame", "object", "present", "confidence", "area")


def rounded(objects: Mapping[int, ObjectState]) -> dict[int, ObjectState]:
    """States rounded to the digits of the CSV, so that states from a file and from tracking are equal."""
    return {id: replace(state, confidence=round(state.confidence, 4)) for id, state in objects.items()}


def write_confidences(path: Path, names: Sequence[str], states: Sequence[Mapping[int, ObjectState]]) -> None:
    """Write a CSV with one row for each object in each frame."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for name, objects in zip(names, states, strict=True):
            for id, state in rounded(objects).items():
                rows.writerow([name, id, int(state.present), state.confidence, state.area])


def read_confidences(path: Path, frames: FrameSource) -> list[dict[int, ObjectState]]:
    """Read a table written by `write_confidences`; returns the states by frame index.

    path: file to read.
    frames: source of the frames, to look up frame names.

    Raises ValueError if the table is damaged or names unknown frames.
    """
    from emavos.confidence.expected import ObjectState
    from emavos.io.text import read_text

    by_frame: dict[int, dict[int, ObjectState]] = {}
    most = frames.count if frames.exact and frames.count is not None else _MOST_FRAMES
    text = read_text(path, "a table of confidences", errors="surrogateescape")  # as names of files are read
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"{path} has not the columns {', '.join(COLUMNS)}; `segment --confidence` writes them"
            )
        for row in rows:
            index = frames.find(row["frame"]) if len(row["frame"]) < 256 else None
            if index is None or index >= most:
                raise ValueError(f"{path} has frame {row['frame']:.40}, but VIDEO does not")
            try:
                state = ObjectState(row["present"] == "1", float(row["confidence"]), int(row["area"]))
                id = int(row["object"])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path} is damaged in line {rows.line_num}: {error}") from error
            if not 0 <= state.confidence <= 1:  # also true for NaN
                raise ValueError(f"{path} is damaged in line {rows.line_num}: a confidence is in [0, 1]")
            if abs(id) >= 2**31 or not 0 <= state.area < 2**63:
                raise ValueError(
                    f"{path} is damaged in line {rows.line_num}: an object or area is out of range"
                )
            by_frame.setdefault(index, {})[id] = state
    except csv.Error as error:
        raise ValueError(f"{path} is damaged in line {rows.line_num}: {error}") from error
    nothing: dict[int, ObjectState] = {}
    return [by_frame.get(index, nothing) for index in range(max(by_frame, default=-1) + 1)]
