from __future__ import annotations

import dataclasses

import pytest
import torch

from emavos.cli import main
from emavos.models import PRESETS, STCN
from emavos.training import TrainConfig, batches, train

MIXED = TrainConfig(
    iterations=4,
    decay_from=2,
    warmup=2,
    batch=2,
    size=48,
    all_pixels_until=1,
    hardest_from=3,
    sampling="mixed",
)


def run(root, out, config=MIXED, **options):
    torch.manual_seed(0)
    progress = []
    model = train(
        STCN(PRESETS["stcn-tiny"]), root, out, config, **{"workers": 0, "report": progress.append} | options
    )
    return model, [step.loss for step in progress]


def equal(ours, theirs):
    return all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))


def test_a_run_learns_from_the_same_samples_if_they_are_drawn_on_the_device(root, tmp_path):
    _, plain = run(root, tmp_path / "plain")
    model, losses = run(root, tmp_path / "device", samples_on_device=True)
    assert losses[0] == pytest.approx(plain[0], rel=1e-3)
    again, _ = run(root, tmp_path / "workers", samples_on_device=True, workers=2)
    assert equal(model, again)


def test_a_stopped_run_with_samples_on_the_device_gives_the_same_bytes(root, tmp_path):
    whole, _ = run(root, tmp_path / "whole", samples_on_device=True)
    run(root, tmp_path / "parts", samples_on_device=True, stop=2)
    resumed, _ = run(root, tmp_path / "parts", samples_on_device=True)
    assert equal(whole, resumed)


def test_a_run_with_samples_on_the_device_goes_on_without(root, tmp_path):
    run(root, tmp_path, samples_on_device=True, stop=2)
    assert len(run(root, tmp_path)[1]) == 2


def test_only_mixed_samples_are_drawn_on_the_device(root, tmp_path, capsys):
    arguments = ["train", "--init", "tiny", "--data", str(root / "clips"), "--out", str(tmp_path / "run")]
    assert main([*arguments, "--samples-on-device", "--device", "cpu"]) == 1
    assert "only mixed samples are drawn on the device, and sampling is 'videos'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="mixed samples are made of stills and clips, not of static only"):
        run(root, tmp_path, dataclasses.replace(MIXED, sources=("static",)), samples_on_device=True)


def test_pictures_too_large_for_the_device_are_refused_before_training(root, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "free_memory", lambda: 70_000.0)
    with pytest.raises(ValueError, match=r"1 of 11 pictures take 49,152 bytes, but only 6,000 are free"):
        run(root, tmp_path / "run", samples_on_device=True)
    assert not (tmp_path / "run").exists()


def test_the_command_line_draws_samples_on_the_device(root, tmp_path):
    fields = ("iterations=1", "decay_from=1", "batch=2", "size=48", "frames=2", 'sources=["static","clips"]')
    settings = [part for field in fields for part in ("--set", field)]
    paths = ["--init", "tiny", "--data", str(root), "--out", str(tmp_path / "run")]
    habits = ["--samples-on-device", "--device", "cpu", "--workers", "1", "--quiet"]
    assert main(["train", "--stage", "tiny-8", *paths, *habits, *settings, "--set", "leave_out=[]"]) == 0
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
