from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from emavos.models import convolution as module
from emavos.models.convolution import Conv2d, convolve, pointwise
from emavos.models.winograd import winograd


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_winograds_method_is_only_for_large_maps_of_many_channels_without_a_gradient(monkeypatch):
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
    x, weight, bias = torch.randn(1, 4, 6, 6), torch.randn(4, 4, 3, 3, requires_grad=True), torch.randn(4)
    convolve(x, weight, bias).square().sum().backward()
    found, weight.grad = weight.grad, None
    functional.conv2d(x, weight, bias, padding=1).square().sum().backward()
    torch.testing.assert_close(found, weight.grad)


@pytest.mark.parametrize("shape", [(1, 3, 5, 1, 1), (2, 32, 16, 6, 9), (3, 7, 130, 5, 4)])
def test_a_product_is_a_convolution_of_1x1(shape):
    batch, channels, out_channels, height, width = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, height, width, generator=generator)
    weight = torch.randn(out_channels, channels, 1, 1, generator=generator)
    bias = torch.randn(out_channels, generator=generator)
    found = pointwise(x, weight, bias)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, functional.conv2d(x, weight, bias), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pointwise(x, weight), functional.conv2d(x, weight), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(30, 54), (4, 4), (1, 16), (2, 3), (1, 1)])
def test_an_object_has_the_bits_of_a_convolution_of_1x1_among_any_others(size, one_thread):
    x = torch.randn(5, 144, *size).to(memory_format=torch.channels_last)
    conv = Conv2d(144, 24, 1)
    with torch.no_grad():
        assert torch.equal(conv(x)[2:3], conv(x[2:3]))


def test_products_are_for_one_thread_without_a_gradient(one_thread, monkeypatch):
    taken = []
    monkeypatch.setattr(module, "pointwise", lambda x, weight, bias: taken.append(len(x)))
    conv, x = Conv2d(8, 4, 1), torch.randn(1, 8, 5, 5).to(memory_format=torch.channels_last)
    conv(x)  # a gradient is wanted
    with torch.no_grad():
        conv(x.contiguous())  # channels first
        with torch.autocast("cpu", torch.bfloat16):
            conv(x)
        conv.bfloat16()(x.bfloat16())
        conv.float()
        conv(x[:0])
        conv(x[:, :, :3])  # few cells
        Conv2d(8, 4, 1, stride=2)(x)
        torch.set_num_threads(2)
        conv(x)
        assert not taken
        torch.set_num_threads(1)
        conv(x)
    assert taken == [1]
