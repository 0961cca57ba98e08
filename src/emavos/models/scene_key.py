"""A part of a key that sees the whole frame, for models without a vision transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from emavos.models.convolution import Conv2d

_WIDTH = 96
_BLOCKS = 3
_KERNEL = 7


class SceneKey(nn.Module):
    """A small network over the three maps of a trunk. It is distilled from the transformer's part of another
    model's key (`emavos.training.distil`).

    trunk_channels: of the maps at strides 4, 8 and 16.
    channels: of the result.
    """

    def __init__(self, trunk_channels: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        # its statistics are those of the maps that it was distilled on
        self.norm = nn.BatchNorm2d(sum(trunk_channels), affine=False)
        self.stem = nn.Conv2d(sum(trunk_channels), _WIDTH, 3, padding=1)
        self.blocks = nn.Sequential(*(SceneBlock(_WIDTH) for _ in range(_BLOCKS)))
        self.proj = Conv2d(_WIDTH, channels, 1)

    def forward(self, f4: Tensor, f8: Tensor, f16: Tensor) -> Tensor:
        """The features (B, width, h, w) from which `proj` makes the part of the key.

        f4, f8, f16: maps of the trunk (B, C, h, w) at strides 4, 8 and 16; f16 before the attention.
        """
        return self.seen(self.maps(f4, f8, f16))

    @staticmethod
    def maps(f4: Tensor, f8: Tensor, f16: Tensor) -> Tensor:
        """The maps of a trunk side by side, averaged over each cell of stride 16: (B, C, h, w)."""
        return torch.cat([f16, functional.avg_pool2d(f8, 2), functional.avg_pool2d(f4, 4)], dim=1)

    def seen(self, maps: Tensor) -> Tensor:
        """The result of `forward`, from `maps`."""
        out: Tensor = self.blocks(self.stem(self.norm(maps)))
        return out


class SceneBlock(nn.Module):
    """A depthwise convolution with the mean of the frame added, then two pointwise layers, as a residual.

    The order of layers is that of ConvNeXt (Liu et al., CVPR 2022). A new block is the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, channels, _KERNEL, padding=_KERNEL // 2, groups=channels)
        self.norm = nn.GroupNorm(1, channels)
        self.frame = nn.Linear(channels, channels)
        self.widen = Conv2d(channels, 2 * channels, 1)
        self.narrow = Conv2d(2 * channels, channels, 1)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as x, (B, C, h, w)."""
        seen = self.norm(self.near(x)) + self.frame(x.mean(dim=(2, 3)))[:, :, None, None]
        out: Tensor = x + self.narrow(functional.gelu(self.widen(seen)))
        return out
