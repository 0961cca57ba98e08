"""Scaled dot-product attention, computed on a CPU by oneDNN in blocks of queries."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from emavos.models.linear import plain_inference, product

_WEIGHTS_AT_ONCE = 2**20  # of a block: 4 MB for up to 65,536 keys
_FEWEST_ROWS = 16


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v (Vaswani et al., NeurIPS 2017, equation 1).

    On a CPU and without a gradient, `attend_in_blocks` is faster than torch, and about as exact.

    q: (..., N, d).
    k: (..., M, d).
    v: (..., M, e).

    Returns (..., N, e).
    """
    fast = q.dtype in (torch.float32, torch.bfloat16) and plain_inference(q)
    if fast and not torch.is_autocast_enabled("cpu"):
        return attend_in_blocks(q, k, v)
    return functional.scaled_dot_product_attention(q, k, v)


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attend` without a gradient, a block of queries at a time. Logits and weights are float32."""
    scaled, keys = q.float() * q.shape[-1] ** -0.5, k.float()
    rows = max(_WEIGHTS_AT_ONCE // max(k.shape[-2], 1), _FEWEST_ROWS)
    out = v.new_empty(*q.shape[:-1], v.shape[-1])  # (..., N, e)
    heads = zip(*map(_matrices, (scaled, keys, v, out)), strict=True)
    for head_q, head_k, head_v, head_out in heads:
        _attend_one_head(head_q, head_k, head_v, head_out, rows)
    return out


def _matrices(x: Tensor) -> Sequence[Tensor]:
    """The matrices (N, d) of x (..., N, d). Views, if x is contiguous."""
    return x.reshape(prod(x.shape[:-2]), *x.shape[-2:]).unbind()


def _attend_one_head(q: Tensor, k: Tensor, v: Tensor, out: Tensor, rows: int) -> None:
    """Fill out (N, e), `rows` rows at a time. q (N, d) is scaled; k is (M, d), v (M, e)."""
    single = v.dtype == torch.float32
    columns = v.T.contiguous() if single else v  # (e, M), as oneDNN takes it
    for some, into in zip(q.split(rows), out.split(rows), strict=True):
        weights = product(some, k).softmax(dim=-1)  # (rows, M)
        into.copy_(product(weights, columns) if single else weights.to(v.dtype) @ v)
