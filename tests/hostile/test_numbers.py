from __future__ import annotations

import numpy as np
import pytest
import torch

from emavos import Session
from emavos.models import PRESETS, STCN
from emavos.models.encoders import _of_length
from emavos.weights import load_model

FRAME = np.full((32, 48, 3), 90, np.uint8)
MASK = np.zeros((32, 48), np.int32)
MASK[8:24, 8:24] = 7


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_name_frame_and_object(bad):
    model = load_model()
    with torch.no_grad():
        next(model.value_encoder.parameters()).fill_(bad)
    session = Session(model, size=None)
    session.step(FRAME, MASK)
    with pytest.raises(FloatingPointError, match="frame 1: the network gives NaN or infinity for object 7"):
        session.step(FRAME)
    assert session.index == 1


def test_unit_keys_are_those_of_normalize_to_the_bit():
    encoder = STCN(PRESETS["stcn-tiny-unit"]).key_encoder
    generator = torch.Generator().manual_seed(0)
    for scale in (0, 1e-30, 1e-6, 1, 1e6, 1e16):
        key = torch.randn(2, 64, 3, 4, generator=generator) * scale
        wanted = torch.nn.functional.normalize(key, dim=1) * encoder.log_scale.exp()
        assert torch.equal(_of_length(key, encoder.log_scale), wanted)


def test_a_frame_that_is_not_finite_is_named():
    session = Session(load_model(), size=None)
    with pytest.raises(ValueError, match="frame 0: a float frame is in"):
        session.step(torch.full((3, 32, 48), float("nan")))
