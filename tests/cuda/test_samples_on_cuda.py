"""Training samples drawn on a GPU: `python -m pytest tests/cuda`, where torch finds one."""

from __future__ import annotations

import pytest
import torch

from emavos.data import Clips, MixedSamples, StaticImages
from emavos.data.device_samples import draw_plans
from emavos.data.loaded import Loaded
from emavos.data.stacked_plans import stack_plans
from emavos.models import PRESETS, STCN
from emavos.training import TrainConfig, train
from trees import training_tree

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

DEVICE = torch.device("cuda")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return training_tree(tmp_path_factory.mktemp("data"))


def test_a_gpu_draws_the_samples_of_the_definition(root):
    here = [Loaded(StaticImages(root / "static")), Loaded(Clips(root / "clips"))]
    stills, clips = (videos.to(DEVICE) for videos in here)
    samples = MixedSamples(*here, count=32, batch=8, size=64, frames=3, blur=0.5, seed=3)
    for first in range(0, 32, 8):
        plans = stack_plans([samples.plan(i) for i in range(first, first + 8)], 64)
        batch = draw_plans(plans, stills, clips, 64, DEVICE)
        for i in range(8):
            ours, theirs = type(batch)(*(x[i].cpu() for x in batch)), samples[first + i]
            assert (ours.masks != theirs.masks).float().mean() < 1e-3
            assert ((ours.frames - theirs.frames).abs() > 1e-2).float().mean() < 1e-2


def test_a_run_draws_its_samples_on_the_gpu_with_workers_that_plan(root, tmp_path):
    config = TrainConfig(
        iterations=3, decay_from=3, batch=4, size=64, frames=2, all_pixels_until=0, sampling="mixed"
    )
    model = STCN(PRESETS["stcn-tiny"]).to(DEVICE)
    losses = []
    train(
        model,
        root,
        tmp_path,
        config,
        workers=2,
        samples_on_device=True,
        report=lambda progress: losses.append(progress.loss),
    )
    assert len(losses) == 3
    assert torch.tensor(losses).isfinite().all()
