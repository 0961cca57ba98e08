"""Detections paired with the objects that are followed."""

from __future__ import annotations

from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from emavos.bridges import box_of, match
from emavos.evaluation.assignment import assign

MASK = np.zeros((40, 60), np.int32)
MASK[5:15, 5:15], MASK[20:30, 30:50], MASK[35:38, 2:8] = 7, -2, 9


def shifted(id, by):
    return np.roll(id == MASK, by, axis=1)


@pytest.mark.parametrize("seed", range(40))
def test_the_assignment_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(0, 6, 2)
    gain = rng.random((rows, columns)).round(1 if seed % 2 else 9)
    pairs = assign(gain)
    assert len(pairs) == min(rows, columns)
    assert all(len({*side}) == len(pairs) for side in zip(*pairs, strict=True))
    wide = gain if rows <= columns else gain.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(order))
        for order in permutations(range(wide.shape[1]), len(wide))
    )
    assert sum(gain[pair] for pair in pairs) == pytest.approx(best)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, list])
def test_planes_are_paired_with_the_objects_that_they_cover(kind):
    planes = np.stack([shifted(-2, 3), np.roll(MASK == 7, 20, axis=1), shifted(7, 1)])
    found = match(SimpleNamespace(mask=MASK), kind(planes))
    assert found.pairs == {0: -2, 2: 7}
    assert (found.new, found.lost) == ((1,), (9,))
    assert found.iou[2] == pytest.approx(90 / 110)
    assert found.iou[0] == pytest.approx(170 / 230)


def test_boxes_are_paired_with_the_boxes_of_objects():
    boxes = np.array([[30, 20, 50, 31], [5.0, 5, 15, 15], [0, 0, 3, 3]])
    for detections in (boxes, torch.from_numpy(boxes), SimpleNamespace(xyxy=boxes, mask=None)):
        found = match(MASK, detections)
        assert (found.pairs, found.new, found.lost) == ({0: -2, 1: 7}, (2,), (9,))
    assert box_of(MASK == 9) == (2, 35, 8, 38)


def test_an_object_is_paired_once_and_a_pair_below_the_least_does_not_count():
    planes = np.stack([shifted(7, 1), shifted(7, 0)])
    assert match(MASK, planes).pairs == {1: 7}
    assert match(MASK, planes[:1], least=0.9).pairs == {}
    assert match(MASK, SimpleNamespace(xyxy=None, mask=planes, confidence=None)).new == (0,)


def test_nothing_is_paired_with_nothing():
    assert match(MASK, np.zeros((0, 40, 60), bool)).lost == (-2, 7, 9)
    assert match(np.zeros((40, 60), int), np.stack([MASK == 7])).new == (0,)


@pytest.mark.parametrize(
    ("mask", "detections", "least", "words"),
    [
        (MASK, np.zeros((1, 9, 9), bool), 0.5, "object 0 is 9x9 but wanted is 40x60"),
        (MASK, np.array([[5, 5, 1, 9.0]]), 0.5, r"boxes are \(N, 4\)"),
        (MASK, np.zeros((0, 4)), 0, "least is"),
        (MASK.astype(float), np.zeros((0, 4)), 0.5, "of integers"),
    ],
)
def test_what_cannot_be_compared_is_refused(mask, detections, least, words):
    with pytest.raises(ValueError, match=words):
        match(mask, detections, least)
