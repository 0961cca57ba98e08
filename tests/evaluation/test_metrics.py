import dataclasses
import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest

from emavos.evaluation import Statistics, boundary_accuracy, region_similarity, statistics
from emavos.evaluation.metrics import boundary, dilate

SIZES = [(1, 1), (1, 9), (8, 1), (2, 3), (5, 5), (13, 7), (17, 40), (31, 23)]
RADII = [0, 1, 1.5, 2, 2.3, 5, 8.7, 20, 60]


def noise(size, share, seed=0):
    return np.random.default_rng(seed).random(size) < share


def blob(size, seed=0):
    """A few boxes, some of which touch or cross the border."""
    generator = np.random.default_rng(seed)
    mask = np.zeros(size, bool)
    for _ in range(3):
        (top, left), (height, width) = generator.integers(size), generator.integers(size, endpoint=True)
        mask[max(top - 3, 0) : top + height // 2, max(left - 3, 0) : left + width // 2] = True
    return mask


def box(size, top, left, height, width):
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def boundary_by_definition(mask):
    """A pixel is on the outline if it differs from a neighbour to the right, below or both; beyond the frame
    there is no neighbour."""
    height, width = mask.shape
    edge = np.zeros_like(mask)
    for y, x in itertools.product(range(height), range(width)):
        for y2, x2 in ((y, x + 1), (y + 1, x), (y + 1, x + 1)):
            if y2 < height and x2 < width:
                edge[y, x] |= mask[y, x] != mask[y2, x2]
    return edge


def dilate_by_definition(mask, radius):
    y, x = np.indices(mask.shape)
    near = (y[..., None] - y[mask]) ** 2 + (x[..., None] - x[mask]) ** 2 <= radius**2  # (H, W, pixels set)
    return near.any(axis=2)


def boundary_accuracy_by_definition(pred, truth, tolerance):
    radius = tolerance if tolerance >= 1 else math.ceil(tolerance * math.dist((0, 0), truth.shape))
    pred, truth = boundary_by_definition(pred), boundary_by_definition(truth)
    if not pred.any() or not truth.any():
        return float(pred.any() == truth.any())
    precision = dilate_by_definition(truth, radius)[pred].mean()
    recall = dilate_by_definition(pred, radius)[truth].mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.fixture(scope="module")
def pairs(parity):
    """The reference's pairs: (facts, pred, truth, void or None)."""
    packed = np.load(parity / "real" / "davis_metrics_masks.npz")

    def mask(name, size):
        return np.unpackbits(packed[name])[: math.prod(size)].reshape(size).astype(bool)

    facts = json.loads((parity / "real" / "davis_metrics.json").read_text())["pairs"]
    return [
        (
            fact,
            mask(f"res_{i}", fact["shape"]),
            mask(f"gt_{i}", fact["shape"]),
            mask(f"void_{i}", fact["shape"]) if fact["has_void"] else None,
        )
        for i, fact in enumerate(facts)
    ]


def test_region_similarity_is_that_of_the_official_code(pairs):
    for fact, pred, truth, void in pairs:
        assert region_similarity(pred, truth, void) == pytest.approx(fact["J"], rel=0, abs=1e-9), fact["name"]


def test_boundary_accuracy_is_that_of_the_official_code(pairs):
    for fact, pred, truth, void in pairs:
        score = boundary_accuracy(pred, truth, fact["bound_th"], void)
        assert score == pytest.approx(fact["F"], rel=0, abs=1e-9), fact["name"]


def test_boundaries_have_as_many_pixels_as_those_of_the_official_code(pairs):
    for fact, _, truth, _ in pairs:
        assert np.count_nonzero(boundary(truth)) == fact["gt_boundary_pixels"], fact["name"]


def test_statistics_are_those_of_the_official_code(parity):
    series = json.loads((parity / "real" / "davis_metrics.json").read_text())["db_statistics"]
    assert {one["n"] for one in series} >= {4, 254, 256, 300}
    for one in series:
        ours = statistics(one["values"])
        assert ours.mean == pytest.approx(one["M"], rel=0, abs=1e-9)
        assert ours.recall == pytest.approx(one["R"], rel=0, abs=1e-9)
        if one["D"] is not None:  # the official decay overflows from 256 frames on
            assert ours.decay == pytest.approx(one["D"], rel=0, abs=1e-9)
        else:
            assert math.isfinite(ours.decay)


@pytest.mark.parametrize("size", SIZES)
def test_boundary_is_the_definition(size):
    for share in (0, 0.1, 0.5, 0.9, 1):
        mask = noise(size, share)
        np.testing.assert_array_equal(boundary(mask), boundary_by_definition(mask))


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("size", SIZES)
def test_dilation_is_the_definition(size, radius):
    for share in (0, 0.02, 0.3, 1):
        mask = noise(size, share)
        np.testing.assert_array_equal(dilate(mask, radius), dilate_by_definition(mask, radius))


@pytest.mark.parametrize("tolerance", [0, 0.008, 0.05, 0.3, 1, 2.5, 40])
@pytest.mark.parametrize("size", SIZES)
def test_boundary_accuracy_is_the_definition(size, tolerance):
    for seed in range(4):
        pred, truth = (
            (blob(size, seed), blob(size, seed + 100)) if seed % 2 else (noise(size, 0.1), blob(size))
        )
        expected = boundary_accuracy_by_definition(pred, truth, tolerance)
        assert boundary_accuracy(pred, truth, tolerance) == pytest.approx(expected, rel=0, abs=1e-12)


@pytest.mark.parametrize("measure", [region_similarity, boundary_accuracy])
@pytest.mark.parametrize("size", SIZES)
def test_equal_masks_agree_fully(measure, size):
    assert measure(blob(size), blob(size)) == 1


@pytest.mark.parametrize("measure", [region_similarity, boundary_accuracy])
def test_two_empty_masks_agree_fully(measure):
    empty = np.zeros((6, 9), bool)
    assert measure(empty, empty) == 1


@pytest.mark.parametrize("measure", [region_similarity, boundary_accuracy])
def test_an_object_and_an_empty_mask_do_not_agree_at_all(measure):
    empty, one = np.zeros((20, 30), bool), box((20, 30), 4, 5, 6, 7)
    assert measure(one, empty) == measure(empty, one) == 0


def test_a_full_mask_has_no_outline():
    full, empty = np.ones((20, 30), bool), np.zeros((20, 30), bool)
    assert not boundary(full).any()
    assert boundary_accuracy(full, empty) == 1
    assert region_similarity(full, empty) == 0


@pytest.mark.parametrize("measure", [region_similarity, boundary_accuracy])
def test_truth_and_prediction_are_interchangeable(measure):
    for seed in range(20):
        one, other = blob((33, 21), seed), blob((33, 21), seed + 50)
        assert measure(one, other) == measure(other, one)


@pytest.mark.parametrize("measure", [region_similarity, boundary_accuracy])
def test_a_mask_need_not_be_contiguous(measure):
    one, other = blob((33, 21)), blob((33, 21), 1)
    turned = np.asfortranarray(one), np.repeat(other, 2, axis=1)[:, ::2]
    assert measure(*turned) == measure(one, other)


def test_region_similarity_is_intersection_over_union():
    assert region_similarity(box((9, 9), 0, 0, 4, 4), box((9, 9), 2, 0, 4, 4)) == 8 / 24


@pytest.mark.parametrize(("dy", "dx"), [(0, 4), (4, 0), (2, 3), (-3, -2), (0, -4)])
def test_a_shift_within_the_tolerance_costs_no_boundary_accuracy(dy, dx):
    pred, truth = box((60, 80), 20 + dy, 30 + dx, 15, 20), box((60, 80), 20, 30, 15, 20)
    assert boundary_accuracy(pred, truth, tolerance=4) == 1
    assert boundary_accuracy(pred, truth, tolerance=3) < 1


def test_the_default_tolerance_is_eight_pixels_at_480_by_854():
    pred, truth = box((480, 854), 0, 100, 480, 700), box((480, 854), 0, 108, 480, 700)
    assert boundary_accuracy(pred, truth) == 1
    assert boundary_accuracy(pred, box((480, 854), 0, 109, 480, 700)) == 0


def test_one_pixel_is_scored():
    one, other = box((9, 9), 4, 4, 1, 1), box((9, 9), 4, 5, 1, 1)
    assert np.count_nonzero(boundary(one)) == 4
    assert region_similarity(one, other) == 0
    assert boundary_accuracy(one, other, tolerance=0) == 0.5
    assert boundary_accuracy(one, other, tolerance=1) == 1


def test_pixels_that_are_void_do_not_count():
    truth, void = box((40, 50), 10, 10, 20, 20), box((40, 50), 0, 30, 40, 20)
    pred = truth | box((40, 50), 5, 32, 10, 10)
    assert region_similarity(pred, truth, void) == boundary_accuracy(pred, truth, void=void) == 1
    assert region_similarity(truth, pred, void) == boundary_accuracy(truth, pred, void=void) == 1
    assert region_similarity(pred, truth) < 1
    assert boundary_accuracy(pred, truth) < 1


@pytest.mark.parametrize("measure", [region_similarity, boundary_accuracy])
def test_a_mask_that_cannot_be_scored_is_refused_by_name(measure):
    mask = np.zeros((4, 5), bool)
    with pytest.raises(ValueError, match="pred is 5x4 but truth is 4x5"):
        measure(mask.T, mask)
    with pytest.raises(ValueError, match="void is 5x4 but truth is 4x5"):
        measure(mask, mask, void=mask.T)
    with pytest.raises(ValueError, match="truth has shape"):
        measure(mask, mask[None])
    with pytest.raises(ValueError, match=r"pred is int32; pass a boolean numpy array, such as `ids == 1`"):
        measure(mask.astype(np.int32), mask)
    with pytest.raises(ValueError, match="truth is list"):
        measure(mask, [[True]])


@pytest.mark.parametrize("tolerance", [-1, math.nan, math.inf])
def test_a_tolerance_that_is_no_distance_is_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance is"):
        boundary_accuracy(np.zeros((4, 5), bool), np.zeros((4, 5), bool), tolerance)


def test_recall_is_the_share_above_one_half():
    assert statistics([0.5, 0.6, 0.4, 1.0]).recall == 0.5


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 255, 256, 257, 1000, 70_000])
def test_decay_compares_the_first_and_the_last_quarter(frames):
    ramp = np.linspace(1, 0, frames) if frames > 1 else np.ones(1)
    first_end, last_start = (math.floor(Fraction(n, 4) * (frames - 1) + Fraction(1, 2)) for n in (1, 3))
    assert statistics(ramp).decay == pytest.approx(ramp[: first_end + 1].mean() - ramp[last_start:].mean())
    assert statistics(np.full(frames, 0.3)).decay == 0


@pytest.mark.parametrize(
    "frames", [1, 2, 4, 5, 6, 8, 9, 254, 300]
)  # 4 k + 3 would round both quarters upwards
def test_a_series_turned_round_has_the_opposite_decay(frames):
    series = np.random.default_rng(0).random(frames)
    assert statistics(series[::-1]).decay == pytest.approx(-statistics(series).decay)


def test_one_frame_has_statistics():
    assert statistics([0.75]) == Statistics(mean=0.75, recall=1.0, decay=0.0)


@pytest.mark.parametrize("series", [[], [math.nan], [math.nan] * 9])
def test_statistics_of_nothing_are_nan(series):
    assert all(math.isnan(value) for value in dataclasses.astuple(statistics(series)))


def test_a_frame_without_score_counts_nowhere():
    gaps = statistics([1.0, math.nan, 0.8, 0.4, 0.2, math.nan, 0.0, 0.2])
    assert gaps.mean == pytest.approx(2.6 / 6)
    assert gaps.recall == pytest.approx(2 / 6)
    assert gaps.decay == pytest.approx(0.9 - 0.1)


def test_a_table_is_not_a_series():
    with pytest.raises(ValueError, match=r"series has shape \(2, 3\)"):
        statistics(np.zeros((2, 3)))
