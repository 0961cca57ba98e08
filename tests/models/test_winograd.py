from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from emavos.models import winograd as module
from emavos.models.winograd import Conv2d, convolve, winograd


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


def test_it_is_taken_for_large_maps_of_many_channels_without_a_gradient_alone(monkeypatch):
    taken = []
    real = winograd

    def spy(*args):
        taken.append(args)
        return real(*args)

    monkeypatch.setattr(module, "winograd", spy)
    conv = Conv2d(256, 256, 3, padding=1)
    x = torch.zeros(1, 256, 32, 32)
    conv(x)
    assert not taken  # a gradient is wanted
    with torch.no_grad():
        conv(torch.zeros(1, 256, 8, 8))  # too small
        conv(torch.zeros(0, 256, 32, 32))  # no objects
        Conv2d(256, 256, 3, stride=2, padding=1)(x)
        Conv2d(256, 256, 1)(x)
        Conv2d(256, 16, 3, padding=1)(x)
        conv.bfloat16()(x.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            conv.float()(x)
        assert not taken
        conv(x)
        assert len(taken) == 1


def test_a_network_that_is_exported_holds_a_convolution():
    conv = Conv2d(256, 256, 3, padding=1).eval()
    with torch.no_grad():
        program = torch.export.export(conv, (torch.zeros(1, 256, 32, 32),))
    assert any("conv2d" in str(node.target) for node in program.graph.nodes)


def test_a_convolution_keeps_the_gradients_of_torch():
    x, weight, bias = tensors(1, 4, 4, 6, 6)
    weight.requires_grad_()
    convolve(x, weight, bias).square().sum().backward()
    found, weight.grad = weight.grad, None
    functional.conv2d(x, weight, bias, padding=1).square().sum().backward()
    torch.testing.assert_close(found, weight.grad)


def test_what_another_thread_compiles_changes_nothing_here(monkeypatch):
    """torch's `is_compiling` is of the whole process, and true for as long as any thread compiles."""
    if not hasattr(torch.compiler, "is_exporting"):
        pytest.skip("this torch cannot tell the two apart")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with torch.no_grad():
        assert module.plain_inference(torch.zeros(1))
