"""Runs with other numbers of frames and clips from a fraction of the run on."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from emavos.models import PRESETS, STCN
from emavos.training import TrainConfig, clock, train
from emavos.training.batches import open_batches
from emavos.training.clock import Clock
from emavos.training.loading import load_batches
from emavos.training.sources import open_samples

CPU = torch.device("cpu")
PHASED = TrainConfig(
    iterations=4,
    decay_from=2,
    warmup=0,
    batch=2,
    frames=2,
    size=32,
    all_pixels_until=0,
    hardest_from=3,
    sampling="mixed",
    phases=((0.5, 4, 1), (0.75, 3, 3)),
)


def samples_of(root, config, on_device=False, end=4, **options):
    batches = open_batches(root, config, CPU, on_device)
    loader = load_batches(batches.items, 0, end, config, 0, batches.collate, **options)
    return (batches.draw(items) for items in loader)


@pytest.mark.parametrize("on_device", [False, True])
def test_clips_get_other_frames_and_batches_in_each_phase(root, on_device):
    samples = list(samples_of(root, PHASED, on_device))
    assert [sample.frames.shape[:2] for sample in samples] == [(2, 2), (2, 2), (1, 4), (3, 3)]
    plain = dataclasses.replace(open_samples(root, PHASED), frames=3)  # numbered by the largest batch
    for i in range(3):
        torch.testing.assert_close(samples[3].masks[i], plain[3 * 3 + i].masks)


def test_phases_begin_by_the_clock_if_the_run_ends_by_it(root, monkeypatch):
    watch = SimpleNamespace(now=0.0)
    watch.monotonic = lambda: watch.now
    monkeypatch.setattr(clock, "time", watch)
    config = dataclasses.replace(PHASED, seconds=8.0)
    shapes = []
    for sample in samples_of(root, config, end=None, place=Clock(config, CPU).place):
        shapes.append(tuple(sample.frames.shape[:2]))
        watch.now += 1.0
        if len(shapes) == 8:
            break
    assert shapes == [(2, 2)] * 4 + [(1, 4)] * 2 + [(3, 3)] * 2


def test_a_run_with_phases_is_resumed_to_the_same_bytes(root, tmp_path):
    def run(out, **options):
        torch.manual_seed(0)
        return train(STCN(PRESETS["stcn-tiny"]), root, out, PHASED, workers=0, **options)

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", stop=2)
    assert all(map(torch.equal, whole.parameters(), run(tmp_path / "parts").parameters()))
    longer = dataclasses.replace(PHASED, iterations=8)
    with pytest.raises(ValueError, match="another config: iterations was 4, is 8"):
        train(whole, root, tmp_path / "parts", longer, workers=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"phases": [[0.5, 4]]}, "phases are triples"),
        ({"phases": [[0.5, 4, 1.5]]}, "phases are triples"),
        ({"phases": [["half", 4, 1]]}, "phases are triples"),
        ({"phases": [[0.5, 4, 1], [None, 4, 1]]}, "phases are triples"),
        ({"phases": [[0.7, 4, 1], [0.5, 3, 1]]}, "with rising fractions between 0 and 1"),
        ({"phases": [[0.0, 4, 1]]}, "with rising fractions between 0 and 1"),
        ({"phases": [[0.5, 1, 1]]}, "at least 2 frames and 1 clip"),
        ({"phases": [[0.5, 4, 1]], "sampling": "videos"}, "phases are for mixed samples, not for sampling"),
    ],
)
def test_phases_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PHASED, **fields)


def test_phases_survive_the_config_of_a_run():
    assert TrainConfig.from_json(PHASED.to_json()) == PHASED
