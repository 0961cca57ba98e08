"""DINOv2's vision transformer (Oquab et al., 2023; Dosovitskiy et al., 2021), at our stride of 16."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from emavos.models.linear import Linear
from emavos.models.scaled_dot_product import attend

_PATCH = 14  # pixels of a side
_STRIDE = 16  # pixels of a frame to a cell
_EPS = 1e-6


class DinoV2(nn.Module):
    """ViT-S/14 up to block `depth`: one feature vector of 384 channels for each cell of 16 x 16 pixels.

    depth: number of blocks to keep, of 12. The tokens of block 8 match objects across frames best. The tokens
        of block 9 are almost as good while the memory is recent.
    width: channels; the default is that of ViT-S/14.
    heads: attention heads.
    grid: side of the square of patches that the position embeddings were trained on: 37 for 518 pixels.
    learned_norm: whether to end in the layer norm trained with block 12. Otherwise the norm has no
        parameters.
    """

    def __init__(
        self,
        depth: int = 8,
        *,
        width: int = 384,
        heads: int = 6,
        grid: int = 37,
        learned_norm: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth is {depth}; keep at least 1 block")
        if width % heads:
            raise ValueError(f"width {width} does not divide into {heads} heads")
        self.channels = width
        self.patch = nn.Conv2d(3, width, _PATCH, stride=_PATCH)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.class_position = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, width, grid, grid))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=_EPS, elementwise_affine=learned_norm)
        for parameter in (self.class_token, self.class_position, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, frames: Tensor) -> Tensor:
        """Features of unit variance at each cell: (B, width, H/16, W/16).

        frames: (B, 3, H, W), normalised by ImageNet's mean and deviation; H and W multiples of 16. They are
            resized to 14/16, so a patch of 14 pixels covers a cell of 16.
        """
        height, width = frames.shape[-2:]
        if height % _STRIDE or width % _STRIDE:
            raise ValueError(f"frames are {height}x{width}; pad both sides to multiples of {_STRIDE}")
        size = (height // _STRIDE * _PATCH, width // _STRIDE * _PATCH)
        # Bilinear without antialiasing: shrinking to 7/8 causes hardly any aliasing.
        resized = functional.interpolate(frames, size=size, mode="bilinear", align_corners=False)
        return self.encode(resized.to(self.patch.weight.dtype))  # a folded network has another dtype

    def encode(self, frames: Tensor) -> Tensor:
        """Features of frames whose sides are multiples of 14, DINOv2's own stride: (B, width, H/14, W/14)."""
        patches = self.patch(frames)
        h, w = patches.shape[-2:]
        tokens = (patches + self.positions_at(h, w)).flatten(2).transpose(1, 2)  # (B, h w, width)
        first = (self.class_token + self.class_position).expand(len(tokens), -1, -1)
        tokens = torch.cat([first.to(tokens.dtype), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        features = self.norm(tokens[:, 1:])
        return features.transpose(1, 2).unflatten(2, (h, w))

    def positions_at(self, h: int, w: int) -> Tensor:
        """Position embeddings of h x w patches, bicubic between the trained ones: (1, width, h, w)."""
        if self.positions.shape[-2:] == (h, w):
            return self.positions
        trained = self.positions.float()  # half precision would round where the cubic weights cancel
        scaled = functional.interpolate(trained, size=(h, w), mode="bicubic", align_corners=False)
        return scaled.to(self.positions.dtype)


class Block(nn.Module):
    """Attention, then an MLP. Each follows a layer norm, is scaled per channel and is added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attention = Attention(width, heads)
        self.scale1 = nn.Parameter(torch.ones(width))
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = nn.Sequential(Linear(width, 4 * width), nn.GELU(), Linear(4 * width, width))
        self.scale2 = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.scale1 * self.attention(self.norm1(tokens))
        return tokens + self.scale2 * self.mlp(self.norm2(tokens))


class Attention(nn.Module):
    """Self-attention of several heads over all tokens (B, N, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.project = Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = (
            self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # (B, heads, N, _)
        mixed = attend(q, k, v)
        return self.project(mixed.transpose(1, 2).flatten(2))
