"""The training loop. A run can be resumed from any checkpoint with bitwise equal results."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from emavos.models import PRESETS, STCN
from emavos.training import distributed
from emavos.training.batches import open_batches
from emavos.training.config import TrainConfig
from emavos.training.keeper import Keeper, Schedule
from emavos.training.learner import Learner
from emavos.training.loading import load_batches
from emavos.training.log import Progress
from emavos.training.sources import open_held_out


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
    samples_on_device: bool = False,
    stop: int | None = None,
    stopping: Callable[[], bool] | None = None,
    report: Callable[[Progress], None] | None = None,
) -> STCN:
    """Train a model in place, and return the model (with averaged weights, if the config has `ema`).

    model: model to train, of the config's preset.
    data: folder with the data sets of `config.sources`.
    out: folder for `checkpoint.safetensors`, `config.json` and `log.csv`. The same call resumes from the
        checkpoint.
    config: settings of the run.
    workers: number of processes that prepare samples; the samples do not depend on this number.
    save_every: iterations between checkpoints; the last one is always saved.
    validate_every: iterations between validations on the sequences of `config.leave_out`, logged to
        `validation.csv`; the best model is saved in `best/`. 0 for never.
    pictures_every: iterations between pictures of a batch in `pictures/`. 0 for never.
    tensorboard: whether to write TensorBoard events too (extra `tensorboard`).
    samples_on_device: whether to load all pictures into the memory of the model's device and to draw the
        samples there; for mixed samples. They are the same but for rounding, and need fewer workers.
    stop: iteration to stop at, to resume later; defaults to the config's `iterations`.
    stopping: called after each iteration; if True, the run is saved and stops, to resume later.
    report: called after each iteration.

    Within `emavos.training.distributed.joined`, each process trains on its share of every batch, and only the
    first process writes.

    Raises ValueError if model, data or checkpoint do not match the config. Raises FloatingPointError if the
    loss or its gradient is not finite; the batch is then saved in `out`.
    """
    if model.config != PRESETS[config.preset]:
        raise ValueError(f"the model is not of the config's preset, {config.preset}")
    data, out = Path(data), Path(out)
    device = next(model.parameters()).device
    batches = open_batches(data, config, device, samples_on_device, workers)
    held_out = open_held_out(data, config) if validate_every else []
    if validate_every and not held_out:
        raise ValueError(
            "there is nothing to validate on: leave_out (--hold-out) names no sequence of the data"
        )
    for clips in held_out:
        for video, name in enumerate(clips.names):
            if clips.length(video) < 3:
                raise ValueError(
                    f"{name} is held out and has {clips.length(video)} masks; a score takes three or more"
                )
    learner = Learner(model, config)
    schedule = Schedule(save_every, validate_every, pictures_every)
    keeper = Keeper(out, learner, held_out, schedule, tensorboard)
    end = _end(learner, keeper.start, stop)
    ready = time.perf_counter()
    place = learner.clock.place
    loader = load_batches(batches.items, keeper.start, end, config, workers, batches.collate, place)
    for iteration, items in enumerate(loader, keeper.start):
        sample = batches.draw(items)
        began = time.perf_counter()
        try:
            learned = learner.step(sample, iteration)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}; the batch is {keeper.failed(sample, iteration)}") from error
        seconds, waited = time.perf_counter() - began, began - ready
        progress = Progress(iteration, *learned, learner.rate, seconds, waited)
        keeper.learned(progress, sample)
        if report is not None:
            report(progress)
        ends_now = stopping is not None and distributed.anywhere(stopping(), learner.device)
        ends_now |= learner.clock.place(iteration + 1) >= config.iterations
        keeper.save(iteration + 1, ended=ends_now or iteration + 1 == end)
        if ends_now:
            break
        ready = time.perf_counter()
    keeper.close()
    if learner.average is not None:
        learner.average.put_into(model)
    return model.eval()


def _end(learner: Learner, start: int, stop: int | None) -> int | None:
    """The iteration before which a run stops; None if the clock decides."""
    config = learner.config
    if learner.clock.place(start) >= config.iterations:  # the run has ended already
        return start
    if config.seconds:
        return stop
    return config.iterations if stop is None else min(stop, config.iterations)
