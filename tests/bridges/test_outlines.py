from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from emavos.bridges import outlines


def filled(polygons, shape):
    image = Image.new("1", shape[::-1])
    for points in polygons:
        ImageDraw.Draw(image).polygon([*map(tuple, points.tolist())], fill=1, outline=1)
    return np.array(image)


@given(arrays(bool, st.tuples(st.integers(1, 11), st.integers(1, 11))))
@settings(deadline=None, max_examples=150)
def test_polygons_that_are_filled_are_the_mask_whatever_its_parts_and_holes(plane):
    polygons = outlines(plane)
    assert all(len(points) >= 3 for points in polygons)
    np.testing.assert_array_equal(filled(polygons, plane.shape), plane)


def test_each_connected_part_is_one_polygon_with_its_holes():
    plane = np.zeros((30, 40), bool)
    plane[2:28, 2:20], plane[5:10, 5:10], plane[12:25, 5:15], plane[14:20, 7:12] = True, False, False, True
    plane[4, 30] = True
    polygons = outlines(plane)
    assert len(polygons) == 3  # the ring, the island inside it, and a single pixel
    assert polygons[[len(p) for p in polygons].index(3)].tolist() == [[30, 4]] * 3
    np.testing.assert_array_equal(filled(polygons, plane.shape), plane)
    assert outlines(np.zeros((3, 4), bool)) == []


def test_straight_sides_have_no_points_between_corners_and_a_tolerance_saves_more():
    rows, columns = np.mgrid[:200, :200]
    disc = np.hypot(rows - 100, columns - 100) < 80
    (exact,), (loose,) = outlines(disc), outlines(disc, tolerance=1.5)
    assert 3 < len(loose) < len(exact) / 4
    other = filled([loose], disc.shape)
    assert (other & disc).sum() / (other | disc).sum() > 0.97


@pytest.mark.parametrize(
    ("plane", "tolerance", "words"),
    [
        (np.zeros((2, 3)), 0, "a plane is"),
        (np.zeros((1, 2, 3), bool), 0, "a plane is"),
        (np.zeros((2, 3), bool), -1, "a tolerance is"),
        (np.zeros((2, 3), bool), float("nan"), "a tolerance is"),
    ],
)
def test_what_has_no_outline_is_refused(plane, tolerance, words):
    with pytest.raises(ValueError, match=words):
        outlines(plane, tolerance)
