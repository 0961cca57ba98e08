from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from emavos.frames.preprocess import ids_of, one_hot, pad_to_stride, to_mask
from emavos.models import aggregate
from golden import reference


def test_aggregation_agrees_with_the_reference():
    golden = reference.load("aggregate")
    prob = torch.from_numpy(golden["prob"])[:, 0]
    ours = aggregate(prob)
    assert np.abs(ours.numpy() - golden["keep_bg"][:, 0]).max() <= 1e-4
    assert np.abs(ours[1:].numpy() - golden["no_bg"][:, 0]).max() <= 1e-4


def test_padding_agrees_with_the_reference():
    for case in json.loads((reference.HERE / "pad_divide_by.json").read_text()):
        x = torch.arange(case["h"] * case["w"]).float().view(1, case["h"], case["w"])
        padded, crop = pad_to_stride(x)
        left, right, top, bottom = case["pad_lrtb"]
        assert list(padded.shape[1:]) == case["padded"]
        assert torch.equal(padded, torch.nn.functional.pad(x, (left, right, top, bottom)))
        assert torch.equal(padded[crop], x)


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), stride=st.integers(1, 33))
def test_padding_is_the_least_there_is_and_can_be_undone(height, width, stride):
    x = torch.rand(2, height, width)
    padded, crop = pad_to_stride(x, stride)
    assert all(size % stride == 0 for size in padded.shape[1:])
    assert padded.shape[1] - height < stride
    assert padded.shape[2] - width < stride
    assert torch.equal(padded[crop], x)


@settings(max_examples=50, deadline=None)
@given(objects=st.integers(1, 6), seed=st.integers(0, 99))
def test_aggregated_probabilities_are_a_distribution_that_keeps_the_order_of_objects(objects, seed):
    prob = torch.rand(objects, 4, 4, generator=torch.Generator().manual_seed(seed))
    out = aggregate(prob)
    torch.testing.assert_close(out.sum(0), torch.ones(4, 4))
    assert torch.equal(out[1:].argmax(0), prob.argmax(0))


def test_aggregation_of_certain_objects_is_finite_in_half_precision():
    prob = torch.tensor([0.0, 1.0, 0.5]).half().view(1, 1, 3)
    out = aggregate(prob)
    assert out.isfinite().all()
    assert out.dtype == torch.float32


def test_one_hot_follows_the_order_of_the_ids():
    mask = torch.tensor([[0, 7], [-2, 300]], dtype=torch.int32)
    planes = one_hot(mask, (300, -2, 7))
    assert planes.argmax(0)[1, 1] == 0
    assert planes[1].nonzero().tolist() == [[1, 0]]
    assert planes.sum(0)[0, 0] == 0
    assert ids_of(mask) == (-2, 7, 300)


@pytest.mark.parametrize(
    "given",
    [
        np.array([[0, 1], [2, 3]], np.uint8),
        np.array([[0, 1], [2, 3]], np.int64),
        np.array([[0, 1], [2, 3]], np.uint16),
        torch.tensor([[0, 1], [2, 3]]),
        Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8)),
        Image.fromarray(np.array([[0, 1], [2, 3]], np.int32)),
    ],
)
def test_masks_of_many_kinds_are_the_same_mask(given):
    mask = to_mask(given, (2, 2))
    assert mask.dtype == torch.int32
    assert mask.tolist() == [[0, 1], [2, 3]]


def test_a_bool_mask_is_object_one():
    assert to_mask(np.array([[False, True]]), (1, 2)).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((3, 4), complex), "whole ids, not complex128"),
        (np.array([[None]]), "whole ids, not object"),
        (np.zeros((3, 4)), "whole ids, not torch.float64"),
        (np.full((3, 4), np.nan, np.float32), "whole ids"),
        (torch.zeros(3, 4), "whole ids"),
        (np.zeros((3, 4, 3), np.uint8), r"\(H, W\) of ids, not \(3, 4, 3\)"),
        (np.zeros((4, 3), np.uint8), "mask is 4x3 but frame is 3x4"),
        (np.full((3, 4), 2**40), "32-bit"),
        (Image.new("RGB", (4, 3), "orange"), "is an RGB mask of 1 colours"),
        ("first.png", "not str"),
        ([[0, 1]], "not list"),
        (np.full((3, 4), "a"), "whole ids, not <U1"),
    ],
)
def test_a_wrong_mask_says_what_was_given(given, message):
    with pytest.raises(ValueError, match=message):
        to_mask(given, (3, 4))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.int8])
def test_ids_of_any_integer_type(dtype):
    mask = torch.tensor([[0, 7]]).to(dtype)
    assert to_mask(mask, (1, 2)).tolist() == [[0, 7]]


@pytest.mark.parametrize("mask", [np.full((1, 1), 2**64 - 1, np.uint64), np.full((1, 1), 2**31, np.uint32)])
def test_ids_that_32_bits_do_not_hold_never_wrap(mask):
    for kind in (np.asarray, torch.from_numpy):
        with pytest.raises(ValueError, match="32-bit"):
            to_mask(kind(mask), (1, 1))


def test_a_picture_is_checked_as_a_file_is():
    soft = Image.fromarray(np.kron(np.eye(4), np.ones((16, 16))).astype(np.uint8) * 255).rotate(20)
    soft = soft.resize((21, 21), Image.Resampling.BOX)
    with pytest.raises(ValueError, match="the mask looks anti-aliased"):
        to_mask(soft, (21, 21))
