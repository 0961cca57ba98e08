from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from emavos.models import winograd as module
from emavos.models.winograd import winograd


def tensors(batch, channels, out_channels, height, width):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, height, width, generator=g)
    weight = torch.randn(out_channels, channels, 3, 3, generator=g) / (3 * channels**0.5)
    return x, weight, torch.randn(out_channels, generator=g)


@pytest.mark.parametrize(
    "shape", [(1, 3, 5, 1, 1), (1, 8, 4, 3, 9), (2, 5, 7, 4, 8), (3, 6, 6, 13, 6), (2, 4, 9, 17, 30)]
)
@pytest.mark.parametrize("block", [1, 3000, 1 << 24])
def test_winograds_method_is_a_convolution_whatever_the_blocks(shape, block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    x, weight, bias = tensors(*shape)
    expected = functional.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    for layout in (torch.contiguous_format, torch.channels_last):
        with torch.no_grad():
            found = winograd(x.to(memory_format=layout), weight.to(memory_format=layout), bias)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 3e-6 * expected.abs().max()


def test_part_of_a_weight_is_enough():
    x, weight, _ = tensors(1, 12, 6, 9, 11)
    weight = weight.to(memory_format=torch.channels_last)
    found = winograd(x[:, 5:], weight[:, 5:])
    expected = functional.conv2d(x[:, 5:], weight[:, 5:], padding=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_many_channels_round_to_millionths_of_the_largest_output():
    x, weight, bias = tensors(1, 256, 32, 24, 40)
    truth = functional.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert (winograd(x, weight, bias) - truth).abs().max() <= 3e-6 * truth.abs().max()
