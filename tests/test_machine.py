from __future__ import annotations

import mmap
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emavos.machine import PeakMemory, describe, multiplies_bfloat16

CPU = torch.device("cpu")


@pytest.mark.parametrize(("threads", "words"), [(1, "1 thread"), (2, "2 threads")])
def test_a_machine_is_told_with_its_threads_and_torch(monkeypatch, threads, words):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert describe(CPU).endswith(f", {words}, torch {torch.__version__}")


def test_the_peak_is_that_since_it_was_made():
    before = PeakMemory(CPU)
    if before.mb() is None:
        pytest.skip("this system cannot forget the peak of what ran before")
    start = before.mb()
    with mmap.mmap(-1, 200_000_000) as block:  # which goes back at once, whatever the C library keeps
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        peak = before.mb()
    assert peak >= start + 150
    assert before.mb() >= peak - 10  # the kernel counts in batches
    assert PeakMemory(CPU).mb() < peak - 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_what_is_freed_is_kept_where_that_was_asked_for():
    code = """
import resource, sys
import numpy as np
from emavos.machine import keep_freed_memory
if sys.argv[1:]:
    assert keep_freed_memory()
def faults():
    for _ in range(10):
        np.ones(40 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
print(faults() - before)
"""
    commands = [sys.executable, "-c", code], [sys.executable, "-c", code, "keep"]
    given, kept = (
        int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for command in commands
    )
    assert kept < given / 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries keep what they like")
def test_the_memory_of_a_frame_is_not_zeroed_again_for_the_next():
    code = """
import resource
import torch
from emavos import Predictor
from emavos.demo import synthetic_clip
torch.set_num_threads(2)
frames, masks = synthetic_clip(frames=12, size=(480, 854))
faults = []
for result in Predictor.from_pretrained(device="cpu").propagate([*frames], masks[0] * (masks[0] == 3)):
    result.mask
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[-7])
"""
    names = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    faults = int(subprocess.check_output([sys.executable, "-c", code], env=environment, text=True))
    assert faults < 6 * 3000  # pages of six frames; there were 15,000 in each


def spins(code, **settings):
    """How many turns OpenMP itself says that waiting threads spin, in each process that loads torch."""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    command = [sys.executable, "-c", code]
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", **settings}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return re.findall(r"GOMP_SPINCOUNT = '(\d+)'", run.stderr)


WAITING = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
SPIN = "from emavos.machine import spin_briefly; spin_briefly(); import torch"
CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import torch'])"


@pytest.fixture(scope="module")
def default():
    turns = spins("import torch")
    return turns or pytest.skip("this torch has another OpenMP than that of GCC")


def test_threads_of_a_command_and_of_its_processes_wait_briefly(default):
    command = "from emavos.cli import main; main(['doctor', '--json'])"
    assert spins(f"{command}; {CHILD}") == ["50000", "50000"] != default * 2


@pytest.mark.parametrize(
    ("settings", "turns"),
    [({}, "50000"), ({"GOMP_SPINCOUNT": "123"}, "123"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_what_you_set_for_waiting_threads_stays(default, settings, turns):
    assert spins(SPIN, **settings) == [turns]


def test_threads_of_a_python_program_wait_as_openmp_lets_them(default):
    assert spins(f"import emavos; emavos.Predictor; {CHILD}") == default * 2


@pytest.mark.parametrize(
    ("flags", "answer"),
    [("fpu avx512f avx512_bf16 clzero", True), ("amx_bf16 amx_tile", True), ("fpu avx2", False)],
)
def test_bfloat16_is_found_among_the_flags_of_the_processor(flags, answer, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: f"processor\t: 0\nflags\t\t: {flags}\n")
    assert multiplies_bfloat16() is answer


def test_without_a_list_of_flags_bfloat16_is_not_known(monkeypatch):
    def read(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", read)
    assert multiplies_bfloat16() is None
