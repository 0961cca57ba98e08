"""Checkpoints: the whole state of a run in one safetensors file, written atomically."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from emavos.io.images import check_file
from emavos.io.whole import write_tensors
from emavos.training.clock import Clock
from emavos.training.config import TrainConfig
from emavos.training.learner import Learner
from emavos.weights.load import load_strictly

_STATE = ("exp_avg", "exp_avg_sq", "step")  # Adam's state for each parameter


def save_checkpoint(path: Path, learner: Learner, iteration: int) -> None:
    """Write everything needed to resume a run.

    path: file to write.
    learner: learner with model, optimiser and averages.
    iteration: the next iteration to run.
    """
    tensors = {f"model.{key}": tensor for key, tensor in learner.model.state_dict().items()}
    for name, parameter in learner.model.named_parameters():
        state = learner.optimiser.state.get(parameter, {})  # empty before the first step
        tensors |= {f"{field}.{name}": state[field] for field in _STATE if field in state}
    if learner.average is not None:
        tensors |= {f"average.{name}": weight for name, weight in learner.average.weights.items()}
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    metadata = {
        "iteration": str(iteration),
        "config": learner.config.to_json(),
        "scaler": json.dumps(learner.scaler.state_dict()),
    }
    if learner.config.seconds:
        metadata["spent"] = str(learner.clock.spent)
    write_tensors(path, tensors, metadata)


def load_checkpoint(path: Path, learner: Learner) -> int:
    """Restore a state written by `save_checkpoint`, and return the next iteration.

    path: file to read.
    learner: learner to restore; its config must equal the config of the run, except as below.

    You can change `iterations` and `decay_from` if the learning rate has not begun to fall yet, and the
    config has no gaps, phases or seconds, which depend on the length of the run.

    Raises ValueError if the file is damaged, belongs to another model, or the run had another config.
    """
    what = f"{path} is damaged, or no checkpoint of a run"
    check_file(path, "a checkpoint")
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        iteration = int(metadata["iteration"])
        begun = TrainConfig.from_json(metadata["config"])
        scaler = json.loads(metadata.get("scaler", "{}"))
        spent = float(metadata.get("spent", "0"))
        if not 0 <= spent < math.inf:
            raise ValueError(f"{spent} seconds")
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{what} ({error}); delete it") from error
    _check_same(path, begun, learner.config, iteration)
    learner.clock = Clock(learner.config, learner.device, spent)
    model = learner.model
    load_strictly(model, {key[6:]: x for key, x in state.items() if key.startswith("model.")}, what)
    for name, parameter in model.named_parameters():
        fields = {field: state[f"{field}.{name}"] for field in _STATE if f"{field}.{name}" in state}
        if fields:  # the optimiser expects the step count on the CPU
            shapes = {field: torch.Size() if field == "step" else parameter.shape for field in _STATE}
            _check_shapes(fields, shapes, f"{what}: the optimiser's state of {name}")
            learner.optimiser.state[parameter] = {
                field: tensor if field == "step" else tensor.to(parameter.device)
                for field, tensor in fields.items()
            }
    if learner.average is not None:
        weights = learner.average.weights
        averages = {key[8:]: x for key, x in state.items() if key.startswith("average.")}
        _check_shapes(averages, {name: x.shape for name, x in weights.items()}, f"{what}: its averages")
        learner.average.weights = {name: averages[name].to(x.device) for name, x in weights.items()}
        learner.average.updates = iteration
    if scaler:
        try:
            learner.scaler.load_state_dict(scaler)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{what} ({error}); delete it") from error
    return iteration


def _check_shapes(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], what: str) -> None:
    if {name: x.shape for name, x in state.items()} != dict(shapes):
        raise ValueError(f"{what}: other tensors, or of other shapes; delete it")
    if not all(x.is_floating_point() and bool(x.isfinite().all()) for x in state.values()):
        raise ValueError(f"{what}: NaN, infinity or no numbers; delete it")


def _check_same(path: Path, begun: TrainConfig, config: TrainConfig, iteration: int) -> None:
    ours, theirs = dataclasses.asdict(config), dataclasses.asdict(begun)
    # gaps and phases depend on the length of the run, and by the clock the fall may have begun before
    fixed = config.gaps or config.phases or config.seconds
    if iteration <= min(begun.decay_from, config.decay_from) and not fixed:
        for name in ("iterations", "decay_from"):
            del ours[name], theirs[name]
    differing = [f"{name} was {theirs[name]}, is {ours[name]}" for name in ours if ours[name] != theirs[name]]
    if differing:
        raise ValueError(f"{path} was begun with another config: {'; '.join(differing)}")
