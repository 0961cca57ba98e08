"""The batches of a run, on the device that learns from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from emavos.data import MixedSamples, Sample
from emavos.data.device_samples import draw_plans
from emavos.data.loaded import Loaded
from emavos.data.mixed_drawing import Plan
from emavos.data.stacked_plans import stack_plans
from emavos.machine import free_memory
from emavos.training.config import TrainConfig
from emavos.training.sources import open_mixed, open_samples, open_sets


@dataclass(frozen=True)
class Batches:
    """How a run makes its batches: other processes load and collate items, this process draws samples."""

    items: Dataset[Any]
    draw: Callable[[Any], Sample]  # makes samples on the device of collated items
    collate: Callable[[list[Any]], Any] | None = None  # None: stack the tensors


def open_batches(
    data: Path, config: TrainConfig, device: torch.device, on_device: bool = False, workers: int = 0
) -> Batches:
    """The batches of a run.

    data: folder with the data sets.
    config: config of the run.
    device: device of the samples.
    on_device: whether to load all pictures into the memory of the device, and to draw samples there.
    workers: number of processes that load these pictures.

    Raises ValueError if the data do not suit the config, the pictures do not fit into memory, or samples
    that are not mixed are to be drawn on the device.
    """
    if not on_device:
        samples = open_samples(data, config)
        items = _Phased(samples) if isinstance(samples, MixedSamples) and config.phases else samples
        return Batches(items, partial(_moved, device=device))
    if config.sampling != "mixed":
        raise ValueError(
            f"only mixed samples are drawn on the device, and sampling is {config.sampling!r}; leave out "
            "--samples-on-device, or choose a stage with mixed samples"
        )
    sets = open_sets(data, config)
    open_mixed(sets, config)  # raises before anything is loaded
    here: dict[str, Loaded] = {}
    room = _room(device)
    for name, videos in sets.items():
        here[name] = Loaded(videos, workers, room)
        room -= here[name].nbytes
    there = open_mixed({name: videos.to(device) for name, videos in here.items()}, config)
    draw = partial(draw_plans, stills=there.stills, clips=there.clips, size=config.size, device=device)
    return Batches(_Plans(open_mixed(here, config)), draw, partial(stack_plans, size=config.size))


class _Plans(Dataset[Plan]):
    """The plans of mixed samples, by index or by frames and index."""

    def __init__(self, samples: MixedSamples) -> None:
        self._samples = samples

    def __getitem__(self, key: int | tuple[int, int]) -> Plan:
        if isinstance(key, int):
            return self._samples.plan(key)
        return replace(self._samples, frames=key[0]).plan(key[1])


class _Phased(Dataset[Sample]):
    """Mixed samples, by frames and index."""

    def __init__(self, samples: MixedSamples) -> None:
        self._samples = samples

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        return replace(self._samples, frames=key[0])[key[1]]


def _moved(sample: Sample, device: torch.device) -> Sample:
    return Sample(*(x.to(device, non_blocking=True) for x in sample))


def _room(device: torch.device) -> float:
    """The bytes that are free both here and on a device; infinite if unknown."""
    here = free_memory()
    there = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
    return min(there, math.inf if here is None else here)
