"""The two encoders of STCN: keys of the frame alone, values of the frame and the objects' masks."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from emavos.models.blocks import FeatureFusion
from emavos.models.dinov2 import DinoV2
from emavos.models.efficientnet_lite import EfficientNetLiteTrunk
from emavos.models.resnet import ResNetTrunk
from emavos.models.winograd import Conv2d

Trunk = ResNetTrunk | EfficientNetLiteTrunk


class Features(NamedTuple):
    """What the key encoder says of frames; all that is later asked of them is asked of this."""

    key: Tensor  # (B, Ck, h, w), h w at stride 16: query of this frame, key once it is memory
    context: Tensor  # (B, Cc, h, w)
    f16: Tensor  # (B, C16, h, w)
    f8: Tensor  # (B, C8, 2h, 2w)
    f4: Tensor  # (B, C4, 4h, 4w)


KEY_SCALE = 18.0  # length of unit keys before training: a query's best cell gets about 0.4 of the weight


class KeyEncoder(nn.Module):
    """Trunk, attention on its last map, then the projections to key and context.

    vit: a transformer whose tokens are added to the trunk's last map before the attention, and to the key.
    unit_keys: every key has the same learned length `exp(log_scale)`, so that STCN's similarity is a cosine
        times a learned factor. Otherwise the length of keys grows until the softmax over the memory is an
        argmax, through which keys get no gradient.
    """

    def __init__(
        self,
        trunk: Trunk,
        attention: nn.Module,
        key_channels: int,
        context_channels: int,
        *,
        unit_keys: bool = False,
        vit: DinoV2 | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.attention = attention
        self.key_proj = nn.Conv2d(trunk.channels[2], key_channels, 3, padding=1)
        self.context_proj = Conv2d(trunk.channels[2], context_channels, 3, padding=1)
        self.log_scale = nn.Parameter(torch.tensor(math.log(KEY_SCALE))) if unit_keys else None
        # STCN, section 3.3: keys that start orthogonal spread over the space of the L2 similarity
        nn.init.orthogonal_(self.key_proj.weight)
        self.vit = vit
        if vit is not None:
            self.vit_proj = nn.Conv2d(vit.channels, trunk.channels[2], 1)
            self.vit_key = nn.Conv2d(vit.channels, key_channels, 1)
            nn.init.zeros_(self.vit_proj.weight)
            assert self.vit_proj.bias is not None
            nn.init.zeros_(self.vit_proj.bias)
            nn.init.orthogonal_(self.vit_key.weight)

    def forward(self, frames: Tensor) -> Features:
        f4, f8, f16 = self.trunk(frames)
        if self.vit is None:
            f16 = self.attention(f16)
            key = _wide(self.key_proj, f16)
        else:
            tokens = self.vit(_centred(frames))
            f16 = self.attention(f16 + self.vit_proj(tokens))
            key = _wide(self.key_proj, f16) + _wide(self.vit_key, tokens)
        return Features(self._key(key), self.context_proj(f16), f16, f8, f4)

    def _key(self, key: Tensor) -> Tensor:
        """The key from its projection, (B, Ck, h, w)."""
        if self.log_scale is None:
            return key
        return functional.normalize(key, dim=1) * self.log_scale.to(key.dtype).exp()


def _wide(projection: nn.Conv2d, x: Tensor) -> Tensor:
    """The projection of x in float32 at least: rounded to half precision, cells that differ look the same."""
    wide = torch.promote_types(x.dtype, torch.float32)
    if x.is_meta or (x.dtype == wide and not torch.is_autocast_enabled(x.device.type)):
        projected: Tensor = projection(x)
        return projected
    bias = None if projection.bias is None else projection.bias.to(wide)
    with torch.autocast(x.device.type, enabled=False):
        return functional.conv2d(x.to(wide), projection.weight.to(wide), bias, padding=projection.padding)


def _centred(frames: Tensor) -> Tensor:
    """Frames moved by half a cell: a transformer's patches then lie where the trunk's cells are centred."""
    height, width = frames.shape[-2:]
    return functional.pad(frames, (8, 0, 8, 0), mode="replicate")[..., :height, :width]


class ValueEncoder(nn.Module):
    """Trunk on frame, mask and others' mask; attention on its last map; fusion with the key's features."""

    def __init__(
        self,
        trunk: Trunk,
        attention: nn.Module,
        key_feature_channels: int,
        value_channels: int,
        skip_kernel: int = 3,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.attention = attention
        channels = trunk.channels[2] + key_feature_channels
        self.fusion = FeatureFusion(channels, value_channels, skip_kernel)

    def forward(self, frames: Tensor, f16: Tensor, prob: Tensor, total: Tensor | None = None) -> Tensor:
        """frames: (B, 3, H, W). f16: (B, C16, h, w). prob: (B, O, H, W). Returns (B, O, Cv, h, w).

        total: (B, 1, H, W), the sum of prob over all objects, where it holds some of them alone.
        """
        objects = prob.shape[1]
        others = (prob.sum(dim=1, keepdim=True) if total is None else total) - prob
        planes = torch.stack([prob, others], dim=2)  # (B, O, 2, H, W)
        pictures = frames.unsqueeze(1).expand(-1, objects, *frames.shape[1:])  # (B, O, 3, H, W)
        x = torch.cat([pictures, planes], dim=2).flatten(0, 1)
        value = self.fusion(self.attention(self.trunk(x)[2]), f16)
        return value.unflatten(0, (-1, objects))
