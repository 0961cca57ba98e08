"""The building blocks of STCN's value encoder and decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from emavos.models.convolution import Conv2d
from emavos.models.linear import plain_inference

# Bytes. If the map of all objects is larger, objects are decoded one by one: the C library returns blocks
# above 32 MB to the system each time they are freed, and the system has to zero every new block.
_LARGE = 30 << 20


class ResBlock(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, and a skip connection. No normalisation.

    The input is maps of objects (B * O, C, h, w) and optionally maps of their frames (B, Cs, h, w) as further
    channels. The frame's share of a convolution is the same for all objects of the frame, so it is computed
    once.

    in_channels: C + Cs.
    skip_kernel: kernel size of the convolution on the skip. The skip has a convolution only if the number of
        channels changes.
    """

    def __init__(self, in_channels: int, out_channels: int, skip_kernel: int = 3) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = (
            Conv2d(in_channels, out_channels, skip_kernel, padding=skip_kernel // 2)
            if in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor, shared: Tensor | None = None) -> Tensor:
        if shared is None:
            return self.conv2(self.conv1(x.relu()).relu_()).add_(self.skip(x))
        hidden = _convolve(self.conv1, x.relu(), shared.relu())
        return self.conv2(hidden.relu_()).add_(_convolve(self.skip, x, shared))


def _convolve(conv: nn.Module, x: Tensor, shared: Tensor) -> Tensor:
    """Convolve (B * O, C, h, w) and (B, Cs, h, w) as one map. The share of the second is computed once."""
    frames, objects = shared.shape[0], x.shape[0] // shared.shape[0]
    if not isinstance(conv, Conv2d):  # an identity skip
        each = shared.unsqueeze(1).expand(-1, objects, -1, -1, -1)
        return torch.cat([x, each.flatten(0, 1)], dim=1)
    own, common = conv.weight.split([x.shape[1], shared.shape[1]], dim=1)
    once = conv.with_weight(shared, common, conv.bias)
    out = conv.with_weight(x, own)
    return out.unflatten(0, (frames, objects)).add_(once.unsqueeze(1)).flatten(0, 1)


class CBAM(nn.Module):
    """Channel attention, then spatial attention (Woo et al., ECCV 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels // reduction), nn.ReLU(), nn.Linear(channels // reduction, channels)
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.mlp(x.mean(dim=(2, 3))) + self.mlp(x.amax(dim=(2, 3)))
        x = x * gate.sigmoid()[:, :, None, None]
        pooled = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        return x * self.spatial(pooled).sigmoid()


class FeatureFusion(nn.Module):
    """Merge the value encoder's features of each object with the key encoder's features of the frame."""

    def __init__(self, in_channels: int, out_channels: int, skip_kernel: int = 3) -> None:
        super().__init__()
        self.block1 = ResBlock(in_channels, out_channels, skip_kernel)
        self.cbam = CBAM(out_channels)
        self.block2 = ResBlock(out_channels, out_channels)

    def forward(self, value: Tensor, f16: Tensor) -> Tensor:
        """value: (B * O, C, h, w). f16: (B, C16, h, w)."""
        x = self.block1(value, f16)
        return self.block2(x + self.cbam(x))


class UpBlock(nn.Module):
    """Upsample by two and add the key encoder's skip features of the larger size."""

    def __init__(self, skip_channels: int, in_channels: int, out_channels: int, skip_kernel: int = 3) -> None:
        super().__init__()
        self.skip_conv = Conv2d(skip_channels, in_channels, skip_kernel, padding=skip_kernel // 2)
        self.block = ResBlock(in_channels, out_channels, skip_kernel)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x: (B * O, C, h, w). skip: (B, Cs, 2h, 2w), the same for the O objects of a frame."""
        skip = self.skip_conv(skip)  # once a frame, not once an object
        if plain_inference(x) and len(skip) == 1 and skip.nbytes * len(x) > _LARGE:
            return torch.cat([self._up(some, skip) for some in x.split(1)])
        return self._up(x, skip)

    def _up(self, x: Tensor, skip: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = x.unflatten(0, (skip.shape[0], -1)).add_(skip.unsqueeze(1))
        return self.block(x.flatten(0, 1))
