"""Distributed training with processes started by torchrun. In a single process, every function is a no-op."""

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
    """Join the process group described by the environment; yields the device of this process.

    device: kind of device. With torchrun, an accelerator gets the index LOCAL_RANK; otherwise the device is
        used as passed.
    """
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device.type != "cpu":
        device = torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))
        torch.accelerator.set_device_index(device.index)
    distributed.init_process_group()  # gloo for CPUs, nccl for CUDA devices
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """The index of this process."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def parallel(network: nn.Module) -> nn.Module:
    """Wrap a network so that its gradients are averaged over all processes."""
    if count() == 1:
        return network
    # The only buffers are those of the frozen batch norms. Newer versions of torch renamed this option.
    names = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    buffers: dict[str, Any] = {name: False}
    return DistributedDataParallel(network, **buffers)


def mean(values: Tensor) -> Tensor:
    """Average values over all processes; every process gets the same result."""
    if count() > 1:
        distributed.all_reduce(values)
        values = values / count()
    return values


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process."""
    return bool(mean(torch.tensor(float(flag), device=device)) > 0)


def gathered(scores: dict[str, float]) -> dict[str, float]:
    """The entries of all processes in one dict."""
    if count() == 1:
        return scores
    parts: list[dict[str, float]] = [{}] * count()
    distributed.all_gather_object(parts, scores)
    return {name: score for part in parts for name, score in part.items()}
