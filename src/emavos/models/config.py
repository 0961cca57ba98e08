"""The config of an STCN, and the configs of the paper and of the embedded models by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from emavos.models.attention import Form
from emavos.models.encoders import POSITION_CHANNELS

Attention = Literal["none", "self", "external"]
TrunkName = Literal["resnet", "efficientnet-lite0"]
VitName = Literal["none", "dinov2-s"]


@dataclass(frozen=True)
class STCNConfig:
    """Architecture of an STCN. Defaults to the paper's baseline; `PRESETS` has the paper's other variants.

    trunk: "resnet" is ResNet-50 for keys and ResNet-18 for values.
    key_channels: Ck, of all parts of a key together.
    value_channels: Cv.
    context_channels: of the features that the decoder gets beside the readout.
    decoder_channels: at strides 16, 8 and 4.
    skip_kernel: kernel size of the skip convolutions.
    key_attention: on the key encoder's last map.
    value_attention: on the value encoder's last map, before the fusion.
    attention_form: of external attention. Use "equation" if the map does not end in a ReLU.
    slots: rows of each external memory.
    vit: a vision transformer beside the key trunk.
    vit_depth: blocks of the transformer to keep. The tokens of block 8 match objects best.
    unit_keys: whether keys have unit length times a learned scale. Otherwise keys are the bare projection.
    key_positions: whether the last four channels of a key say where in the frame its cell is.
    fine_key_channels: channels of a key for the trunk's map at stride 4.
    vit_key_channels: channels of a key for the transformer only; 0: its part is added to that of the trunk.
    top_k: memory cells that a readout uses, unless a policy says otherwise.
    scene_key_channels: channels of a key for a small network that sees the whole frame.
    locality: whether an object is less likely far from its last mask, unless settings say otherwise. This is
        no layer: a session does it.
    """

    trunk: TrunkName = "resnet"
    key_channels: int = 64
    value_channels: int = 512
    context_channels: int = 512
    decoder_channels: tuple[int, int, int] = (512, 256, 256)
    skip_kernel: int = 3
    key_attention: Attention = "none"
    value_attention: Attention = "none"
    attention_form: Form = "block"
    slots: int = 64
    vit: VitName = "none"
    vit_depth: int = 8
    unit_keys: bool = False
    key_positions: bool = False
    fine_key_channels: int = 0
    vit_key_channels: int = 0
    top_k: int = 20
    scene_key_channels: int = 0
    locality: bool = False

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
        for name in ("unit_keys", "key_positions", "locality"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} is true or false, not {getattr(self, name)!r}")
        parts = {name: getattr(self, name) for name in _KEY_PARTS}
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
        names = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - names):
            raise ValueError(
                f"unknown config fields: {', '.join(unknown)}; known: {', '.join(sorted(names))}"
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
_KEY_PARTS = ("fine_key_channels", "vit_key_channels", "scene_key_channels")  # 0 in a key of one part
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
_PARTS = dataclasses.replace(_NEAR, vit="dinov2-s", key_channels=128, vit_key_channels=64, locality=True)

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
        _NEAR, key_channels=120, fine_key_channels=24, scene_key_channels=32, top_k=4, locality=True
    ),
    "stcn-base": dataclasses.replace(_BOTH, unit_keys=True, vit="dinov2-s"),
    "stcn-base-position": dataclasses.replace(_NEAR, vit="dinov2-s"),
    "stcn-base-parts": _PARTS,
    "stcn-base-wide": dataclasses.replace(
        _PARTS, value_channels=256, context_channels=256, decoder_channels=(256, 128, 64)
    ),
}
