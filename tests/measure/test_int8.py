from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

import int8
from emavos import Predictor
from emavos.demo import synthetic_clip
from emavos.io import write_image, write_mask


def test_numbers_are_rounded_to_8_bits_and_zero_stays():
    x = torch.linspace(-3, 5, 1001)
    rounded = int8.rounded_inputs(x, -1.0, 4.0)
    assert len(rounded.unique()) <= 256
    assert (rounded - x.clamp(-1, 4)).abs().max() <= 5 / 255
    assert int8.rounded_inputs(torch.zeros(1), -1.0, 4.0).item() == 0
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    steps = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    assert ((int8.rounded_weights(weight) - weight).abs() <= steps / 2 + 1e-6).all()


def test_convolutions_are_watched_first_and_rounded_then():
    x, weight = torch.rand(1, 2, 5, 5), torch.rand(3, 2, 3, 3)
    ranges: int8.Ranges = {}
    with int8.Int8(ranges, calibrate=True):
        exact = functional.conv2d(x, weight)
    assert [*ranges.values()] == [(0.0, x.max().item())]
    with int8.Int8(ranges):
        rounded = functional.conv2d(x, weight)
    assert 0 < (rounded - exact).abs().max() < 0.1


def test_a_clip_is_scored_in_both_types(tmp_path):
    frames, masks = synthetic_clip(frames=3, size=(48, 64))
    for index, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
        for folder in ("JPEGImages", "Annotations"):
            (tmp_path / folder / "480p" / "a").mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "JPEGImages/480p/a" / f"{index:05d}.png", frame)
        write_mask(tmp_path / "Annotations/480p/a" / f"{index:05d}.png", mask)
    predictor = Predictor.from_pretrained(device="cpu", size=64)
    rows = [*int8.losses(predictor, tmp_path, ["a"], ["a"], frames=3)]
    assert [row[:2] for row in rows] == [("a", "float32"), ("a", "int8")]
    assert all(0 <= number <= 1 for row in rows for number in row[2:])


def test_a_convolution_is_timed_in_both_types():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    before, after = int8.gain(("1x1", 4, 8, 1, 1, 6, 7), repeats=1)
    assert np.isfinite([before, after]).all()
