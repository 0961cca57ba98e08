"""Several processes that train one model, as torchrun starts them; with one, each of these does nothing."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that the environment tells of; gives the device of this one.

    device: of what kind. An accelerator is numbered by LOCAL_RANK. Without torchrun: the device as given.
    """
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device.type != "cpu":
        device = torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))
        torch.accelerator.set_device_index(device.index)
    distributed.init_process_group()  # gloo between CPUs, nccl between CUDA devices
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def parallel(network: nn.Module) -> nn.Module:
    """The network, whose gradients are then means over all processes."""
    if count() == 1:
        return network
    # Buffers are those of batch norm, which is frozen. Newer versions of torch have another name for this.
    names = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    buffers: dict[str, Any] = {name: False}
    return DistributedDataParallel(network, **buffers)


def mean(values: Tensor) -> Tensor:
    """Means over the processes, equal in all of them."""
    if count() > 1:
        distributed.all_reduce(values)
        values = values / count()
    return values


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process."""
    return bool(mean(torch.tensor(float(flag), device=device)) > 0)


def gathered(scores: dict[str, float]) -> dict[str, float]:
    """The entries of all processes."""
    if count() == 1:
        return scores
    parts: list[dict[str, float]] = [{}] * count()
    distributed.all_gather_object(parts, scores)
    return {name: score for part in parts for name, score in part.items()}
