"""All that decides the masks of a video, beside the weights, the frames and the masks that are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from emavos.frames.preprocess import check_short_side
from emavos.memory import MemoryPolicy
from emavos.memory.bank import check_policy
from emavos.models import STCN, is_compiled


@dataclass(frozen=True)
class Shortcuts:
    """Which work is left out. The default is none: the masks are those of the whole computation.

    What each gains and costs is in docs/performance.md.
    """

    decode_near: bool = False  # decode only near cells whose memory says that an object covers them; the rest
    # is background, and an object whose memory is found nowhere is not decoded at all
    encode_near: bool = False  # values of a kept frame only near its objects; elsewhere a mean of background
    still: float = 0.0  # a frame that is due is not kept while the squared distance of its keys from those of
    # the last that was, a cell and over sqrt(Ck) as in the affinity, is below this on average

    def __post_init__(self) -> None:
        for name in ("decode_near", "encode_near"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} is True or False, not {getattr(self, name)!r}")
        if type(self.still) not in (int, float) or not 0 <= self.still < float("inf"):
            raise ValueError(f"still is a number of at least 0, not {self.still!r}")


@dataclass(frozen=True)
class Settings:
    """How frames are processed. Whatever must know whether two runs agree compares `facts()`.

    policy: what the memory keeps.
    size: the short side, in pixels, at which frames are processed; None keeps that of the frames.
    shortcuts: work that is left out.
    dtype: in which the network computes.
    compile: whether the key encoder is machine code of its own: see `emavos.models.compiled`.
    resize_ahead: whether frames of files are resized in the thread that reads them. It decides when work is
        done, not the masks, so it is no fact. None: on a CPU, when the process has a core to spare.
    """

    policy: MemoryPolicy = field(default_factory=MemoryPolicy)
    size: int | None = 480
    shortcuts: Shortcuts = field(default_factory=Shortcuts)
    dtype: torch.dtype = torch.float32
    compile: bool = False
    resize_ahead: bool | None = None

    def __post_init__(self) -> None:
        check_short_side(self.size)
        check_policy(self.policy)
        if not isinstance(self.shortcuts, Shortcuts):
            raise ValueError(f"shortcuts are Shortcuts(...), not {self.shortcuts!r}")
        for name, allowed in (("compile", (True, False)), ("resize_ahead", (True, False, None))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {allowed}, not {getattr(self, name)!r}")

    @classmethod
    def of(
        cls,
        network: STCN,
        policy: MemoryPolicy | None = None,
        size: int | None = 480,
        shortcuts: Shortcuts | None = None,
        resize_ahead: bool | None = None,
    ) -> Settings:
        """Settings with the dtype of this network, and compiled as it is; None: the default of each."""
        check_policy(policy)
        check_network(network)
        return cls(
            MemoryPolicy() if policy is None else policy,
            size,
            Shortcuts() if shortcuts is None else shortcuts,
            network.decoder.pred.weight.dtype,
            is_compiled(network),
            resize_ahead,
        )

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON, one level deep. Runs with equal facts and weights give the same masks."""
        return {
            "dtype": str(self.dtype).removeprefix("torch."),
            "compile": self.compile,
            "size": self.size,
            **asdict(self.policy),
            **asdict(self.shortcuts),
        }


def check_network(model: object) -> None:
    """Raise ValueError unless it is an `STCN`."""
    if not isinstance(model, STCN):
        raise ValueError(
            f"model is an STCN, not {model!r:.60}; load one with emavos.weights.load_model, or make the "
            "predictor with Predictor.from_pretrained"
        )


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of the facts that differ, sorted."""
    return sorted(name for name in {*was, *now} if was.get(name) != now.get(name))
