from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from emavos.models import SelfAttention
from emavos.models import scaled_dot_product as module
from emavos.models.scaled_dot_product import attend, attend_in_blocks

torch_attention = functional.scaled_dot_product_attention


def tensors(shape, memory, width, *, sharpness=1.0, dtype=torch.float32):
    """q (*shape, 16), k (..., memory, 16) and v (..., memory, width). Logits have this standard deviation."""
    generator = torch.Generator().manual_seed(memory)
    q = torch.randn(*shape, 16, generator=generator) * sharpness
    k, v = (torch.randn(*shape[:-1], memory, size, generator=generator) for size in (16, width))
    return [x.to(dtype) for x in (q, k, v)]


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize(
    ("shape", "memory", "width"),
    [((1, 3, 41), 41, 16), ((2, 5), 9, 3), ((7,), 1, 4), ((0, 2, 5), 5, 2), ((2, 0), 4, 1)],
)
def test_blocks_are_torchs_attention(shape, memory, width, rows, monkeypatch):
    monkeypatch.setattr(module, "_WEIGHTS_AT_ONCE", rows * memory)
    monkeypatch.setattr(module, "_FEWEST_ROWS", 1)
    q, k, v = tensors(shape, memory, width)
    with torch.no_grad():
        torch.testing.assert_close(attend(q, k, v), torch_attention(q, k, v), rtol=1e-5, atol=1e-5)


def test_heads_need_not_be_contiguous():
    q, k, v = tensors((2, 30, 3), 3, 16)
    q, k, v = (x.transpose(1, 2) for x in (q, k[:, :30], v[:, :30]))
    with torch.no_grad():
        torch.testing.assert_close(attend_in_blocks(q, k, v), torch_attention(q, k, v), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sharpness", [1, 10])
def test_bfloat16_is_about_as_exact_as_torchs(sharpness):
    q, k, v = tensors((1, 6, 200), 200, 16, sharpness=sharpness, dtype=torch.bfloat16)
    exact = torch_attention(q.double(), k.double(), v.double())
    with torch.no_grad():
        own, torchs = ((f(q, k, v).double() - exact).norm() for f in (attend, torch_attention))
    assert own <= 1.35 * torchs  # both are near the rounding of the output, 2^-9


def test_torchs_is_used_if_gradients_or_autocast_are_on(monkeypatch):
    monkeypatch.setattr(module, "attend_in_blocks", None)  # cannot be called
    q, k, v = tensors((2, 5), 9, 3)
    q.requires_grad_()
    attend(q, k, v).sum().backward()
    assert q.grad is not None
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert attend(q, k, v).dtype == torch.bfloat16
        assert attend(q.double(), k.double(), v.double()).dtype == torch.float64
        with pytest.raises(TypeError):
            attend(q, k, v)


def test_self_attention_is_the_same_with_and_without_a_gradient():
    torch.manual_seed(0)
    layer, x = SelfAttention(24, residual=False), torch.randn(2, 24, 5, 7)
    with torch.no_grad():
        inference = layer(x)
    torch.testing.assert_close(inference, layer(x).detach(), rtol=1e-5, atol=1e-5)
