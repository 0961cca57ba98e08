from __future__ import annotations

import os
import subprocess
import sys

import pytest

import kills
from emavos.cli import main
from emavos.evaluation.prediction import Run
from emavos.training.log import Log, Progress

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked and killed")


@pytest.mark.parametrize(
    "command", ["evaluate", *(pytest.param(name, marks=pytest.mark.slow) for name in ("segment", "train"))]
)
def test_a_run_that_was_killed_goes_on_to_the_bytes_of_one_that_was_not(command):
    done = subprocess.run(
        [sys.executable, kills.__file__, command, "--rounds", "2", "--seed", "1"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("left", ["", "iteration,lo"])
def test_a_log_whose_run_was_killed_at_its_first_line_has_a_whole_one(tmp_path, left):
    (tmp_path / "log.csv").write_text(left)
    log = Log(tmp_path, 0, tensorboard=False)
    log.progress(Progress(0, 0.5, 0.5, 0.5, 0.5, 4.0, 1.0, 0.0, 0.0))
    log.close()
    header = b"iteration,loss,overlap,matching,best,cells,learning_rate,seconds,waited\n"
    expected = header + b"0,0.5,0.5,0.5,0.5,4,1,0,0\n"
    assert (tmp_path / "log.csv").read_bytes() == expected


def test_an_evaluation_sweeps_the_reports_of_one_that_was_killed_and_says_what_it_could_not(tmp_path):
    kills.draw("evaluate", tmp_path / "data")
    argv = kills.command("evaluate", tmp_path / "data", tmp_path)
    assert main(argv) == 0
    run = Run.read(tmp_path / "out" / "masks" / "tiny+size=64")
    parameters, machine = run.parameters, run.machine
    run.parameters, run.machine = None, ""  # killed between the last video and this
    run.write(tmp_path / "out" / "masks" / "tiny+size=64")
    for folder in ("", "scores/tiny+size=64", "masks/tiny+size=64"):
        (tmp_path / "out" / folder / ".report.html.01234567.partial").write_text("half")
    assert main(argv) == 0
    run = Run.read(tmp_path / "out" / "masks" / "tiny+size=64")
    assert (run.parameters, run.machine) == (parameters, machine)
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]
