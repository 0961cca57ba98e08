"""What a frame of 480x864 costs, counted rather than timed: no machine changes it."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from emavos.models import PRESETS, STCN


def gflop(run):
    with FlopCounterMode(display=False) as counter:
        out = run()
    return out, counter.get_total_flops() / 1e9


def costs(preset, objects):
    with torch.device("meta"), torch.no_grad():
        model = STCN(PRESETS[preset]).eval()
        frame = torch.empty(1, 3, 480, 864)
        features, key = gflop(lambda: model.encode_key(frame))
        prob = torch.empty(1, objects, 480, 864)
        values, value = gflop(lambda: model.encode_value(frame, features, prob))
        _, decode = gflop(lambda: model.decode(values, features))
    return {"key": key, "value": value, "decode": decode}


@pytest.mark.parametrize(
    ("preset", "objects", "expected"),
    [
        ("stcn", 1, {"key": 71.4, "value": 85.6, "decode": 198.9}),
        ("stcn", 3, {"key": 71.4, "value": 195.8, "decode": 443.7}),  # of the reference: 257 and 474
        ("stcn-tiny", 1, {"key": 4.69, "value": 6.55, "decode": 4.78}),
        ("stcn-tiny", 3, {"key": 4.69, "value": 18.72, "decode": 12.98}),
    ],
)
def test_a_frame_costs_so_many_gflop(preset, objects, expected):
    assert costs(preset, objects) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(("kind", "most"), [("self", 1.04), ("external", 1.003)])
def test_attention_on_both_encoders_costs_little_of_a_frame(kind, most):
    plain, attended = (costs(preset, 1) for preset in ("stcn", f"stcn-{kind}-both"))
    assert 1 < sum(attended.values()) / sum(plain.values()) < most
