from __future__ import annotations

import pytest
import torch

from emavos.benchmark.cost import gflop
from emavos.models import STCN


def test_operations_are_counted_as_the_networks_are_known_to_need_them():
    """Per frame of 480x864 STCN needs 71 GFLOP for a key and 86 for a value of an object."""
    with torch.device("meta"):
        counts = gflop(STCN(), 480, 854, memory_frames=1)
    assert counts["encode_key"] == pytest.approx(71, rel=0.02)
    assert counts["encode_value"] == pytest.approx(86, rel=0.02)
