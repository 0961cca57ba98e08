from __future__ import annotations

import numpy as np
import pytest
import torch

from emavos.bridges import encode_rle, first_mask

SQUARE = np.zeros((20, 30), bool)
SQUARE[5:15, 5:15] = True
CORNER = np.zeros((20, 30), bool)
CORNER[10:18, 10:20] = True
OUTLINE = [[5, 5], [14, 5], [14, 14], [5, 14]]  # of the square, its border pixels included
FLAT = [5, 5, 14, 5, 14, 14, 5, 14]  # the same
BOTH = np.where(CORNER, 2, np.where(SQUARE, 1, 0))


@pytest.mark.parametrize(
    "objects",
    [
        np.stack([SQUARE, CORNER]),
        torch.from_numpy(np.stack([SQUARE, CORNER])),
        torch.from_numpy(np.stack([SQUARE, CORNER]))[:, None].float(),
        [SQUARE, CORNER],
        [torch.from_numpy(SQUARE), CORNER.astype(np.uint8)],
        [encode_rle(SQUARE), encode_rle(CORNER)],
        [{"segmentation": SQUARE}, {"segmentation": encode_rle(CORNER)}],
        [OUTLINE, CORNER],
        [FLAT, CORNER],
        [np.array(OUTLINE), CORNER],
        [{"segmentation": [FLAT]}, {"segmentation": CORNER}],
    ],
    ids=lambda objects: type(objects).__name__,
)
def test_all_ways_to_say_the_same_give_the_same_mask(objects):
    np.testing.assert_array_equal(first_mask(objects, size=(20, 30), scores=[0.5, 0.6]), BOTH)


def test_one_plane_is_one_object():
    np.testing.assert_array_equal(first_mask(SQUARE), SQUARE.astype(np.int32))
    for id in (9, -9, 2**31 - 1, -(2**31)):
        np.testing.assert_array_equal(first_mask(encode_rle(SQUARE), ids=[id]), np.where(SQUARE, id, 0))


def test_a_pixel_goes_to_the_higher_score_whatever_the_order():
    for order in ([0, 1], [1, 0]):
        planes, scores = np.stack([SQUARE, CORNER])[order], np.array([0.9, 0.8])[order]
        mask = first_mask(planes, scores=scores, ids=np.array([1, 2])[order].tolist())
        np.testing.assert_array_equal(mask, np.where(SQUARE, 1, np.where(CORNER, 2, 0)))


def test_scores_come_with_the_objects():
    for key in ("predicted_iou", "score"):
        objects = [{"segmentation": SQUARE, key: 0.1}, {"segmentation": CORNER, key: 0.9}]
        np.testing.assert_array_equal(first_mask(objects), BOTH)


def test_without_scores_a_part_lies_on_its_whole():
    part = np.zeros_like(SQUARE)
    part[8:10, 8:10] = True
    for order in ([0, 1], [1, 0]):
        mask = first_mask(np.stack([SQUARE, part])[order], ids=np.array([1, 2])[order].tolist())
        assert (mask[part] == 2).all()
        assert (mask == 1).sum() == SQUARE.sum() - part.sum()


def test_detections_of_supervision_are_taken():
    supervision = pytest.importorskip("supervision")
    planes = np.stack([SQUARE, CORNER])
    detections = supervision.Detections(
        xyxy=supervision.mask_to_xyxy(planes), mask=planes, confidence=np.array([0.5, 0.6])
    )
    np.testing.assert_array_equal(first_mask(detections), BOTH)
    detections.mask = None
    with pytest.raises(ValueError, match="boxes but no masks"):
        first_mask(detections)


@pytest.mark.parametrize(
    ("objects", "options", "words"),
    [
        ([], {}, "no object is given"),
        (np.zeros((1, 4, 4), bool), {}, "object 0 has no pixel"),
        ([SQUARE, CORNER[:10]], {}, r"object 1 is 10x30 but wanted is 20x30"),
        (SQUARE, {"size": (21, 30)}, "20x30 but wanted is 21x30"),
        ([OUTLINE], {}, "give size="),
        ([[[1, 2], [3, 4]]], {"size": (9, 9)}, "three points or more"),
        ([[[1, 2], [3, np.nan], [4, 5]]], {"size": (9, 9)}, "all of them finite"),
        ([[1, 2, 3]], {"size": (9, 9)}, "object 0"),
        (["cat"], {}, "object 0"),
        (np.full((1, 4, 4), 0.5), {}, "threshold"),
        (np.ones((1, 2, 4, 4)), {}, r"\(1, 2, 4, 4\)"),
        ([{"segmentation": {"size": [2, 2], "counts": "?"}}], {}, "run-length"),
        ([SQUARE, CORNER], {"scores": [1.0]}, "each of 2 objects"),
        ([SQUARE], {"scores": [np.nan]}, "finite"),
        ([SQUARE, CORNER], {"ids": [1, 1]}, "2 different whole numbers"),
        ([SQUARE], {"ids": [0]}, "different whole numbers of 32 bits other than 0"),
        ([SQUARE, CORNER], {"ids": [1.2, 2.9]}, r"other than 0, not \[1.2, 2.9\]"),
        ([SQUARE, SQUARE], {"scores": [0.9, 0.8]}, "object 1 is covered"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_words(objects, options, words):
    with pytest.raises(ValueError, match=words):
        first_mask(objects, **options)
