"""How far a run is: by its iterations, or by the clock."""

from __future__ import annotations

import time

import torch

from emavos.training import distributed
from emavos.training.config import TrainConfig


class Clock:
    """The place of a run in its schedule, counted in iterations of the config.

    Without `config.seconds`, a run is at place n after n iterations. With `config.seconds`, the place is the
    elapsed share of these seconds, times `config.iterations`. So the learning rate falls with the time, and
    a run ends in time with a learning rate of zero, however quick the machine is.

    config: config of the run.
    device: device of the process, to agree on a place with the other processes.
    spent: seconds of the run before it was resumed.
    """

    def __init__(self, config: TrainConfig, device: torch.device, spent: float = 0.0) -> None:
        self._config, self._device, self._before = config, device, spent
        self._began: float | None = None  # begins when a place is asked for

    @property
    def spent(self) -> float:
        """The seconds that have passed, also before the run was resumed."""
        if self._began is None:
            self._began = time.monotonic()
        return self._before + time.monotonic() - self._began

    def place(self, iteration: int) -> float:
        """The place of an iteration that begins now; the same in all processes."""
        if not self._config.seconds:
            return iteration
        share = self.spent / self._config.seconds
        if distributed.count() > 1:
            share = distributed.mean(torch.tensor(share, dtype=torch.float64, device=self._device)).item()
        return self._config.iterations * share
