"""Islands and holes of masks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from emavos.cli import main
from emavos.frames import clean_mask
from emavos.io import read_mask, write_mask


def components(plane, corners):
    """The parts of a plane as sets of pixels, by a flood from each."""
    left, parts = {*map(tuple, np.argwhere(plane))}, []
    steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0) and (corners or not a * b)]
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            row, column = edge.pop()
            part.add((row, column))
            beside = {(row + a, column + b) for a, b in steps} & left
            left -= beside
            edge.extend(beside)
        parts.append(part)
    return parts


def cleaned_plainly(mask, area):
    out = mask.copy()
    for id in np.unique(mask[mask != 0]):
        parts = sorted(components(mask == id, corners=True), key=lambda part: (-len(part), min(part)))
        for part in parts[1:]:
            if len(part) < area:
                out[tuple(np.array([*part]).T)] = 0
    filled = out.copy()
    for part in components(out == 0, corners=False):
        around = {(r + a, c + b) for r, c in part for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))} - part
        inside = all(0 <= r < mask.shape[0] and 0 <= c < mask.shape[1] for r, c in around)
        ids = {out[place] for place in around} if inside else set()
        if len(part) < area and len(ids) == 1:
            filled[tuple(np.array([*part]).T)] = ids.pop()
    return filled


@pytest.mark.parametrize("seed", range(60))
def test_cleaning_is_what_a_flood_of_each_part_finds(seed):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 14, 2))
    mask = rng.choice([0, 1, 7, -3], size, p=[[0.5, 0.4, 0.05, 0.05], [0.2, 0.7, 0.1, 0]][seed % 2]).astype(
        np.int32
    )
    for area in (0, 1, 2, 4, 30):
        cleaned = clean_mask(mask, area)
        assert cleaned.dtype == mask.dtype
        assert np.array_equal(cleaned, cleaned_plainly(mask, area))
        assert np.array_equal(clean_mask(mask.copy(order="F"), area), cleaned)


def test_no_object_is_lost_and_a_speck_of_another_inside_becomes_the_object_around_it():
    mask = np.zeros((12, 12), np.uint8)
    mask[2:10, 2:10], mask[5, 5], mask[0, 0], mask[4, 8], mask[11, 5] = 1, 2, 2, 0, 3
    cleaned = clean_mask(mask, 5)
    assert np.unique(cleaned).tolist() == [0, 1, 2, 3]
    assert cleaned[4, 8] == 1
    assert (cleaned == 2).sum() == 1
    mask[0, 0:2] = 2  # now the largest part of 2 is outside
    assert clean_mask(mask, 5)[5, 5] == 1


@pytest.mark.parametrize(
    ("mask", "area", "words"),
    [
        (np.zeros((2, 2), float), 3, "of integers"),
        (np.zeros((2, 2, 2), int), 3, "of integers"),
        (np.zeros((2, 2), int), -1, "whole number"),
        (np.zeros((2, 2), int), 2.5, "whole number"),
    ],
)
def test_what_cannot_be_cleaned_is_refused(mask, area, words):
    with pytest.raises(ValueError, match=words):
        clean_mask(mask, area)


def test_the_command_cleans_what_it_writes(tmp_path):
    (tmp_path / "f").mkdir()
    for i in range(2):
        Image.new("RGB", (48, 32), (90, 90, 90)).save(tmp_path / "f" / f"{i}.png")
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 8:24], mask[12:14, 12:14], mask[2:4, 40:42] = 1, 0, 1
    write_mask(tmp_path / "m.png", mask)
    arguments = [
        "--mask",
        tmp_path / "m.png",
        "--out",
        tmp_path / "out",
        "--size",
        "32",
        "--clean",
        "9",
        "--quiet",
    ]
    assert main(["segment", str(tmp_path / "f"), *map(str, arguments)]) == 0
    mask[12:14, 12:14], mask[2:4, 40:42] = 1, 0
    assert np.array_equal(read_mask(tmp_path / "out" / "0.png"), mask)
