"""A run on disk: weights, optimiser and where it stands, in one safetensors file that is always whole."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from emavos.models import STCN
from emavos.training.average import WeightAverage
from emavos.training.config import TrainConfig

_STATE = ("exp_avg", "exp_avg_sq", "step")  # what AdamW keeps of each parameter


def save_checkpoint(
    path: Path,
    model: STCN,
    optimiser: torch.optim.Optimizer,
    average: WeightAverage | None,
    iteration: int,
    config: TrainConfig,
) -> None:
    """All that goes on from here: `iteration` is the next one to run."""
    tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for field in _STATE:
            tensors[f"{field}.{name}"] = optimiser.state[parameter][field]
    if average is not None:
        tensors |= {f"average.{name}": weight for name, weight in average.weights.items()}
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    partial = path.with_name(f".{path.name}.partial")
    save_file(tensors, partial, metadata={"iteration": str(iteration), "config": config.to_json()})
    os.replace(partial, path)


def load_checkpoint(
    path: Path,
    model: STCN,
    optimiser: torch.optim.Optimizer,
    average: WeightAverage | None,
    config: TrainConfig,
) -> int:
    """Put back what `save_checkpoint` wrote; returns the next iteration.

    Raises ValueError where the run was begun with another config. Its end alone may have been moved, and the
    place where the learning rate begins to fall, if the run has not come to it.
    """
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        iteration = int(metadata["iteration"])
        begun = TrainConfig.from_json(metadata["config"])
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is damaged, or no checkpoint of a run ({error}); delete it") from error
    _check_same(path, begun, config, iteration)
    model.load_state_dict({key[6:]: tensor for key, tensor in state.items() if key.startswith("model.")})
    for name, parameter in model.named_parameters():
        optimiser.state[parameter] = {field: state[f"{field}.{name}"] for field in _STATE}
    if average is not None:
        average.weights = {name: state[f"average.{name}"] for name in average.weights}
        average.updates = iteration
    return iteration


def _check_same(path: Path, begun: TrainConfig, config: TrainConfig, iteration: int) -> None:
    ours, theirs = dataclasses.asdict(config), dataclasses.asdict(begun)
    if iteration <= min(begun.decay_from, config.decay_from):
        for name in ("iterations", "decay_from"):
            del ours[name], theirs[name]
    differing = [f"{name} was {theirs[name]}, is {ours[name]}" for name in ours if ours[name] != theirs[name]]
    if differing:
        raise ValueError(f"{path} was begun with another config: {'; '.join(differing)}")
