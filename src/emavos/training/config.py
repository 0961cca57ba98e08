"""What a training run is: everything that its result depends on, saved with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from emavos.models import PRESETS

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainConfig:
    """One stage of training. The defaults make the first stage of the embedded model.

    The learning rate rises over `warmup` iterations, stays, and falls linearly to zero from `decay_from` to
    `iterations`, so that a run can be made longer up to the point where the fall begins.
    """

    preset: str = "stcn-tiny"
    iterations: int = 3000
    batch: int = 4
    size: int = 224  # side of the square clips
    frames: int = 3
    max_gap: int = 12
    real: float = 0.5
    two_objects: float = 0.35
    occluder: float = 0.3
    lookalike: float = 0.0
    blur: float = 0.0
    zoom: tuple[float, float] = (0.45, 1.0)
    leave_out: tuple[str, ...] = ()  # sequences never trained on
    lr: float = 4e-4
    trunk_lr: float = 1.3e-4  # the trunks start from ImageNet
    weight_decay: float = 1e-2
    clip_grad: float = 5.0
    warmup: int = 100
    decay_from: int = 3000
    all_pixels_until: int = 300  # then the loss takes the hardest fraction of the pixels,
    hardest_from: int = 1800  # which falls linearly to its least at this iteration
    least_fraction: float = 0.15
    dice: float = 0.5  # weight of the soft Dice loss beside the cross-entropy
    ema: float = 0.0  # decay of the moving average of the weights, which is then the result; 0: none
    precision: Precision = "float32"  # bfloat16: of the network's activations, not of weights, keys or losses
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.leave_out, str):  # type: ignore[unreachable]
            raise ValueError(f"leave_out is names of sequences, not the text {self.leave_out!r}")
        object.__setattr__(self, "zoom", tuple(self.zoom))
        object.__setattr__(self, "leave_out", tuple(self.leave_out))
        if self.preset not in PRESETS:
            raise ValueError(f"there is no preset {self.preset}; they are {', '.join(PRESETS)}")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision is float32 or bfloat16, not {self.precision!r}")
        for name in ("iterations", "batch", "size", "max_gap"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")
        for name in ("lr", "trunk_lr", "clip_grad", "least_fraction"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is more than 0, not {getattr(self, name)}")
        for name in ("real", "two_objects", "occluder", "lookalike", "blur", "least_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is from 0 to 1, not {getattr(self, name)}")
        for name in ("weight_decay", "warmup", "dice"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is not negative, as {getattr(self, name)} is")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is from 0 to below 1, not {self.ema}")
        if not 0 <= self.decay_from <= self.iterations:
            raise ValueError(f"decay_from is from 0 to iterations, {self.iterations}, not {self.decay_from}")
        if len(self.zoom) != 2 or not 0 < self.zoom[0] <= self.zoom[1] <= 1:
            raise ValueError(f"zoom is two numbers that rise, above 0 and at most 1, not {self.zoom}")
        if not 0 <= self.all_pixels_until <= self.hardest_from:
            raise ValueError("all_pixels_until comes before hardest_from")
        if self.size % 16:
            raise ValueError(f"size is a multiple of 16, not {self.size}")
        if self.frames < 2:
            raise ValueError(f"a clip has at least 2 frames, not {self.frames}")

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        fields: Mapping[str, Any] = json.loads(text)
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise ValueError(f"unknown training fields: {', '.join(unknown)}")
        return cls(**fields)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    def learning_rate(self, iteration: int) -> float:
        """The factor on `lr` and `trunk_lr` at an iteration, counted from 0."""
        rise = min((iteration + 1) / self.warmup, 1.0) if self.warmup else 1.0
        if iteration < self.decay_from:
            return rise
        return rise * (self.iterations - iteration) / (self.iterations - self.decay_from)


HELD_OUT = ("breakdance-flare", "drift-turn", "horsejump-low", "mallard-water")  # of DAVIS 2016 train

STAGES: Mapping[str, TrainConfig] = {  # of the embedded model; each goes on from the one before
    "tiny-1": TrainConfig(
        iterations=1600,
        decay_from=1600,
        all_pixels_until=200,
        hardest_from=1600,
        leave_out=HELD_OUT,
    ),
    "tiny-2": TrainConfig(
        iterations=600,
        decay_from=60,
        warmup=30,
        size=288,
        max_gap=20,
        real=0.65,
        zoom=(0.5, 1.0),
        all_pixels_until=0,
        hardest_from=0,
        leave_out=HELD_OUT,
        seed=1,
    ),
    "tiny-3": TrainConfig(
        iterations=6000,
        decay_from=6000,
        warmup=100,
        lr=3e-4,
        trunk_lr=1e-4,
        size=256,
        frames=4,
        max_gap=20,
        real=0.65,
        occluder=0.5,
        lookalike=0.35,
        blur=0.2,
        zoom=(0.4, 1.0),
        all_pixels_until=0,
        hardest_from=0,
        ema=0.998,
        precision="bfloat16",
        leave_out=HELD_OUT,
        seed=2,
    ),
}
