"""The training loop: resumable at any saved iteration, to the bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file

from emavos.data import Sample
from emavos.models import PRESETS, STCN
from emavos.training import distributed
from emavos.training.checkpoint import load_checkpoint, save_checkpoint
from emavos.training.config import TrainConfig
from emavos.training.learner import Learner
from emavos.training.loading import load_batches
from emavos.training.log import Log, Progress
from emavos.training.pictures import write_prediction
from emavos.training.sources import open_held_out, open_samples
from emavos.training.validation import validate


def train(
    model: STCN,
    data: str | Path,
    out: str | Path,
    config: TrainConfig,
    *,
    workers: int = 1,
    save_every: int = 100,
    validate_every: int = 0,
    pictures_every: int = 0,
    tensorboard: bool = False,
    stop: int | None = None,
    stopping: Callable[[], bool] | None = None,
    report: Callable[[Progress], None] | None = None,
) -> STCN:
    """Train a model in place on the config's sources in `data`; returns it, with averaged weights if any.

    out: a folder for `checkpoint.safetensors`, from which the same call goes on, `config.json` and `log.csv`.
    workers: processes that make samples; they do not change what is drawn.
    save_every: iterations between checkpoints; the last one is always saved.
    validate_every: iterations between scores of the sequences left out, written to `validation.csv`; the best
        model so far is in `best/`. 0: never.
    pictures_every: iterations between pictures of a batch in `pictures/`. 0: never.
    tensorboard: write its events too (extra `tensorboard`).
    stop: end after this iteration, to go on later; the config's `iterations` unless told.
    stopping: asked after each iteration; where it says so the run is saved and ends, to go on later.
    report: called after each iteration.

    Within `emavos.training.distributed.joined` each process takes its share of every batch, and the first of
    them writes. Raises ValueError where model, data or checkpoint do not fit the config, FloatingPointError
    where the loss is not finite; the batch is then in `out`.
    """
    if model.config != PRESETS[config.preset]:
        raise ValueError(f"the model is not of the config's preset, {config.preset}")
    data, out = Path(data), Path(out)
    samples = open_samples(data, config)
    held_out = open_held_out(data, config) if validate_every else []
    if validate_every and not held_out:
        raise ValueError("there is nothing to validate on: leave_out names no sequence of the data")
    out.mkdir(parents=True, exist_ok=True)
    learner = Learner(model, config)
    checkpoint = out / "checkpoint.safetensors"
    start = load_checkpoint(checkpoint, learner) if checkpoint.exists() else 0
    end = config.iterations if stop is None else min(stop, config.iterations)
    first = distributed.rank() == 0
    log = Log(out, start, tensorboard) if first else None
    if first:
        (out / "config.json").write_text(config.to_json() + "\n")
    ready = time.perf_counter()
    for iteration, sample in enumerate(load_batches(samples, start, end, config, workers), start):
        began = time.perf_counter()
        sample = Sample(*(x.to(learner.device, non_blocking=True) for x in sample))
        try:
            loss, overlap = learner.step(sample, iteration)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}; the batch is {_keep(out, sample, iteration)}") from error
        done = iteration + 1
        progress = Progress(
            iteration,
            loss,
            overlap,
            config.learning_rate(iteration),
            time.perf_counter() - began,
            began - ready,
        )
        if log is not None:
            log.progress(progress)
            if pictures_every and done % pictures_every == 0:
                write_prediction(out / "pictures" / f"{done:06d}.png", model, sample)
        if report is not None:
            report(progress)
        if validate_every and done % validate_every == 0:
            with learner.averaged():
                scores = validate(model, held_out)
                if log is not None:
                    _keep_best(out, model, log, iteration, scores)
        ended = done == end or (stopping is not None and distributed.anywhere(stopping(), learner.device))
        if log is not None and (done % save_every == 0 or ended):
            save_checkpoint(checkpoint, learner, done)
        if ended:
            break
        ready = time.perf_counter()
    if log is not None:
        log.close()
    if learner.average is not None:
        learner.average.put_into(model)
    return model.eval()


def _keep(out: Path, sample: Sample, iteration: int) -> Path:
    """Save the batch of this process."""
    path = out / f"failed-{iteration:06d}-{distributed.rank()}.safetensors"
    save_file({name: x.contiguous() for name, x in sample._asdict().items()}, path)
    return path


def _keep_best(out: Path, model: STCN, log: Log, iteration: int, scores: dict[str, float]) -> None:
    mean = sum(scores.values()) / len(scores)
    if mean > log.best():
        model.save_pretrained(out / "best")
    log.scores(iteration, scores, mean)
