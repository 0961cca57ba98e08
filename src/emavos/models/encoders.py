"""The two encoders of STCN: keys from the frame only, values from the frame and the masks of its objects."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from emavos.models.blocks import FeatureFusion
from emavos.models.convolution import Conv2d
from emavos.models.dinov2 import DinoV2
from emavos.models.efficientnet_lite import EfficientNetLiteTrunk
from emavos.models.resnet import ResNetTrunk
from emavos.models.scene_key import SceneKey

Trunk = ResNetTrunk | EfficientNetLiteTrunk


class Features(NamedTuple):
    """Output of the key encoder: everything that later stages use of a frame."""

    key: Tensor  # (B, Ck, h, w) at stride 16: the query of this frame, and its key once stored
    context: Tensor  # (B, Cc, h, w)
    f16: Tensor  # (B, C16, h, w)
    f8: Tensor  # (B, C8, 2h, 2w)
    f4: Tensor  # (B, C4, 4h, 4w)


KEY_SCALE = 18.0  # length of unit keys before training: the best cell of a query gets about 0.4 of the weight
POSITION_SCALE = 2.0  # amplitude of the positions in a key before training
POSITION_CHANNELS = 4  # cosine and sine of a cell's row and column
FINE_SHARE = 0.2  # of the squared length of a key before training, if the key has such a part
VIT_SHARE = 0.3  # the same of the transformer's part
SCENE_SHARE = 0.15  # the same of the scene's part


class KeyEncoder(nn.Module):
    """Trunk, attention on the last map, then projections to key and context.

    unit_keys: give every key the same learned length `exp(log_scale)`, so STCN's similarity becomes a cosine
        times a learned factor. Otherwise the keys keep growing during training until the softmax over the
        memory is an argmax, and an argmax passes no gradient to the keys.
    key_positions: the last four channels of a key are `positions` times the learned amplitude
        `exp(log_position)`. Of two cells that look the same, the nearer one then gets more weight.
    vit: a vision transformer. Its tokens are added to the last map of the trunk, before the attention, and to
        the key.
    fine_key_channels: channels of the key for the trunk's map at stride 4, averaged over each cell. They come
        after those of the last map, which has lost colour and texture. 0: none.
    vit_key_channels: channels of the key for the transformer only, after these. 0: the transformer's part is
        added to the part of the last map. Each part has a learned length of its own, so none can drown
        another.
    scene_key_channels: channels of the key for a `SceneKey`, after these. 0: none.
    """

    def __init__(
        self,
        trunk: Trunk,
        attention: nn.Module,
        key_channels: int,
        context_channels: int,
        *,
        unit_keys: bool = False,
        key_positions: bool = False,
        vit: DinoV2 | None = None,
        fine_key_channels: int = 0,
        vit_key_channels: int = 0,
        scene_key_channels: int = 0,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.attention = attention
        if key_positions:
            key_channels -= POSITION_CHANNELS
        key_channels -= fine_key_channels + vit_key_channels + scene_key_channels
        self.key_proj = nn.Conv2d(trunk.channels[2], key_channels, 3, padding=1)
        self.context_proj = Conv2d(trunk.channels[2], context_channels, 3, padding=1)
        fine_share, vit_share = FINE_SHARE * bool(fine_key_channels), VIT_SHARE * bool(vit_key_channels)
        scene_share = SCENE_SHARE * bool(scene_key_channels)
        self.log_scale = _log_length(1 - fine_share - vit_share - scene_share) if unit_keys else None
        self.log_fine_scale = _log_length(fine_share) if fine_key_channels else None
        self.log_vit_scale = _log_length(vit_share) if vit_key_channels else None
        self.log_scene_scale = _log_length(scene_share) if scene_key_channels else None
        if fine_key_channels:
            self.fine_key = nn.Conv2d(trunk.channels[0], fine_key_channels, 1)
        if scene_key_channels:
            self.scene_key = SceneKey(trunk.channels, scene_key_channels)
        self.log_position = nn.Parameter(torch.tensor(math.log(POSITION_SCALE))) if key_positions else None
        # STCN, section 3.3: with an orthogonal start, keys spread over the space of the L2 similarity
        nn.init.orthogonal_(self.key_proj.weight)
        self.vit = vit
        if vit is not None:
            self.vit_proj = Conv2d(vit.channels, trunk.channels[2], 1)
            self.vit_key = nn.Conv2d(vit.channels, vit_key_channels or key_channels, 1)
            nn.init.zeros_(self.vit_proj.weight)
            assert self.vit_proj.bias is not None
            nn.init.zeros_(self.vit_proj.bias)
            nn.init.orthogonal_(self.vit_key.weight)

    def forward(self, frames: Tensor) -> Features:
        f4, f8, f16 = self.trunk(frames)
        tokens = None if self.vit is None else self.vit(_centred(frames))
        scene = None if self.log_scene_scale is None else self.scene_key(f4, f8, f16)
        f16 = self.attention(f16 if tokens is None else f16 + self.vit_proj(tokens))
        return Features(self._key(f4, f16, tokens, scene), self.context_proj(f16), f16, f8, f4)

    def _key(
        self, f4: Tensor, f16: Tensor, tokens: Tensor | None = None, scene: Tensor | None = None
    ) -> Tensor:
        """The key (B, Ck, h, w), of up to five parts: last map, stride 4, transformer, scene and position.

        f4, f16: maps of the trunk, the last one after the attention.
        tokens: (B, C, h, w), the features of the transformer, if there is one.
        scene: (B, width, h, w), the features of `scene_key`, if there is one.
        """
        key = _wide(self.key_proj, f16)
        vit = None if tokens is None else _wide(self.vit_key, tokens)
        if vit is not None and self.log_vit_scale is None:
            key = key + vit
        parts = [_of_length(key, self.log_scale)]
        if self.log_fine_scale is not None:
            parts.append(_of_length(_wide(self.fine_key, self.fine_map(f4)), self.log_fine_scale))
        if vit is not None and self.log_vit_scale is not None:
            parts.append(_of_length(vit, self.log_vit_scale))
        if scene is not None:
            parts.append(_of_length(_wide(self.scene_key.proj, scene), self.log_scene_scale))
        if self.log_position is not None:
            parts.append(self._places(key))
        return torch.cat(parts, dim=1)

    def vit_part(self, frames: Tensor) -> Tensor:
        """The transformer's part of the key, before it gets its length: (B, C, h, w) of (B, 3, H, W)."""
        assert self.vit is not None
        return _wide(self.vit_key, self.vit(_centred(frames)))

    @staticmethod
    def fine_map(f4: Tensor) -> Tensor:
        """The trunk's map at stride 4, averaged over each cell: (B, C4, h, w)."""
        return functional.avg_pool2d(f4, 4)

    def _places(self, key: Tensor) -> Tensor:
        """The positions of the cells of a key (B, C, h, w), times their amplitude: (B, 4, h, w)."""
        assert self.log_position is not None
        places = positions(key.shape[2], key.shape[3], key.device) * self.log_position.exp()  # (4, h, w)
        return places.to(key.dtype).expand(len(key), -1, -1, -1)


