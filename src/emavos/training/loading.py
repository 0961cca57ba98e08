"""Load the batches of a run in order, prepared by worker processes."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from emavos.training import distributed
from emavos.training.config import TrainConfig


def load_batches(
    samples: Dataset[Any],
    start: int,
    end: int | None,
    config: TrainConfig,
    workers: int,
    collate: Callable[[list[Any]], Any] | None = None,
    place: Callable[[int], float] = float,
) -> DataLoader[Any]:
    """The batches of iterations `start` to `end`; in distributed training, this process's share of each.

    samples: samples by index, or by frames and index if the config has phases.
    start, end: first iteration, and the one after the last; None for endless batches.
    config: config with the batch size.
    workers: number of worker processes.
    collate: makes a batch of a list of samples; None stacks their tensors.
    place: place of an iteration in the schedule, see `Clock.place`.

    Raises ValueError if a batch cannot be divided equally among the processes.
    """
    for batch in (config.batch, *(batch for _, _, batch in config.phases)):
        if batch % distributed.count():
            raise ValueError(f"a batch of {batch} cannot be shared by {distributed.count()} processes")
    iterations = itertools.count(start) if end is None else range(start, end)
    batches: Any = (_share(i, place(i), config) for i in iterations)
    return DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.accelerator.is_available(),
        worker_init_fn=_outlive_sigterm,
    )


def _share(iteration: int, place: float, config: TrainConfig) -> Sequence[Any]:
    """This process's samples of an iteration: their indices, with phases pairs of frames and index."""
    frames, batch = config.shape_at(place)
    share = batch // distributed.count()
    first = iteration * config.largest_batch + distributed.rank() * share
    indices = range(first, first + share)
    return [(frames, index) for index in indices] if config.phases else indices


def _outlive_sigterm(_: int) -> None:
    """Ignore SIGTERM in a worker: if a whole process group is terminated, the run stops its workers."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
