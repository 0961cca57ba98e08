"""Logs of a run: CSV files, and TensorBoard if asked for."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emavos.io.whole import named_as, replacing
from emavos.machine import how_to_install


@dataclass(frozen=True)
class Progress:
    """Figures of one iteration."""

    iteration: int
    loss: float
    overlap: float  # mean soft Dice overlap of the clips' objects; 1 is perfect
    matching: float  # matching loss, reported even if its weight is 0
    best: float  # mean weight of the best memory cell; at 1 (an argmax), keys get no gradient
    cells: float  # mean number of memory cells read, exp(entropy)
    learning_rate: float  # factor on the config's learning rates
    seconds: float  # seconds of computation
    waited: float  # seconds spent waiting for the batch


class Log:
    """Writes `log.csv` (a row per iteration), `validation.csv` (a row per validation) and TensorBoard events.

    folder: folder of the files.
    start: next iteration to run. Later rows, left by an interrupted run, are removed.
    tensorboard: whether to write TensorBoard events.

    Raises ImportError if TensorBoard is asked for but not installed.
    """

    def __init__(self, folder: Path, start: int, tensorboard: bool) -> None:
        self._progress, self._scores = folder / "log.csv", folder / "validation.csv"
        self._events = _events(folder / "tensorboard", start) if tensorboard else None
        _cut(self._progress, start)
        _cut(self._scores, start)

    def progress(self, progress: Progress) -> None:
        row = asdict(progress)
        _append(self._progress, row)
        self._tell("train", row, progress.iteration)

    def scores(self, iteration: int, scores: Mapping[str, float], mean: float) -> None:
        """Log J&F of each sequence after an iteration, and their mean."""
        _append(self._scores, {"iteration": iteration, "mean": mean, **scores})
        self._tell("validation", {"mean": mean, **scores}, iteration)

    def best(self) -> float:
        """The highest mean score so far; -1 if there is none."""
        if not self._scores.exists():
            return -1.0
        with open(self._scores, newline="", encoding="utf-8") as file:
            return max((float(row["mean"]) for row in csv.DictReader(file)), default=-1.0)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    def _tell(self, group: str, row: Mapping[str, float], iteration: int) -> None:
        if self._events is not None:
            for name, value in row.items():
                if name != "iteration":
                    self._events.add_scalar(f"{group}/{name}", value, iteration)


def _events(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(f"TensorBoard comes with an extra: {how_to_install('tensorboard')}") from error
    return SummaryWriter(str(folder), purge_step=start)


def _cut(path: Path, start: int) -> None:
    if not path.exists():
        return
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")
    ]
    whole = [line for line in lines[1:] if int(line.partition(",")[0]) < start]
    with replacing(path) as partial:
        partial.write_text("".join(lines[:1] + whole), encoding="utf-8", newline="\n")


def _append(path: Path, row: Mapping[str, float]) -> None:
    with named_as(path), open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if file.tell() == 0:  # a killed run may have left an empty file
            writer.writeheader()
        writer.writerow({key: f"{x:.6g}" if isinstance(x, float) else x for key, x in row.items()})
