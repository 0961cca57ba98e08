"""Simulated clicks, and the measures that count them, against cases made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import clicks
from emavos.clicks import Clicked
from emavos.clicks.simulate import distance_inside, next_click


def slow_distance(mask):
    """The definition: the distance to the nearest pixel outside, of which the border of the frame is full."""
    padded = np.pad(mask, 1)
    outside = np.argwhere(~padded)
    found = np.zeros(mask.shape)
    for y, x in np.argwhere(mask):
        found[y, x] = np.sqrt(((outside - (y + 1, x + 1)) ** 2).sum(axis=1)).min()
    return found


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (13, 17), (30, 9)])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.9, 1.0])
def test_the_distance_inside_a_mask_is_that_of_its_definition(size, share):
    mask = torch.rand(2, *size, generator=torch.Generator().manual_seed(0)) < share
    found = distance_inside(mask)
    for plane, distance in zip(mask.numpy(), found.numpy(), strict=True):
        np.testing.assert_allclose(distance, slow_distance(plane), atol=1e-4)


def test_the_first_click_is_in_the_middle_of_the_object():
    truth = torch.zeros(20, 30, dtype=torch.bool)
    truth[5:10, 10:15] = True
    assert next_click(torch.zeros_like(truth), truth) == (12.5, 7.5, 1)


def test_the_next_click_takes_away_what_is_most_wrong():
    truth, mask = torch.zeros(20, 30, dtype=torch.bool), torch.zeros(20, 30, dtype=torch.bool)
    truth[5:10, 10:15] = True
    mask[5:10, 10:15] = True
    mask[0:20, 20:29] = True
    x, y, label = next_click(mask, truth)
    assert (x, label) == (24.5, 0)
    assert 4 < y < 16


def test_a_mask_without_errors_needs_no_click():
    truth = torch.ones(4, 4, dtype=torch.bool)
    assert next_click(truth, truth) is None


def test_clicks_for_training_fall_anywhere_in_the_middle_of_the_error():
    truth = torch.zeros(40, 40, dtype=torch.bool)
    truth[10:30, 10:30] = True
    rng = np.random.default_rng(0)
    spots = {next_click(torch.zeros_like(truth), truth, rng)[:2] for _ in range(30)}
    assert len(spots) > 10
    assert all(14 <= x <= 26 and 14 <= y <= 26 for x, y in spots)


def test_the_number_of_clicks_is_that_after_which_the_overlap_was_there_first():
    found = [0.5, 0.82, 0.79, 0.91]
    assert [clicks.clicks_needed(found, wanted) for wanted in (0.5, 0.8, 0.85, 0.95)] == [1, 2, 4, 4]


def test_a_tool_that_adds_the_clicked_row_needs_a_click_for_each():
    truth = torch.zeros(9, 9, dtype=torch.bool)
    truth[[1, 4, 7], 1:8] = True

    def click(points, labels, last):
        prob = torch.zeros(9, 9)
        for (_, y), label in zip(points, labels, strict=True):
            prob[int(y), 1:8] = float(label)
        return Clicked(prob, 0.5)

    found, _ = clicks.overlaps(click, truth, most=5)
    assert found == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])
    line = clicks.table({"rows": found})
    assert (line["NoC@80"], line["IoU@1"], line["IoU@3"]) == (3, pytest.approx(1 / 3), 1)
