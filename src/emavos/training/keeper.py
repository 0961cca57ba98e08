"""What a run leaves in its folder as it goes on."""

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
    """Iterations from one to the next; 0: never. The last checkpoint is always saved."""

    save: int = 100
    validate: int = 0
    pictures: int = 0


class Keeper:
    """Keeps checkpoint, logs, pictures, scores and the best model of a run.

    Of several processes the first writes; all take part in the scores. What is in the folder already is put
    into the learner, and `start` is the iteration to go on from.
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
            for folder in (out, out / "best", out / "pictures"):  # what a run that was killed left
                sweep(folder)
            self._log = Log(out, self.start, tensorboard)
            with replacing(out / "config.json") as partial:
                partial.write_text(learner.config.to_json() + "\n", encoding="utf-8")

    def learned(self, progress: Progress, sample: Sample) -> None:
        """After an iteration, with the batch that it learned from."""
        done = progress.iteration + 1
        if self._log is not None:
            self._log.progress(progress)
            if _due(done, self._schedule.pictures):
                write_prediction(self._out / "pictures" / f"{done:06d}.png", self._learner.model, sample)
        if _due(done, self._schedule.validate):
            self._validate(progress.iteration)

    def save(self, done: int, ended: bool) -> None:
        """A checkpoint after `done` iterations, if one is due."""
        if self._log is not None and (ended or _due(done, self._schedule.save)):
            save_checkpoint(self._checkpoint, self._learner, done)

    def failed(self, sample: Sample, iteration: int) -> Path:
        """Keep the batch of this process, and say where."""
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
