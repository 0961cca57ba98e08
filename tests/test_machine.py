from __future__ import annotations

import numpy as np
import pytest
import torch

from emavos.machine import PeakMemory, describe

CPU = torch.device("cpu")


def test_a_machine_is_told_with_its_threads_and_torch():
    text = describe(CPU)
    assert f"{torch.get_num_threads()} threads" in text
    assert torch.__version__ in text


def test_the_peak_is_that_since_it_was_made():
    before = PeakMemory(CPU)
    if before.mb() is None:
        pytest.skip("this system cannot forget the peak of what ran before")
    start = before.mb()
    block = np.ones(200_000_000, np.uint8)
    peak = before.mb()
    assert peak >= start + 150
    del block
    assert before.mb() >= peak - 10  # the kernel counts in batches
    assert PeakMemory(CPU).mb() < peak - 100
