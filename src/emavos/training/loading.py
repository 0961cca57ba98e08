"""The batches of a run, in its order, made by other processes while the model learns."""

from __future__ import annotations

import signal
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from emavos.data import Sample
from emavos.training import distributed
from emavos.training.config import TrainConfig


def load_batches(
    samples: Dataset[Sample], start: int, end: int, config: TrainConfig, workers: int
) -> DataLoader[Sample]:
    """Those of iterations start to end; where several processes train, this one's share of each.

    Raises ValueError where a batch cannot be shared equally.
    """
    share, rest = divmod(config.batch, distributed.count())
    if rest:
        raise ValueError(f"a batch of {config.batch} cannot be shared by {distributed.count()} processes")
    firsts = (i * config.batch + distributed.rank() * share for i in range(start, end))
    batches: list[Any] = [range(first, first + share) for first in firsts]
    return DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=torch.accelerator.is_available(),
        worker_init_fn=_outlive_sigterm,
    )


def _outlive_sigterm(_: int) -> None:
    """Where a whole group of processes is told to end, the run ends itself, and its workers after it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
