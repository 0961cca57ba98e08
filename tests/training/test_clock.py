"""Runs that end by the clock."""

from __future__ import annotations

import csv
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from emavos.cli import main
from emavos.models import PRESETS, STCN
from emavos.training import TrainConfig, clock, train
from emavos.training.clock import Clock

CPU = torch.device("cpu")
SMALL = TrainConfig(
    iterations=100,
    decay_from=30,
    seconds=4.0,
    warmup=0,
    batch=1,
    frames=2,
    size=32,
    all_pixels_until=0,
    hardest_from=100,
)


@pytest.fixture
def watch(monkeypatch):
    """A clock that only a test moves."""
    watch = SimpleNamespace(now=50.0)
    watch.monotonic = lambda: watch.now
    monkeypatch.setattr(clock, "time", watch)
    return watch


def run(root, out, watch, config=SMALL, **options):
    """A run whose iterations take a second each."""

    def report(progress):
        watch.now += 1.0

    torch.manual_seed(0)
    return train(STCN(PRESETS["stcn-tiny"]), root, out, config, workers=0, report=report, **options)


def rates(out):
    with open(out / "log.csv", newline="") as file:
        return [float(row["learning_rate"]) for row in csv.DictReader(file)]


def test_the_learning_rate_falls_with_the_time_and_is_zero_at_its_end(watch):
    of_run = Clock(SMALL, CPU)
    seen = {}
    for second in (0.0, 1.1, 2.6, 4.0, 9.0):
        watch.now = 50.0 + second
        seen[second] = SMALL.learning_rate(7, of_run.place(7))
    assert seen == pytest.approx({0.0: 1.0, 1.1: 1.0, 2.6: 0.5, 4.0: 0.0, 9.0: 0.0})
    warm = dataclasses.replace(SMALL, warmup=16)
    assert warm.learning_rate(7, 65.0) == pytest.approx(0.25)  # the rise is counted in iterations
    by_iterations = dataclasses.replace(SMALL, seconds=0.0)
    assert Clock(by_iterations, CPU).place(7) == 7


@pytest.mark.parametrize("decay", ["linear", "step"])
def test_a_rate_that_never_falls_stays_if_the_last_batch_comes_after_the_end(decay):
    constant = dataclasses.replace(SMALL, decay=decay, decay_from=SMALL.iterations)
    assert [constant.learning_rate(7, place) for place in (0.0, 99.9, 100.0, 130.0)] == [1.0] * 4


def test_a_single_process_asks_no_device_for_its_place(watch):
    """Some devices have no float64, and an answer from a GPU would have to be waited for."""
    of_run = Clock(SMALL, torch.device("meta"))
    assert of_run.place(0) == 0.0
    watch.now += 1.0
    assert of_run.place(1) == 25.0


def test_a_run_by_the_clock_ends_in_time_and_not_after_its_iterations(root, tmp_path, watch):
    run(root, tmp_path / "slow", watch)
    assert rates(tmp_path / "slow") == pytest.approx([1.0, 1.0, 50 / 70, 25 / 70], rel=1e-4)
    few = dataclasses.replace(SMALL, iterations=2, decay_from=1, hardest_from=2)
    run(root, tmp_path / "quick", watch, few)
    assert rates(tmp_path / "quick") == pytest.approx([1.0, 1.0, 1.0, 0.5])


def test_the_clock_stands_still_while_a_run_is_stopped(root, tmp_path, watch):
    run(root, tmp_path, watch, stop=3)
    watch.now += 1000.0
    model = run(root, tmp_path, watch)
    assert rates(tmp_path) == pytest.approx([1.0, 1.0, 50 / 70, 25 / 70], rel=1e-4)
    again = run(root, tmp_path, watch)  # has ended already
    assert len(rates(tmp_path)) == 4
    assert all(map(torch.equal, model.parameters(), again.parameters()))
    with pytest.raises(ValueError, match=r"another config: seconds was 4\.0, is 8\.0"):
        run(root, tmp_path, watch, dataclasses.replace(SMALL, seconds=8.0))


@pytest.mark.parametrize("spent", ["nan", "inf", "-1000", "soon"])
def test_a_checkpoint_whose_time_is_no_time_is_refused(root, tmp_path, watch, spent):
    run(root, tmp_path, watch, stop=1)
    path = tmp_path / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | {"spent": spent})
    with pytest.raises(ValueError, match="is damaged, or no checkpoint of a run"):
        run(root, tmp_path, watch)


def test_the_command_line_ends_a_run_by_the_clock(root, tmp_path):
    fields = ("batch=1", "size=32", "frames=2", 'sampling="composed"', 'sources=["static","clips"]')
    settings = [part for field in fields for part in ("--set", field)]
    arguments = ["train", "--init", "tiny", "--data", str(root), "--out", str(tmp_path), "--device", "cpu"]
    assert main([*arguments, "--workers", "0", "--quiet", "--seconds", "0.001", *settings]) == 0
    assert TrainConfig.from_json((tmp_path / "config.json").read_text()).seconds == 0.001
    assert len(rates(tmp_path)) == 1


def test_a_run_of_less_than_no_time_is_refused():
    with pytest.raises(ValueError, match=r"seconds is at least 0, not -1\.0"):
        TrainConfig(seconds=-1.0)


def test_gaps_that_grow_are_refused_with_a_clock():
    """The gap of a sample depends on its number, so such a run would end among the first gaps."""
    with pytest.raises(ValueError, match=r"leave out the seconds, or set gaps=\[\]"):
        TrainConfig(sampling="videos", seconds=60.0, gaps=((0.0, 5), (0.5, 10)))
    assert TrainConfig(sampling="videos", seconds=60.0, gaps=((0.0, 5),)).seconds == 60.0


def test_the_command_line_refuses_a_clock_for_a_stage_whose_gaps_grow(root, tmp_path, capsys):
    arguments = ["train", "--stage", "paper-alone", "--data", str(root), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--device", "cpu", "--seconds", "5"]) != 0
    assert "gaps grow with the iterations" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
