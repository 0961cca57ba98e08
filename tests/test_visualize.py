from __future__ import annotations

import numpy as np
import pytest

from emavos.visualize import PAPER, colour, comparison_grid, contact_sheet, curves, overlay


def scene():
    frame = np.full((40, 60, 3), 100, np.uint8)
    mask = np.zeros((40, 60), np.int32)
    mask[5:15, 5:15], mask[20:35, 30:50] = 2, 700
    return frame, mask


def test_an_overlay_leaves_the_background_and_does_not_touch_its_arguments():
    frame, mask = scene()
    shown = overlay(frame, mask)
    assert shown.shape == frame.shape
    assert shown.dtype == np.uint8
    assert (shown[mask == 0] == 100).all()
    assert (shown[mask != 0] != 100).any(axis=-1).all()
    assert (frame == 100).all()


def test_inside_an_object_colour_and_frame_are_mixed():
    frame, mask = scene()
    shown = overlay(frame, mask, alpha=0.25)
    np.testing.assert_allclose(shown[10, 10], 75 + 0.25 * np.array(colour(2)), atol=1)
    assert (overlay(frame, mask, alpha=0, contour=False) == frame).all()


def test_contours_lie_on_the_border_of_objects_and_inside():
    frame, mask = scene()
    shown = overlay(frame, mask, alpha=0)
    changed = (shown != frame).any(axis=-1)
    expected = mask != 0
    expected[6:14, 6:14] = expected[21:34, 31:49] = False
    np.testing.assert_array_equal(changed, expected)


def test_an_object_has_the_same_colour_whoever_else_is_there():
    frame, mask = scene()
    both, alone = overlay(frame, mask), overlay(frame, np.where(mask == 700, mask, 0))
    np.testing.assert_array_equal(both[mask == 700], alone[mask == 700])
    np.testing.assert_array_equal(overlay(frame, mask, ids=[700]), alone)
    assert len({colour(i) for i in range(1, 25)}) == 24


def test_an_empty_mask_shows_the_frame():
    frame, mask = scene()
    np.testing.assert_array_equal(overlay(frame, np.zeros_like(mask)), frame)
    np.testing.assert_array_equal(overlay(frame, mask, ids=[]), frame)


def test_a_mask_of_another_size_is_refused():
    frame, mask = scene()
    with pytest.raises(ValueError, match="mask is 20x60 but frame is 40x60"):
        overlay(frame, mask[:20])
    with pytest.raises(ValueError, match="alpha"):
        overlay(frame, mask, alpha=2)


def test_a_contact_sheet_holds_every_image_on_paper():
    images = [np.full((40, 60, 3), level, np.uint8) for level in (10, 60, 110, 160, 210)]
    sheet = contact_sheet(images, columns=3, width=320)
    assert sheet.shape[1:] == (320, 3)
    assert (sheet[[0, -1]] == PAPER).all()
    assert (sheet[:, [0, -1]] == PAPER).all()
    assert {10, 60, 110, 160, 210} == set(np.unique(sheet)) - set(PAPER)


def test_labels_make_room_for_themselves():
    images = [np.zeros((40, 60, 3), np.uint8)] * 2
    plain = contact_sheet(images, width=320)
    labelled = contact_sheet(images, ["frame 0", "a very long label " * 10], width=320)
    assert len(labelled) > len(plain)
    assert (labelled[:, :3] == PAPER).all()
    assert (labelled[:, -3:] == PAPER).all()


def test_a_contact_sheet_that_cannot_be_is_refused():
    image = np.zeros((40, 60, 3), np.uint8)
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([])
    with pytest.raises(ValueError, match="1 labels for 2 images"):
        contact_sheet([image] * 2, ["one"])
    for columns in (0, 100):
        with pytest.raises(ValueError, match="columns do not fit"):
            contact_sheet([image] * 100, columns=columns, width=200)


def test_a_grid_names_its_rows_and_columns():
    images = [[np.full((40, 60, 3), 10 + 50 * r + 20 * c, np.uint8) for c in range(2)] for r in range(3)]
    grid = comparison_grid(images, ["truth", "a", "a very long name " * 10], ["00001", "00002"], width=320)
    assert grid.shape[1:] == (320, 3)
    assert {10 + 50 * r + 20 * c for r in range(3) for c in range(2)} <= set(np.unique(grid))
    assert (grid[[0, -1]] == PAPER).all()
    assert (grid[:, [0, -1]] == PAPER).all()


def test_a_grid_that_cannot_be_is_refused():
    image = np.zeros((40, 60, 3), np.uint8)
    for images, columns in (([], ["a"]), ([[image]], ["a", "b"]), ([[]], [])):
        with pytest.raises(ValueError, match="as many images as columns"):
            comparison_grid(images, ["row"] * len(images), columns)
    with pytest.raises(ValueError, match="2 names for 1 rows"):
        comparison_grid([[image]], ["a", "b"], ["c"])
    with pytest.raises(ValueError, match="30 columns do not fit on 300 pixels"):
        comparison_grid([[image] * 30], ["a"], ["c"] * 30, width=300)


def ink_of(picture, row):
    """Where a row of a picture of curves is coloured: neither paper, nor gray as lines and letters are."""
    return np.flatnonzero(np.ptp(picture[row].astype(int), axis=1) > 40)


def test_a_curve_is_as_high_as_its_values():
    low, high = (curves({"a": [value] * 9}, width=320, height=160) for value in (0.0, 1.0))
    rows = [[y for y in range(160) if len(ink_of(picture, y)) > 100] for picture in (low, high)]
    assert min(rows[0]) > max(rows[1]) + 60


def test_a_curve_is_broken_where_there_is_no_value():
    values = [0.5] * 40
    whole = curves({"a": values}, width=480, height=160)
    values[15:25] = [float("nan")] * 10
    broken = curves({"a": values}, width=480, height=160)
    row = max(range(40, 160), key=lambda y: len(ink_of(whole, y)))
    assert len(ink_of(broken, row)) < 0.8 * len(ink_of(whole, row))
    assert np.diff(ink_of(broken, row)).max() > 80


def test_one_value_is_seen():
    nan = float("nan")
    picture = curves({"a": [nan, 0.5, nan]}, width=320, height=160)
    assert sum(len(ink_of(picture, y)) for y in range(40, 160)) > 3


def test_curves_that_cannot_be_are_refused():
    for series in ({}, {"a": []}):
        with pytest.raises(ValueError, match="at least one value"):
            curves(series)
    with pytest.raises(ValueError, match="240x120"):
        curves({"a": [1.0]}, width=100)
    with pytest.raises(ValueError, match="40 names leave no room"):
        curves({f"a long name of a method {i}": [1.0] for i in range(40)}, height=200)
