from __future__ import annotations

import pytest

from emavos.benchmark.cost import gflop
from emavos.models import STCNConfig


def test_operations_are_counted_as_the_networks_are_known_to_need_them():
    """Per frame of 480x864 STCN needs 71 GFLOP for a key, 86 for a value of an object, and 199 to decode it.

    Counted of what a CPU does, where large convolutions are done by Winograd's method, the last was 54.
    """
    counts = gflop(STCNConfig(), 480, 854, memory_frames=1)
    assert counts["encode_key"] == pytest.approx(71, rel=0.02)
    assert counts["encode_value"] == pytest.approx(86, rel=0.02)
    assert counts["decode"] == pytest.approx(199, rel=0.02)
