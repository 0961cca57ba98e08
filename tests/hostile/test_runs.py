"""Checkpoints of training runs that are damaged, as the table of docs/input.md lists them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from emavos.training import TrainConfig
from emavos.training.checkpoint import load_checkpoint, save_checkpoint
from emavos.training.learner import Learner
from emavos.weights import load_model

PAGE = Path(__file__).parents[2] / "docs" / "input.md"
NAME = "decoder.pred.bias"
CONFIG = TrainConfig(
    iterations=4, decay_from=2, warmup=1, batch=1, size=48, all_pixels_until=1, hardest_from=3, ema=0.5
)


def swap(tensors, notes):
    a, b = "model.decoder.pred.bias", "model.decoder.pred.weight"
    tensors[a], tensors[b] = tensors[b], tensors[a]


def drop(name):
    return lambda tensors, notes: tensors.pop(name)


def tell(**facts):
    return lambda tensors, notes: notes.update(facts)


RUNS = {  # the case as the page tells it: what makes it, and words of the message
    "a checkpoint of a run with weights under each other's names": (swap, f"{NAME} is"),
    "a checkpoint of a run without a weight": (drop(f"model.{NAME}"), f"missing {NAME}"),
    "a checkpoint of a run without an average": (drop(f"average.{NAME}"), "averages: other tensors"),
    "a checkpoint of a run with half an optimiser": (
        drop(f"exp_avg.{NAME}"),
        f"optimiser's state of {NAME}: other tensors",
    ),
    "a checkpoint of a run with NaN": (
        lambda tensors, notes: tensors[f"exp_avg.{NAME}"].fill_(float("nan")),
        f"optimiser's state of {NAME}: NaN",
    ),
    "a checkpoint of a run with an iteration of text": (tell(iteration="x"), "invalid literal"),
    "a checkpoint of a run with a config of text": (tell(config="x"), "Expecting value"),
    "a checkpoint of a run without its config": (
        lambda tensors, notes: notes.pop("config"),
        "'config'",
    ),
    "a checkpoint of a run with a scaler of text": (tell(scaler='{"scale": "x"}'), "growth_factor"),
}


def begin():
    learner = Learner(load_model(), CONFIG)
    learner.scaler = torch.amp.GradScaler("cpu")
    return learner


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    learner = begin()
    for parameter in learner.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    learner.optimiser.step()
    path = tmp_path_factory.mktemp("runs") / "checkpoint.safetensors"
    save_checkpoint(path, learner, 1)
    return path


@pytest.mark.parametrize("case", RUNS)
def test_a_checkpoint_of_a_run_that_cannot_be_is_refused(saved, tmp_path, case):
    make, words = RUNS[case]
    with safe_open(saved, "pt") as file:
        notes = file.metadata()
    tensors = load_file(saved)
    make(tensors, notes)
    path = tmp_path / "checkpoint.safetensors"
    save_file(tensors, path, metadata=notes)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is damaged, or no checkpoint.*{words}"):
        load_checkpoint(path, begin())


def test_a_checkpoint_of_a_run_that_is_whole_is_loaded(saved):
    assert load_checkpoint(saved, begin()) == 1


@pytest.mark.parametrize("case", RUNS)
def test_the_page_tells_of_each_checkpoint(case):
    assert f"| {case} |" in PAGE.read_text()
