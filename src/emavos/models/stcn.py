"""STCN with attention: the stateless network, and its config."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from emavos.models.attention import ExternalAttention, Form, SelfAttention
from emavos.models.decoder import Decoder
from emavos.models.dinov2 import DinoV2
from emavos.models.efficientnet_lite import EfficientNetLiteTrunk
from emavos.models.encoders import POSITION_CHANNELS, Features, KeyEncoder, Trunk, ValueEncoder
from emavos.models.resnet import ResNetTrunk

Attention = Literal["none", "self", "external"]
TrunkName = Literal["resnet", "efficientnet-lite0"]
VitName = Literal["none", "dinov2-s"]

STRIDE = 16  # pixels per cell of keys and values; the sides of frames are multiples of 16


@dataclass(frozen=True)
class STCNConfig:
    """Architecture of an STCN. Defaults to the paper's baseline; `PRESETS` has the paper's other variants."""

    trunk: TrunkName = "resnet"  # resnet: ResNet-50 for keys, ResNet-18 for values
    key_channels: int = 64
    value_channels: int = 512
    context_channels: int = 512
    decoder_channels: tuple[int, int, int] = (512, 256, 256)  # at strides 16, 8, 4
    skip_kernel: int = 3  # kernel size of the skip convolutions
    key_attention: Attention = "none"  # on the key encoder's last map
    value_attention: Attention = "none"  # on the value encoder's last map, before the fusion
    attention_form: Form = "block"  # of external attention; use "equation" if the map does not end in a ReLU
    slots: int = 64  # rows of each external memory
    vit: VitName = "none"  # a vision transformer beside the key trunk
    vit_depth: int = 8  # blocks of the transformer to keep; the tokens of block 8 match objects best
    unit_keys: bool = False  # keys of unit length times a learned scale, instead of the bare projection
    key_positions: bool = False  # the last four channels of a key say where in the frame its cell is
    fine_key_channels: int = 0  # channels of a key for the trunk's map at stride 4
    vit_key_channels: int = 0  # channels of a key for the transformer alone; 0: added to those of the trunk
    top_k: int = 20  # memory cells that a readout uses, unless a policy says otherwise
    scene_key_channels: int = 0  # channels of a key for a small network that sees the whole frame

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        if not isinstance(self.decoder_channels, (tuple, list)) or len(self.decoder_channels) != 3:
            raise ValueError(f"decoder_channels holds three numbers, not {self.decoder_channels!r}")
        object.__setattr__(self, "decoder_channels", tuple(self.decoder_channels))  # JSON has only lists
        sizes = {name: getattr(self, name) for name in _SIZES} | {
            f"decoder_channels[{i}]": n for i, n in enumerate(self.decoder_channels)
        }
        for name, value in sizes.items():
            if type(value) is not int or not 1 <= value <= 4096:
                raise ValueError(f"{name} is a whole number from 1 to 4096, not {value!r}")
        if self.value_channels < 16:
            raise ValueError(f"value_channels is at least 16, not {self.value_channels}")
        if self.skip_kernel % 2 == 0:
            raise ValueError(f"skip_kernel is odd, not {self.skip_kernel}")
        for name in ("unit_keys", "key_positions"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} is true or false, not {getattr(self, name)!r}")
        parts = {name: getattr(self, name) for name in KEY_PARTS}
        for name, value in parts.items():
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} is a whole number from 0, not {value!r}")
            if value and not self.unit_keys:
                raise ValueError(f"{name} needs unit_keys")
        if self.vit_key_channels and self.vit == "none":
            raise ValueError("vit_key_channels needs a transformer; set vit")
        if self.key_channels <= (taken := sum(parts.values()) + POSITION_CHANNELS * self.key_positions):
            raise ValueError(f"key_channels is {taken + 1} or more with these parts, not {self.key_channels}")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> STCNConfig:
        """The config with these fields, for example read from JSON. An unknown field raises ValueError."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise ValueError(
                f"unknown config fields: {', '.join(unknown)}; known: {', '.join(sorted(known))}"
            )
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON. `from_dict` reads them back."""
        return dataclasses.asdict(self)


_CHOICES = {
    "trunk": get_args(TrunkName),
    "vit": get_args(VitName),
    "key_attention": get_args(Attention),
    "value_attention": get_args(Attention),
    "attention_form": get_args(Form),
}
KEY_PARTS = ("fine_key_channels", "vit_key_channels", "scene_key_channels")  # 0 in a key of one part
_SIZES = ("key_channels", "value_channels", "context_channels", "skip_kernel", "slots", "vit_depth", "top_k")

_SMALL = STCNConfig(
    trunk="efficientnet-lite0",
    value_channels=128,
    context_channels=128,
    decoder_channels=(128, 64, 32),
    skip_kernel=1,
    attention_form="equation",  # the trunk ends in a linear layer, not in a ReLU
)
_BOTH = dataclasses.replace(_SMALL, key_attention="external", value_attention="external")
_TINY_ATTENTION: Mapping[str, tuple[Attention, Attention]] = {  # of keys, of values
    "stcn-tiny": ("external", "external"),  # the embedded model; the presets below are its comparisons
    "stcn-tiny-none": ("none", "none"),
    "stcn-tiny-self-key": ("self", "none"),
    "stcn-tiny-self-value": ("none", "self"),
    "stcn-tiny-self-both": ("self", "self"),
    "stcn-tiny-external-key": ("external", "none"),
    "stcn-tiny-external-value": ("none", "external"),
}
_NEAR = dataclasses.replace(_BOTH, unit_keys=True, key_positions=True)

PRESETS: Mapping[str, STCNConfig] = {
    "stcn": STCNConfig(),
    "stcn-self-key": STCNConfig(key_attention="self"),
    "stcn-self-value": STCNConfig(value_attention="self"),
    "stcn-self-both": STCNConfig(key_attention="self", value_attention="self"),
    "stcn-external-key": STCNConfig(key_attention="external"),
    "stcn-external-value": STCNConfig(value_attention="external"),
    "stcn-external-both": STCNConfig(key_attention="external", value_attention="external"),
    **{
        name: dataclasses.replace(_SMALL, key_attention=key, value_attention=value)
        for name, (key, value) in _TINY_ATTENTION.items()
    },
    "stcn-tiny-unit": dataclasses.replace(_BOTH, unit_keys=True),
    "stcn-tiny-position": _NEAR,
    "stcn-tiny-fine": dataclasses.replace(_NEAR, key_channels=88, fine_key_channels=24),
    "stcn-tiny-scene": dataclasses.replace(
        _NEAR, key_channels=120, fine_key_channels=24, scene_key_channels=32, top_k=4
    ),
    "stcn-base": dataclasses.replace(_BOTH, unit_keys=True, vit="dinov2-s"),
    "stcn-base-position": dataclasses.replace(_NEAR, vit="dinov2-s"),
    "stcn-base-parts": dataclasses.replace(_NEAR, vit="dinov2-s", key_channels=128, vit_key_channels=64),
}


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
