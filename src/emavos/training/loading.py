"""Load the batches of a run in order, prepared by worker processes."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
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
) -> DataLoader[Any]:
    """The batches of iterations `start` to `end`; in distributed training, this process's share of each.

    samples: samples by index.
    start, end: first iteration, and the one after the last; None for endless batches.
    config: config with the batch size.
    workers: number of worker processes.
    collate: makes a batch of a list of samples; None stacks their tensors.

    Raises ValueError if a batch cannot be divided equally among the processes.
    """
    share, rest = divmod(config.batch, distributed.count())
    if rest:
        raise ValueError(f"a batch of {config.batch} cannot be shared by {distributed.count()} processes")
    iterations = itertools.count(start) if end is None else range(start, end)
    firsts = (i * config.batch + distributed.rank() * share for i in iterations)
    batches: Any = (range(first, first + share) for first in firsts)
    return DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.accelerator.is_available(),
        worker_init_fn=_outlive_sigterm,
    )


def _outlive_sigterm(_: int) -> None:
    """Ignore SIGTERM in a worker: if a whole process group is terminated, the run stops its workers."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
