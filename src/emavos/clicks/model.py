"""The click head: from prompts and the key encoder's features to the mask of one object."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from emavos.clicks.planes import LIKENESS, PLANES, Prompts, likeness, planes_of
from emavos.models import STCN, Features, STCNConfig
from emavos.models.blocks import FeatureFusion, ResBlock
from emavos.models.decoder import Decoder

_WIDTHS = (24, 48)  # of the prompts' maps at strides 4 and 8
_EMBEDDING = 32
_DETAIL = 16


class Seen(NamedTuple):
    """The maps of frames, computed once per frame, before the first click."""

    embedding: Tensor  # (B, E, 2h, 2w), of unit length
    fusion: tuple[Tensor, Tensor]  # share of f16 in the fusion's first block, see `_from_frame`
    compress: tuple[Tensor, Tensor]  # share of the context in the decoder's first block
    skip8: Tensor  # (B, D16, 2h, 2w)
    skip4: Tensor  # (B, D8, 4h, 4w)
    detail: Tensor  # (B, Cd, 8h, 8w), of the pictures themselves


class ClickHead(nn.Module):
    """Predicts the mask of one object per frame from prompts and the features of a trained network.

    Points, box and mask of the prompts are planes at stride 4. Three convolutions reduce the planes to stride
    16, beside maps of how similar each cell is to the clicked cells. The result is fused with f16 and
    decoded with f8 and f4. Fusion and decoder have the shapes of the network's own and start with the
    network's weights: see `ClickHead.of`.

    config: of the network.
    """

    def __init__(self, config: STCNConfig, channels: tuple[int, int, int]) -> None:
        super().__init__()
        c4, c8, c16 = channels
        _, d8, d4 = config.decoder_channels
        w4, w8 = _WIDTHS
        self.embed16 = nn.Conv2d(c16, _EMBEDDING, 1)
        self.embed8 = nn.Conv2d(c8, _EMBEDDING, 1)
        self.down4 = nn.Conv2d(PLANES, w4, 3, padding=1)
        self.down8 = nn.Conv2d(w4 + LIKENESS, w8, 3, padding=1)
        self.down16 = nn.Conv2d(w8, c16, 3, stride=2, padding=1)
        self.fusion = FeatureFusion(2 * c16, config.value_channels, config.skip_kernel)
        self.decoder = Decoder(
            config.value_channels + config.context_channels,
            (c4, c8),
            config.decoder_channels,
            config.skip_kernel,
        )
        self.side8 = nn.Conv2d(w8, d8, 1)
        self.side4 = nn.Conv2d(w4, d4, 1)
        self.picture = nn.Conv2d(3, _DETAIL, 3, stride=2, padding=1)
        self.detail = nn.Conv2d(d4, _DETAIL, 1)
        self.fine = nn.Conv2d(_DETAIL, 1, 3, padding=1)
        for layer in (self.side8, self.side4, self.fine):  # so that the decoder begins as it was
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        self.to(memory_format=torch.channels_last)

    @classmethod
    def of(cls, network: STCN) -> ClickHead:
        """A head for a network, with copies of the network's fusion and decoder."""
        head = cls(network.config, network.key_encoder.trunk.channels)
        head.fusion.load_state_dict(network.value_encoder.fusion.state_dict())
        head.decoder.load_state_dict(network.decoder.state_dict())
        return head

    def see(self, frames: Tensor, features: Features) -> Seen:
        """The maps that all clicks on a frame share. frames: (B, 3, H, W), normalised."""
        up = _twice(self.embed16(features.f16))
        decoder = self.decoder
        return Seen(
            functional.normalize(up + self.embed8(features.f8), dim=1),
            _from_frame(self.fusion.block1, features.f16),
            _from_frame(decoder.compress, features.context),
            decoder.up8.skip_conv(features.f8),
            decoder.up4.skip_conv(features.f4),
            self.picture(frames),
        )

    def forward(self, seen: Seen, prompts: Prompts) -> Tensor:
        """Logits (B, 1, H / 2, W / 2) of the object."""
        fusion, decoder = self.fusion, self.decoder
        e4 = self.down4(planes_of(prompts)).relu()
        alike = likeness(seen.embedding, prompts)
        e8 = self.down8(torch.cat([functional.avg_pool2d(e4, 2), alike], dim=1)).relu()
        value = _with_frame(fusion.block1, self.down16(e8), seen.fusion)
        value = fusion.block2(value + fusion.cbam(value))
        x = _with_frame(decoder.compress, value, seen.compress)
        x = decoder.up8.block(_twice(x) + seen.skip8) + self.side8(e8)
        x = (decoder.up4.block(_twice(x) + seen.skip4) + self.side4(e4)).relu()
        both = _twice(torch.cat([decoder.pred(x), self.detail(x)], dim=1))
        return both[:, :1] + self.fine((both[:, 1:] + seen.detail).relu())


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _from_frame(block: ResBlock, shared: Tensor) -> tuple[Tensor, Tensor]:
    """The share of a frame's maps in a block: in its first convolution and in its skip.

    shared: (B, C, h, w), the last input channels of the block.
    """
    own = block.conv1.in_channels - shared.shape[1]
    hidden = _convolve(block.conv1, shared.relu(), slice(own, None), biased=True)
    return hidden, _convolve(block.skip, shared, slice(own, None), biased=True)


def _with_frame(block: ResBlock, x: Tensor, shared: tuple[Tensor, Tensor]) -> Tensor:
    """The output of a block. x: the first input channels; shared: the rest, from `_from_frame`."""
    own = slice(0, x.shape[1])
    hidden = _convolve(block.conv1, x.relu(), own) + shared[0]
    return block.conv2(hidden.relu()) + _convolve(block.skip, x, own) + shared[1]


def _convolve(conv: nn.Module, x: Tensor, channels: slice, biased: bool = False) -> Tensor:
    assert isinstance(conv, nn.Conv2d)  # blocks of the decoder change the number of channels: no identity
    bias = conv.bias if biased else None
    weight = conv.weight[:, channels].contiguous(memory_format=torch.channels_last)  # 1x1 ones are slow else
    return functional.conv2d(x, weight, bias, padding=conv.kernel_size[0] // 2)