def _log_length(share: float) -> nn.Parameter:
    """The logarithm of the length of a part with this share of the squared length of a key."""
    return nn.Parameter(torch.tensor(math.log(KEY_SCALE) + math.log(share) / 2))


def _of_length(key: Tensor, log_scale: Tensor | None) -> Tensor:
    """A key (B, C, h, w) of length `exp(log_scale)` in every cell; None: as it is."""
    if log_scale is None:
        return key
    length = key.norm(dim=1, keepdim=True).clamp_min(1e-12)  # (B, 1, h, w)
    length = length + (length - length)  # infinity becomes NaN, or the key would be 0 without error
    return key / length * log_scale.to(key.dtype).exp()


def positions(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Cosine and sine of the row and the column of each cell, (4, height, width) float32.

    The longer side is half a period. So the squared distance of two cells' positions grows with the distance
    of the cells as a share of the frame, to at most 4 for each axis. All positions have the same length.
    """
    longer = torch.sym_max(height, width)  # `max` would fix which side is longer in an export
    row = torch.arange(height, dtype=torch.float32, device=device).mul(math.pi / longer)
    column = torch.arange(width, dtype=torch.float32, device=device).mul(math.pi / longer)
    row, column = row[:, None].expand(height, width), column.expand(height, width)
    return torch.stack([row.cos(), row.sin(), column.cos(), column.sin()])


def _wide(projection: nn.Conv2d, x: Tensor) -> Tensor:
    """Project x in float32 or wider. In half precision, rounding would make different cells look the same."""
    wide = torch.promote_types(x.dtype, torch.float32)
    if x.is_meta or (x.dtype == wide and not torch.is_autocast_enabled(x.device.type)):
        projected: Tensor = projection(x)
        return projected
    bias = None if projection.bias is None else projection.bias.to(wide)
    with torch.autocast(x.device.type, enabled=False):
        return functional.conv2d(x.to(wide), projection.weight.to(wide), bias, padding=projection.padding)


def _centred(frames: Tensor) -> Tensor:
    """Shift frames by half a cell, so the transformer's patches line up with the cells of the trunk."""
    height, width = frames.shape[-2:]
    return functional.pad(frames, (8, 0, 8, 0), mode="replicate")[..., :height, :width]


class ValueEncoder(nn.Module):
    """Trunk on frame, mask and mask of the others; attention on the last map; fusion with `f16`."""

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
        """Values (B, O, Cv, h, w).

        frames: (B, 3, H, W), normalised.
        f16: (B, C16, h, w), key encoder features of the frames.
        prob: (B, O, H, W), the probability of each object.
        total: (B, 1, H, W), the sum of prob over all objects. Needed only if `prob` has some of the objects.
        """
        objects = prob.shape[1]
        others = (prob.sum(dim=1, keepdim=True) if total is None else total) - prob
        planes = torch.stack([prob, others], dim=2)  # (B, O, 2, H, W)
        pictures = frames.unsqueeze(1).expand(-1, objects, *frames.shape[1:])  # (B, O, 3, H, W)
        x = torch.cat([pictures, planes], dim=2).flatten(0, 1)
        value = self.fusion(self.attention(self.trunk(x)[2]), f16)
        return value.unflatten(0, (-1, objects))
