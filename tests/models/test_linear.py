from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from emavos.models import linear as module
from emavos.models.linear import Linear, plain_inference, product
from emavos.models.winograd import winograd


def tensors(rows, channels, out_channels):
    generator = torch.Generator().manual_seed(rows)
    shapes = (rows, channels), (out_channels, channels), (out_channels,)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize(("rows", "channels", "out_channels"), [(64, 256, 320), (420, 384, 1152), (7, 5, 3)])
def test_the_bits_of_a_product_do_not_depend_on_the_number_of_rows(rows, channels, out_channels):
    x, weight, bias = tensors(rows, channels, out_channels)
    alone = product(x, weight, bias)
    among = product(torch.cat([x, torch.randn(3 * rows, channels)]), weight, bias)
    assert torch.equal(among[:rows], alone)
    torch.testing.assert_close(alone, functional.linear(x, weight, bias), rtol=1e-4, atol=1e-4)


def test_a_weight_with_strides_is_one_without():
    x, weight, _ = tensors(64, 32, 48)
    wide = torch.stack([weight, weight], dim=1)[:, 0]
    assert not wide.is_contiguous()
    assert torch.equal(product(x, wide), product(x, weight))


@pytest.mark.parametrize("has_onednn", [True, False])
def test_a_layer_is_torchs_linear_layer(has_onednn, monkeypatch):
    monkeypatch.setattr(module, "_HAS_ONEDNN", has_onednn and module._HAS_ONEDNN)
    torch.manual_seed(0)
    layer, plain = Linear(48, 96), nn.Linear(48, 96)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 30, 48)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), plain(x))
        half = layer.to(torch.bfloat16)(x.bfloat16())
    assert half.dtype == torch.bfloat16


def test_a_layer_has_gradients_and_autocast():
    layer, x = Linear(8, 4), torch.randn(3, 8, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(dim=0).expand(3, 8))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_without_the_operator_of_onednn_convolutions_are_the_same(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 256, 32, 40, generator=generator)
    weight = torch.randn(256, 256, 3, 3, generator=generator) / 48
    monkeypatch.setattr(module, "_HAS_ONEDNN", False)
    with torch.no_grad():
        assert plain_inference(x)
        found, expected = winograd(x, weight), functional.conv2d(x, weight, padding=1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_what_another_thread_compiles_changes_nothing_here(monkeypatch):
    """torch's `is_compiling` is of the whole process, and true for as long as any thread compiles."""
    if not hasattr(torch.compiler, "is_exporting"):
        pytest.skip("this torch cannot tell the two apart")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with torch.no_grad():
        assert plain_inference(torch.zeros(1))
