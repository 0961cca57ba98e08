from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from emavos.models import PRESETS, STCN
from emavos.training import TrainConfig, train
from emavos.training.distributed import joined, mean
from trees import training_tree

CONFIG = TrainConfig(
    iterations=3,
    batch=4,
    size=48,
    decay_from=3,
    warmup=0,
    lr=1e-4,
    trunk_lr=1e-4,
    all_pixels_until=0,
    hardest_from=2,
    sampling="videos",  # of one and of two objects in the same batch
    ema=0.5,
    leave_out=("two",),
)
CODE = """
import sys, torch
from emavos.models import PRESETS, STCN
from emavos.training import TrainConfig, train
from emavos.training.distributed import joined
torch.manual_seed(0)
with joined(torch.device("cpu")):
    config = TrainConfig.from_json(sys.argv[3])
    train(STCN(PRESETS[config.preset]), sys.argv[1], sys.argv[2], config, workers=0, validate_every=3)
"""


def test_two_processes_learn_what_one_does_from_the_whole_batch(tmp_path):
    data = training_tree(tmp_path / "data")
    (tmp_path / "run.py").write_text(CODE)
    arguments = [str(data), str(tmp_path / "two"), CONFIG.to_json()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(tmp_path / "run.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the two have: Adam makes steps of a gradient that is rounding alone
    try:
        train(STCN(PRESETS[CONFIG.preset]), data, tmp_path / "one", CONFIG, workers=0, validate_every=3)
    finally:
        torch.set_num_threads(threads)
    one, two = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-6, rtol=1e-5, msg=name)
    assert len((tmp_path / "two" / "validation.csv").read_text().splitlines()) == 2
    rows = [(tmp_path / name / "log.csv").read_text().splitlines()[1:] for name in ("one", "two")]
    losses = [[float(row.split(",")[1]) for row in each] for each in rows]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert [len(each) for each in losses] == [3, 3]


def test_a_run_of_which_one_process_is_told_to_stop_is_not_done(tmp_path):
    data = training_tree(tmp_path / "data")
    settings = [f"--set={field}" for field in ("size=48", "iterations=3", "decay_from=3", "hardest_from=3",
                                               "all_pixels_until=0", "batch=2")]  # fmt: skip
    arguments = ["train", "--stage", "tiny-1", "--init", "tiny", "--data", str(data), "--workers", "0",
                 "--out", str(tmp_path / "run"), "--device", "cpu", *settings]  # fmt: skip
    (tmp_path / "run.py").write_text(
        "import os, signal, sys; from emavos import training; from emavos.cli import main\n"
        "step = training.learner.Learner.step\n"
        "def stopped(self, *args):\n"
        "    if os.environ['RANK'] == '1':\n        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return step(self, *args)\n"
        "training.learner.Learner.step = stopped\nprint('ended', main(sys.argv[1:]))\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(tmp_path / "run.py"), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert (tmp_path / "run" / "checkpoint.safetensors").exists(), done.stderr
    assert not (tmp_path / "run" / "model").exists()


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(torch.device("cpu")) as device:
        assert device == torch.device("cpu")
        assert torch.equal(mean(torch.tensor([2.0])), torch.tensor([2.0]))
