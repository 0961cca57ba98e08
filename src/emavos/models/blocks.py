"""The blocks that STCN's value encoder and decoder are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResBlock(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, and a skip; no normalisation.

    Takes maps of objects (B * O, C, h, w) and, as further channels, maps of their frames (B, Cs, h, w). What
    a convolution makes of the latter is the same for all objects of a frame and is computed once.

    in_channels: C + Cs. skip_kernel: of the convolution on the skip where the number of channels changes.
    """

    def __init__(self, in_channels: int, out_channels: int, skip_kernel: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = (
            nn.Conv2d(in_channels, out_channels, skip_kernel, padding=skip_kernel // 2)
            if in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor, shared: Tensor | None = None) -> Tensor:
        if shared is None:
            return self.skip(x) + self.conv2(self.conv1(x.relu()).relu())
        hidden = _convolve(self.conv1, x.relu(), shared.relu())
        return _convolve(self.skip, x, shared) + self.conv2(hidden.relu())


def _convolve(conv: nn.Module, x: Tensor, shared: Tensor) -> Tensor:
    """conv of (B * O, C, h, w) and (B, Cs, h, w) side by side, the latter's part computed once."""
    frames, objects = shared.shape[0], x.shape[0] // shared.shape[0]
    if not isinstance(conv, nn.Conv2d):  # a skip that changes nothing
        each = shared.unsqueeze(1).expand(-1, objects, -1, -1, -1)
        return torch.cat([x, each.flatten(0, 1)], dim=1)
    own, common = conv.weight.split([x.shape[1], shared.shape[1]], dim=1)
    once = functional.conv2d(shared, common, conv.bias, padding=conv.padding)
    out = functional.conv2d(x, own, padding=conv.padding)
    return (out.unflatten(0, (frames, objects)) + once.unsqueeze(1)).flatten(0, 1)


class CBAM(nn.Module):
    """Channel gate, then spatial gate (Woo et al., ECCV 2018)."""

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
    """What the value encoder saw of each object, and what the key encoder saw of their frame, made one."""

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
    """Twice the size, plus the skip features of the key encoder at that size."""

    def __init__(self, skip_channels: int, in_channels: int, out_channels: int, skip_kernel: int = 3) -> None:
        super().__init__()
        self.skip_conv = nn.Conv2d(skip_channels, in_channels, skip_kernel, padding=skip_kernel // 2)
        self.block = ResBlock(in_channels, out_channels, skip_kernel)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x: (B * O, C, h, w). skip: (B, Cs, 2h, 2w), the same for the O objects of a frame."""
        skip = self.skip_conv(skip)  # once a frame, not once an object
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = x.unflatten(0, (skip.shape[0], -1)) + skip.unsqueeze(1)
        return self.block(x.flatten(0, 1))
