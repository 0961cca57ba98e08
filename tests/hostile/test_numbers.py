from __future__ import annotations

import numpy as np
import pytest
import torch

from emavos import Session
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


def test_a_frame_that_is_not_finite_is_named():
    session = Session(load_model(), size=None)
    with pytest.raises(ValueError, match="frame 0: a float frame is in"):
        session.step(torch.full((3, 32, 48), float("nan")))
