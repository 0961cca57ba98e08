"""The files written by a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emavos.data import Clips, Sample
from emavos.io.whole import replacing, sweep, write_tensors
from emavos.training import distributed
from emavos.training.checkpoint import load_checkpoint, save_checkpoint
from emavos.training.learner import Learner
from emavos.training.log import Log, Progress
from emavos.training.preview import write_prediction
from emavos.training.validation import validate
from emavos.weights import save_model


@dataclass(frozen=True)
class Schedule:
    """Iterations between saves, validations and pictures; 0 for never. The last checkpoint is saved too."""

    save: int = 100
    validate: int = 0
    pictures: int = 0


class Keeper:
    """Writes the checkpoint, logs, pictures, scores and best model of a run.

    If `out` contains a checkpoint, the constructor restores the learner from the checkpoint. `start` is the
    next iteration to run. In distributed training only the first process writes, but all processes share the
    work of validation.
    """

    def __init__(
        self, out: Path, learner: Learner, held_out: Sequence[Clips], schedule: Schedule, tensorboard: bool
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out, self._learner, self._held_out, self._schedule = out, learner, held_out, schedule
        self._checkpoint = out / "checkpoint.safetensors"
        self.start = load_checkpoint(self._checkpoint, learner) if self._checkpoint.exists() else 0
        self._log: Log | None = None
        if distributed.rank() == 0:
            for folder in (out, out / "best", out / "pictures"):  # partial files of a killed run
                sweep(folder)
            self._log = Log(out, self.start, tensorboard)
            with replacing(out / "config.json") as partial:
                partial.write_text(learner.config.to_json() + "\n", encoding="utf-8")

    def learned(self, progress: Progress, sample: Sample) -> None:
        """Log an iteration, and write pictures or validate if due.

        progress: figures of the iteration.
        sample: batch of the iteration.
        """
        done = progress.iteration + 1
        if self._log is not None:
            self._log.progress(progress)
            if _due(done, self._schedule.pictures):
                write_prediction(self._out / "pictures" / f"{done:06d}.png", self._learner.model, sample)
        if _due(done, self._schedule.validate):
            self._validate(progress.iteration)

    def save(self, done: int, ended: bool) -> None:
        """Write a checkpoint after `done` iterations if one is due, or if the run has ended."""
        if self._log is not None and (ended or _due(done, self._schedule.save)):
            save_checkpoint(self._checkpoint, self._learner, done)

    def failed(self, sample: Sample, iteration: int) -> Path:
        """Write the batch of this process to a file, and return the path."""
        path = self._out / f"failed-{iteration:06d}-{distributed.rank()}.safetensors"
        write_tensors(path, {name: x.contiguous() for name, x in sample._asdict().items()})
        return path

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def _validate(self, iteration: int) -> None:
        model = self._learner.model
        with self._learner.averaged():
            scores = validate(model, self._held_out)
            mean = sum(scores.values()) / len(scores)
            if self._log is None:
                return
            if mean > self._log.best():
                save_model(model, self._out / "best")
            self._log.scores(iteration, scores, mean)


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0
