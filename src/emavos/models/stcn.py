"""STCN with attention: the stateless network."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from emavos.models.attention import ExternalAttention, SelfAttention
from emavos.models.config import Attention, STCNConfig
from emavos.models.decoder import Decoder
from emavos.models.dinov2 import DinoV2
from emavos.models.efficientnet_lite import EfficientNetLiteTrunk
from emavos.models.encoders import Features, KeyEncoder, Trunk, ValueEncoder
from emavos.models.resnet import ResNetTrunk

STRIDE = 16  # pixels per cell of keys and values; the sides of frames are multiples of 16


class STCN(nn.Module):
    """Space-time correspondence network (Cheng et al., NeurIPS 2021), with attention (Kim and Hong, 2023).

    The network has no state between calls: frames in, features out. Frames are float (B, 3, H, W), normalised
    by `emavos.frames.normalize`. H and W are multiples of 16, and h = H / 16, w = W / 16.

    >>> model = STCN(PRESETS["stcn-tiny"])
    >>> features = model.encode_key(torch.zeros(1, 3, 96, 160))
    >>> features.key.shape
    torch.Size([1, 64, 6, 10])
    """

    def __init__(self, config: STCNConfig | None = None) -> None:
        super().__init__()
        self.config = config = STCNConfig() if config is None else config
        key_trunk, value_trunk = _trunks(config)
        c4, c8, c16 = key_trunk.channels
        self.key_encoder = KeyEncoder(
            key_trunk,
            _attention(config.key_attention, c16, config),
            config.key_channels,
            config.context_channels,
            unit_keys=config.unit_keys,
            key_positions=config.key_positions,
            vit=None if config.vit == "none" else DinoV2(config.vit_depth),
            fine_key_channels=config.fine_key_channels,
            vit_key_channels=config.vit_key_channels,
            scene_key_channels=config.scene_key_channels,
        )
        self.value_encoder = ValueEncoder(
            value_trunk,
            _attention(config.value_attention, value_trunk.channels[2], config),
            c16,
            config.value_channels,
            config.skip_kernel,
        )
        self.decoder = Decoder(
            config.value_channels + config.context_channels,
            (c4, c8),
            config.decoder_channels,
            config.skip_kernel,
        )
        self.train(self.training)  # freezes batch norm
        self.to(memory_format=torch.channels_last)  # on a CPU about twice as fast

    def encode_key(self, frames: Tensor) -> Features:
        """Key, context and skip features of frames (B, 3, H, W)."""
        return self.key_encoder(frames)

    def encode_value(
        self, frames: Tensor, features: Features, prob: Tensor, total: Tensor | None = None
    ) -> Tensor:
        """Values (B, O, Cv, h, w) of O objects.

        frames: (B, 3, H, W).
        features: of the frames, from `encode_key`.
        prob: (B, O, H, W), the probability of each object.
        total: (B, 1, H, W), the sum of prob over all objects. Needed only if `prob` has some of the objects.
        """
        return self.value_encoder(frames, features.f16, prob, total)

    def decode(self, readout: Tensor, features: Features, cells: Tensor | None = None) -> Tensor:
        """Logits (B, O, H, W) of each object by itself.

        readout: (B, O, Cv, h, w), the memory readout of each object.
        features: of the frames, from `encode_key`.
        cells: bool (B, O, h, w), the cells to decode. Logits are computed in rectangles that cover these
            cells, and are minus infinity (a probability of zero) elsewhere. None decodes all cells.
        """
        return self.decoder(readout, features, cells)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str] | None = None, **options: Any) -> STCN:
        """A trained model in evaluation mode. Takes the arguments of `emavos.weights.load_model`.

        >>> model = STCN.from_pretrained("base")
        """
        model: STCN = _weights().load_model(name_or_path, **options)
        return model

    def save_pretrained(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Write config and weights. Takes the arguments of `emavos.weights.save_model`."""
        _weights().save_model(self, folder, **options)

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Upload to "user/name" on the Hub. Takes the arguments of `emavos.weights.push_model`."""
        address: str = _weights().push_model(self, repository, **options)
        return address

    def train(self, mode: bool = True) -> STCN:
        """Same as `nn.Module.train`, but batch norm always stays in evaluation mode, as STCN trains it."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def _weights() -> ModuleType:
    """The package `emavos.weights`, imported by name on use: `emavos.models` must not depend on it."""
    return importlib.import_module("emavos.weights")


def _trunks(config: STCNConfig) -> tuple[Trunk, Trunk]:
    """The trunks for keys (image) and for values (image, mask of the object, mask of the others)."""
    if config.trunk == "resnet":
        return ResNetTrunk(50), ResNetTrunk(18, in_channels=5)
    return EfficientNetLiteTrunk(), EfficientNetLiteTrunk(in_channels=5)


def _attention(kind: Attention, channels: int, config: STCNConfig) -> nn.Module:
    if kind == "external":
        return ExternalAttention(channels, config.slots, form=config.attention_form)
    return SelfAttention(channels) if kind == "self" else nn.Identity()
