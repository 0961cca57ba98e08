from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from emavos import Predictor, Result
from emavos.bridges import box_of
from emavos.io import palette, read_mask
from emavos.models import PRESETS, STCN
from emavos.visualize import colour, overlay


def result(mask, ids=(1, 700, -3)):
    planes = torch.stack([torch.from_numpy(mask == id) for id in (0, *ids)]).float()
    return Result(4, ids, planes, (0.93, 0.5, 0.0)[: len(ids)])


@pytest.fixture
def mask():
    mask = np.zeros((40, 60), np.int32)
    mask[5:15, 5:15], mask[20:35, 30:50], mask[22:30, 33:40] = 1, 700, 0
    return mask


def test_a_result_knows_the_boxes_and_polygons_of_visible_objects(mask):
    one = result(mask)
    assert one.boxes == {1: (5, 5, 15, 15), 700: (30, 20, 50, 35)}
    assert one.boxes[1] == box_of(mask == 1)
    polygons = one.polygons()
    assert [*polygons] == [1, 700]
    assert sorted(map(tuple, polygons[1][0].tolist())) == [(5, 5), (5, 14), (14, 5), (14, 14)]
    assert len(result(mask).polygons(tolerance=2)[700]) == 1


def test_a_result_is_saved_as_a_mask_in_the_colours_of_its_overlay(mask, tmp_path):
    mask[mask == 700] = 2
    one = result(mask, (1, 2))
    one.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask)
    frame = np.full((40, 60, 3), 90, np.uint8)
    shown = one.overlay(Image.fromarray(frame), alpha=1, contour=False)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(shown[mask != 0], np.array(image.convert("RGB"))[mask != 0])
    np.testing.assert_array_equal(one.overlay(torch.from_numpy(frame).permute(2, 0, 1)), overlay(frame, mask))
    assert colour(2) == tuple(palette()[2])


def test_what_a_result_cannot_do_is_refused(mask, tmp_path):
    with pytest.raises(ValueError, match=r"a\.jpg is not named \.png"):
        result(mask).save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="id -3 has no place in a PNG"):
        result(np.where(mask == 1, -3, mask)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="mask is 40x60 but frame is 8x9"):
        result(mask).overlay(np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="a tolerance is"):
        result(mask).polygons(tolerance=-1)


def test_results_predictors_and_sessions_say_what_they_are(mask):
    assert (
        repr(result(mask)) == "Result(index=4, size=40x60, ids=(1, 700, -3), confidences=(0.93, 0.50, 0.00))"
    )
    predictor = Predictor(STCN(PRESETS["stcn-tiny"]).eval(), size=None)
    said = repr(predictor)
    assert said.startswith("Predictor(stcn-tiny, ")
    assert "device=cpu, dtype=float32, size=source" in said
    assert (
        repr(predictor.session().step(np.zeros((32, 48, 3), np.uint8)))
        == "Result(index=0, size=32x48, no objects)"
    )
    session = predictor.session(start=3)
    assert repr(session) == "Session(index=3, ids=(), frame_size=unknown, memory=0.0 MB)"
    session.step(np.zeros((32, 48, 3), np.uint8), np.eye(32, 48, dtype=np.int32))
    assert repr(session).startswith("Session(index=4, ids=(1,), frame_size=32x48, memory=")
