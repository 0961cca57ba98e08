"""The config of a training run: all settings that the result depends on, saved with the result."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from emavos.models import PRESETS
from emavos.training.losses import Bootstrapping

Precision = Literal["float32", "bfloat16", "float16"]
Sampling = Literal["composed", "videos", "mixed"]
Optimiser = Literal["adamw", "adam"]
Decay = Literal["linear", "step"]
T = TypeVar("T", bound="RunConfig")


@dataclass(frozen=True)
class RunConfig:
    """The settings of a training run, as text for files."""

    @classmethod
    def from_json(cls: type[T], text: str) -> T:
        fields: Mapping[str, Any] = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError(f"a training config is a JSON object, not {text!r:.60}")
        names = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(fields.keys() - names):
            raise ValueError(f"unknown training fields: {', '.join(unknown)}")
        return cls(**fields)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """One stage of training. The defaults are the first stage of the embedded model.

    The learning rate rises over `warmup` iterations and then stays constant. With `decay="linear"`, the rate
    falls to zero from `decay_from` to `iterations`, so you can lengthen a run until the fall begins. With
    `decay="step"`, the rate is a tenth from `decay_from` on. With `seconds`, the run ends by the clock:
    `iterations` and `decay_from` then only say which share of the time comes before the fall.
    """

    preset: str = "stcn-tiny"
    iterations: int = 3000
    seconds: float = 0.0  # length of a run that ends by the clock; 0 if it ends after `iterations`
    batch: int = 4  # clips per iteration, over all processes
    sources: tuple[str, ...] = ("static", "clips")  # names of `emavos.training.sources.SOURCES`
    repeats: tuple[int, ...] = ()  # mixed samples: how many times each source counts; () for once each
    sampling: Sampling = "composed"  # `ClipSamples`; "videos": `VideoSamples`; "mixed": `MixedSamples`
    size: int = 224  # side of the square clips
    frames: int = 3
    phases: tuple[tuple[float, int, int], ...] = ()  # (fraction of the run, frames, batch) from there on
    max_gap: int = 12
    gaps: tuple[tuple[float, int], ...] = ()  # (fraction of the run, max_gap from there on)
    real: float = 0.5  # fraction of samples from real video
    two_objects: float = 0.35  # composed samples: see `ClipSamples` for these four
    occluder: float = 0.3
    lookalike: float = 0.0
    blur: float = 0.0
    several: tuple[float, ...] = (0.55, 0.3, 0.15)  # mixed samples: relative shares of one, two, ... objects
    under: float = 0.35  # mixed samples: fraction of pasted objects under the others
    objects: int = 2  # video samples: objects per sample, at most
    zoom: tuple[float, float] = (0.45, 1.0)
    leave_out: tuple[str, ...] = ()  # sequences excluded from training
    optimiser: Optimiser = "adamw"
    lr: float = 4e-4
    trunk_lr: float = 1.3e-4  # the trunks start from ImageNet
    vit_lr: float = 0.0  # learning rate of the vision transformer; 0 for `lr`
    frozen: tuple[str, ...] = ()  # name prefixes of the parameters to freeze
    weight_decay: float = 1e-2
    clip_grad: float = 5.0  # largest norm of the gradient; 0 for no limit
    warmup: int = 100
    decay: Decay = "linear"
    decay_from: int = 3000
    all_pixels_until: int = 300  # later iterations count only the hardest fraction of the pixels,
    hardest_from: int = 1800  # which falls linearly until this iteration, to
    least_fraction: float = 0.15
    bootstrapping: Bootstrapping = "hardest"  # or "scaled": see `bootstrapped_cross_entropy`
    dice: float = 0.5  # weight of the soft Dice loss beside the cross-entropy
    matching: float = 0.0  # weight of the matching loss, which depends only on the affinity
    top_k: int = 0  # memory cells that a readout uses; 0 for all
    ema: float = 0.0  # decay of the averaged weights, returned instead of the last; 0 for no average
    precision: Precision = "float32"  # precision of activations; weights, keys and losses stay in float32
    seed: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(field.default) is int and type(value) is not int:
                raise ValueError(f"{field.name} is a whole number, not {value!r}")
            if type(field.default) is float and not (type(value) in (int, float) and abs(value) < math.inf):
                raise ValueError(f"{field.name} is a number, not {value!r}")
        for name in ("leave_out", "sources", "frozen"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is a list of names, not the text {getattr(self, name)!r}")
        for name, (kinds, noun) in _PARTS.items():
            parts = getattr(self, name)
            if not isinstance(parts, (list, tuple)) or not all(isinstance(part, kinds) for part in parts):
                raise ValueError(f"{name} is a list of {noun}, not {parts!r}")
            object.__setattr__(self, name, tuple(parts))
        if any(_types(pair) not in ((int, int), (float, int)) for pair in self.gaps):
            raise ValueError(f"gaps are {_PARTS['gaps'][1]}, not {self.gaps}")
        object.__setattr__(self, "gaps", tuple((begin, gap) for begin, gap in self.gaps))
        if any(_types(part) not in ((int, int, int), (float, int, int)) for part in self.phases):
            raise ValueError(f"phases are {_PARTS['phases'][1]}, not {self.phases}")
        object.__setattr__(self, "phases", tuple((begin, n, batch) for begin, n, batch in self.phases))
        if self.preset not in PRESETS:
            raise ValueError(f"there is no preset {self.preset}; they are {', '.join(PRESETS)}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is one of {', '.join(choices)}, not {getattr(self, name)!r}")
        for name in ("iterations", "batch", "size", "max_gap", "objects"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")
        for name in ("lr", "trunk_lr", "least_fraction"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is more than 0, not {getattr(self, name)}")
        for name in ("real", "two_objects", "occluder", "lookalike", "under", "blur", "least_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is from 0 to 1, not {getattr(self, name)}")
        for name in ("seconds", "vit_lr", "weight_decay", "warmup", "dice", "matching", "clip_grad", "top_k"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is at least 0, not {getattr(self, name)}")
        if not self.several or min(self.several) < 0 or not sum(self.several) > 0:
            raise ValueError(f"several are shares of one, two, ... objects, not {self.several}")
        if self.repeats and self.sampling != "mixed":
            raise ValueError(f"repeats are for mixed samples, not for sampling {self.sampling!r}")
        if self.repeats and (len(self.repeats) != len(self.sources) or min(self.repeats) < 1):
            raise ValueError(f"repeats are one number of at least 1 per source, not {self.repeats}")
        begins = [begin for begin, _, _ in self.phases]
        if begins != sorted(begins) or any(
            not 0 < begin < 1 or frames < 2 or batch < 1 for begin, frames, batch in self.phases
        ):
            raise ValueError(
                f"phases are {_PARTS['phases'][1]}, with rising fractions between 0 and 1, at least 2 frames "
                f"and 1 clip, not {self.phases}"
            )
        if self.phases and self.sampling != "mixed":
            raise ValueError(f"phases are for mixed samples, not for sampling {self.sampling!r}")
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
        begins = [begin for begin, _ in self.gaps]
        if begins and (begins[0] != 0 or begins != sorted(begins) or min(gap for _, gap in self.gaps) < 1):
            raise ValueError(
                f"gaps are pairs (fraction of the run, gap), from fraction 0 on and rising, not {self.gaps}"
            )
        if self.seconds and len(self.gaps) > 1:
            raise ValueError(
                "gaps grow with the iterations, and a run with seconds ends by the clock, at any iteration; "
                f"leave out the seconds, or set gaps=[] and one max_gap instead of {self.gaps}"
            )
        if self.frames < 2:
            raise ValueError(f"a clip has at least 2 frames, not {self.frames}")

    @property
    def largest_batch(self) -> int:
        """The largest number of clips per iteration in any phase."""
        return max([self.batch, *(batch for _, _, batch in self.phases)])

    def shape_at(self, place: float) -> tuple[int, int]:
        """Frames of a clip and clips of a batch at a place in the schedule, counted in iterations."""
        begun = [(frames, batch) for begin, frames, batch in self.phases if begin * self.iterations <= place]
        return begun[-1] if begun else (self.frames, self.batch)

    def learning_rate(self, iteration: int, place: float | None = None) -> float:
        """The factor on `lr`, `trunk_lr` and `vit_lr` at an iteration.

        iteration: number of the iteration, counted from 0, for the rise.
        place: place in the schedule, for the fall, if the run ends by the clock: see `Clock`.
        """
        place = iteration if place is None else place
        rise = min((iteration + 1) / self.warmup, 1.0) if self.warmup else 1.0
        if place < self.decay_from or self.decay_from == self.iterations:  # the clock may pass the end
            return rise
        if self.decay == "step":
            return 0.1 * rise
        return rise * max(self.iterations - place, 0) / (self.iterations - self.decay_from)


def _types(values: Sequence[object]) -> tuple[type, ...]:
    return tuple(type(value) for value in values)


_PARTS: Mapping[str, tuple[tuple[type, ...], str]] = {  # types of the lists' items
    "zoom": ((int, float), "two numbers"),
    "several": ((int, float), "numbers"),
    "leave_out": ((str,), "names"),
    "sources": ((str,), "names"),
    "frozen": ((str,), "names"),
    "repeats": ((int,), "whole numbers"),
    "gaps": ((list, tuple), "pairs (fraction of the run, gap)"),
    "phases": ((list, tuple), "triples (fraction of the run, frames, batch)"),
}
_CHOICES = {
    "precision": get_args(Precision),
    "sampling": get_args(Sampling),
    "optimiser": get_args(Optimiser),
    "decay": get_args(Decay),
    "bootstrapping": get_args(Bootstrapping),
}
