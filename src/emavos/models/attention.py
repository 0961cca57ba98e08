"""Attention over all positions of a feature map, with two learned memories or with the map itself.

Every module here takes feature maps (B, C, H, W) or sequences (B, N, C) of any size and returns the same
shape, so you can insert a module after any layer of any network. With `residual=True` a module starts as the
identity.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from emavos.models.scaled_dot_product import attend

Form = Literal["equation", "block"]


class ExternalAttention(nn.Module):
    """External attention: every position reads two small memories. Both memories are learned parameters.

        A = Norm(F M_k^T),  F_out = A M_v        (Guo et al., 2021, eqs. 5 and 6; Kim and Hong, 2023, eq. 3)

    F: (N, C) features. M_k, M_v: (S, C) learned. Norm is a softmax over the positions, then an L1
    normalisation over the slots. The cost is linear in N: 2 N C S multiplications.

    channels: C.
    slots: S.
    form: "equation" computes the equation above. "block" is the published block of the authors: a 1x1
        convolution, the equation, a 1x1 convolution and batch norm, plus the input, then ReLU. Put a block
        after a ReLU; only then does the block start as the identity (the scale of its batch norm starts at
        zero).
    residual: whether the "equation" form adds its input. The "block" form always does.

    >>> attention = ExternalAttention(256)
    >>> attention(torch.rand(2, 256, 30, 54)).shape
    torch.Size([2, 256, 30, 54])
    """

    def __init__(
        self, channels: int, slots: int = 64, *, form: Form = "equation", residual: bool = True
    ) -> None:
        super().__init__()
        if channels < 1 or slots < 1:
            raise ValueError(f"channels and slots must be at least 1, not {channels} and {slots}")
        if form not in ("equation", "block"):
            raise ValueError(f'form is "equation" or "block", not {form!r}')
        if form == "block" and not residual:
            raise ValueError('form="block" adds its input by definition; for no residual use form="equation"')
        self.channels = channels
        self.form = form
        self.residual = residual
        self.key_memory = nn.Parameter(torch.empty(slots, channels))
        self.value_memory = nn.Parameter(torch.empty(slots, channels))
        if form == "block":
            self.proj_in = nn.Linear(channels, channels)
            self.proj_out = nn.Linear(channels, channels, bias=False)
            self.norm = nn.BatchNorm1d(channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw random memories. With a residual, the last factor is zero: the start is the identity."""
        nn.init.normal_(self.key_memory, std=self.channels**-0.5)
        if self.form == "block":
            nn.init.normal_(self.value_memory, std=self.channels**-0.5)
            for proj in (self.proj_in, self.proj_out):
                proj.reset_parameters()
            self.norm.reset_parameters()
            nn.init.zeros_(self.norm.weight)
        elif self.residual:
            nn.init.zeros_(self.value_memory)
        else:
            nn.init.normal_(self.value_memory, std=self.channels**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        features = _to_sequence(x, self.channels)
        if self.form == "block":
            # The convolutions and the memories are linear with no nonlinearity in between. Multiplying the
            # small matrices first takes 2 N C S + 2 S C^2 multiplications instead of 2 N C S + 2 N C^2.
            keys = self.key_memory @ self.proj_in.weight  # (S, C)
            values = self.value_memory @ self.proj_out.weight.T  # (S, C)
            logits = functional.linear(features, keys, self.key_memory @ self.proj_in.bias)
            out = self.norm((double_norm(logits) @ values).transpose(1, 2)).transpose(1, 2)
            return (x + _like(out, x)).relu()
        logits = functional.linear(features, self.key_memory)
        out = _like(double_norm(logits) @ self.value_memory, x)
        return x + out if self.residual else out

    def extra_repr(self) -> str:
        """The arguments of the constructor, shown by `repr`."""
        return f"{self.channels}, slots={len(self.key_memory)}, form={self.form!r}, residual={self.residual}"


class MultiHeadExternalAttention(nn.Module):
    """External attention with several heads that share two small memories (Guo et al., 2021, section 3.3).

    A linear layer widens the channels `expansion` times. The result is split into `heads * expansion` heads
    of C / heads channels each, and every head reads the same memories.

    channels: C, a multiple of `heads`.
    slots: rows of each memory.
    residual: whether the input is added.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        slots: int = 64,
        *,
        expansion: int = 4,
        residual: bool = True,
    ) -> None:
        super().__init__()
        if min(channels, heads, slots, expansion) < 1 or channels % heads:
            raise ValueError(
                f"channels must be a multiple of heads, and both, slots and expansion at least 1, not "
                f"{channels}, {heads}, {slots} and {expansion}"
            )
        self.channels = channels
        self.heads = heads * expansion
        self.residual = residual
        self.proj_in = nn.Linear(channels, channels * expansion)
        self.key_memory = nn.Linear(channels // heads, slots)
        self.value_memory = nn.Linear(slots, channels // heads)
        self.proj_out = nn.Linear(channels * expansion, channels)
        if residual:
            nn.init.zeros_(self.proj_out.weight)
            nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor) -> Tensor:
        features = self.proj_in(_to_sequence(x, self.channels))
        heads = features.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, C / heads)
        out = self.value_memory(double_norm(self.key_memory(heads)))
        out = _like(self.proj_out(out.transpose(1, 2).flatten(2)), x)
        return x + out if self.residual else out

    def extra_repr(self) -> str:
        """The arguments of the constructor, shown by `repr`."""
        expansion, slots = self.proj_in.out_features // self.channels, self.key_memory.out_features
        heads = self.heads // expansion
        return f"{self.channels}, {heads=}, {slots=}, {expansion=}, residual={self.residual}"


class SelfAttention(nn.Module):
    """Self-attention softmax(Q K^T / sqrt(d)) V over the positions of one map, the paper's baseline.

    channels: C, the channels of the input and of V.
    dim: d, the channels of Q and K; defaults to C / 8.
    residual: whether the input is added.
    """

    def __init__(self, channels: int, dim: int | None = None, *, residual: bool = True) -> None:
        super().__init__()
        dim = max(channels // 8, 1) if dim is None else dim
        if channels < 1 or dim < 1:
            raise ValueError(f"channels and dim must be at least 1, not {channels} and {dim}")
        self.channels = channels
        self.residual = residual
        self.query = nn.Linear(channels, dim)
        self.key = nn.Linear(channels, dim)
        self.value = nn.Linear(channels, channels)
        if residual:
            nn.init.zeros_(self.value.weight)
            nn.init.zeros_(self.value.bias)

    def forward(self, x: Tensor) -> Tensor:
        features = _to_sequence(x, self.channels)
        out = attend(self.query(features), self.key(features), self.value(features))
        out = _like(out, x)
        return x + out if self.residual else out

    def extra_repr(self) -> str:
        """The arguments of the constructor, shown by `repr`."""
        return f"{self.channels}, dim={self.query.out_features}, residual={self.residual}"


def double_norm(logits: Tensor) -> Tensor:
    """Norm of external attention on (..., N, S): a softmax over the positions, then L1 over the slots."""
    wide = torch.promote_types(logits.dtype, torch.float32)  # 1e-9 is zero in half precision
    attention = logits.softmax(dim=-2, dtype=wide)
    attention = attention / (1e-9 + attention.sum(dim=-1, keepdim=True))
    return attention.to(logits.dtype)


def _to_sequence(x: Tensor, channels: int) -> Tensor:
    """(B, C, H, W) or (B, N, C) -> (B, N, C)."""
    if x.ndim == 4 and x.shape[1] == channels:
        return x.flatten(2).transpose(1, 2)
    if x.ndim == 3 and x.shape[2] == channels:
        return x
    raise ValueError(f"expected (B, {channels}, H, W) or (B, N, {channels}), not {tuple(x.shape)}")


def _like(out: Tensor, x: Tensor) -> Tensor:
    """(B, N, C) -> the shape of x."""
    return out if x.ndim == 3 else out.transpose(1, 2).unflatten(2, x.shape[2:])
