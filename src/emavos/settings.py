"""Settings: everything that affects the masks of a video, except weights, frames and the user's masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import torch

from emavos.frames.preprocess import check_short_side
from emavos.memory import MemoryPolicy, choose_backend, native_readout
from emavos.memory.bank import check_policy
from emavos.memory.readout import Backend, CannotRunError
from emavos.models import STCN, is_compiled


@dataclass(frozen=True)
class Shortcuts:
    """Work to skip. By default nothing is skipped, and masks are those of the full computation.

    docs/performance.md has the gain and the cost of each shortcut.
    """

    decode_near: bool = False  # decode an object only near the cells that its memory finds; the rest is
    # background. An object that is found nowhere is not decoded at all
    encode_near: bool = False  # encode values only near the objects; the rest gets the background mean
    still: float = 0.0  # skip a due frame if the mean squared distance (per cell, over sqrt(Ck)) of its keys
    # from the keys of the last stored frame is below this

    def __post_init__(self) -> None:
        for name in ("decode_near", "encode_near"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} is True or False, not {getattr(self, name)!r}")
        if type(self.still) not in (int, float) or not 0 <= self.still < float("inf"):
            raise ValueError(f"still is a number of at least 0, not {self.still!r}")


Cuts = Literal["ignore", "tell", "stop"]


@dataclass(frozen=True)
class Settings:
    """How frames are processed. To find out if two runs have the same settings, compare their `facts()`.

    policy: which frames the memory stores and evicts.
    size: short side of the working frame, in pixels; None keeps the size of the frames.
    shortcuts: work to skip.
    dtype: of the network.
    compile: whether the key encoder is compiled; see `emavos.models.compiled`.
    resize_ahead: whether frames from files are resized in the thread that reads them. Does not affect the
        masks, so `facts()` leaves it out. None: on a CPU, if the process has a core to spare.
    cuts: "tell" compares each frame with the memory and sets `Result.cut` if most of the frame is new;
        "stop" also skips the masks of such a frame and does not store the frame; "ignore" compares nothing.
    drop_absent: stop tracking an object that had no pixel in this many frames in a row; None: never. Frames
        without masks (cuts="stop") do not count.
    locality: whether an object is less likely far from its last mask, which helps if it has look-alikes.
        None: as `STCNConfig.locality` says.
    auto_backend: whether "auto" was asked for and `decided` has replaced it. Not a fact.
    library: first 16 hex digits of the sha256 of the native readout's library, if `decided` has chosen
        "native". A fact, but a run continues with another library: see `differences`.
    """

    policy: MemoryPolicy = field(default_factory=MemoryPolicy)
    size: int | None = 480
    shortcuts: Shortcuts = field(default_factory=Shortcuts)
    dtype: torch.dtype = torch.float32
    compile: bool = False
    resize_ahead: bool | None = None
    cuts: Cuts = "ignore"
    drop_absent: int | None = None
    locality: bool | None = None
    auto_backend: bool = field(default=False, repr=False, compare=False, kw_only=True)
    library: str | None = field(default=None, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        check_short_side(self.size)
        check_policy(self.policy)
        if not isinstance(self.shortcuts, Shortcuts):
            raise ValueError(f"shortcuts are Shortcuts(...), not {self.shortcuts!r}")
        for name, allowed in (
            ("compile", (True, False)),
            ("resize_ahead", (True, False, None)),
            ("cuts", get_args(Cuts)),
            ("locality", (True, False, None)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {allowed}, not {getattr(self, name)!r}")
        absent = self.drop_absent
        if absent is not None and (type(absent) is not int or absent < 1):
            raise ValueError(f"drop_absent is a number of frames of at least 1, or None, not {absent!r}")

    @classmethod
    def of(
        cls,
        network: STCN,
        policy: MemoryPolicy | None = None,
        size: int | None = 480,
        shortcuts: Shortcuts | None = None,
        resize_ahead: bool | None = None,
    ) -> Settings:
        """Settings with the dtype of this network, compiled if the network is.

        network: to take dtype and compile from.
        policy, size, shortcuts, resize_ahead: as for `Settings`; None is the default of each, except for
            `size`.
        """
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

    def decided(self, network: STCN) -> Settings:
        """The settings of sessions that begin now: a backend "auto" is replaced by `choose_backend`'s choice,
        and a `top_k` and a `locality` of None by those of the network. Settings that are decided stay.

        Raises RuntimeError if the backend cannot run on the device of the network, and ValueError if dtype or
        compile are not those of the network.
        """
        check_network(network)
        weight = network.decoder.pred.weight
        own = (weight.dtype, is_compiled(network))
        if (self.dtype, self.compile) != own:
            raise ValueError(
                f"the settings are of a network with dtype {self.dtype} and compile={self.compile}, and this "
                f"one has {own[0]} and compile={own[1]}; make them with Settings.of(network)"
            )
        top_k = self.policy.top_k or network.config.top_k
        backend = choose_backend(self.policy.backend, weight.device, weight.dtype, top_k)
        auto = self.auto_backend or self.policy.backend == "auto"
        library = native_readout.load().sha256[:16] if backend == "native" else None
        policy = replace(self.policy, backend=backend, top_k=top_k)
        locality = network.config.locality if self.locality is None else self.locality
        return replace(self, policy=policy, locality=locality, auto_backend=auto, library=library)

    def asked(self) -> Settings:
        """The settings before a backend "auto" was replaced."""
        return replace(self, policy=replace(self.policy, backend="auto")) if self.auto_backend else self

    def continuing(self, facts: Mapping[str, Any], network: STCN) -> Settings:
        """The settings to continue a run with: a backend "auto" is replaced by the backend of the run.

        facts: of the begun run. On a device that cannot run its backend, such as "native" on a GPU, "auto"
            stays. "auto" of a GPU or of an older version continues with "blocks" on a CPU.

        Raises ValueError if the run was begun with "native", and "native" cannot run on this CPU.
        """
        before: Any = facts.get("backend")
        asked = self.asked()
        on_cpu = network.decoder.pred.weight.device.type == "cpu"
        runs = on_cpu and before in ("auto", "dense", "blocks", "native")
        if asked.policy.backend != "auto" or not runs:
            return self
        backend: Backend = "blocks" if before == "auto" else before
        policy = replace(asked.policy, backend=backend)
        try:
            return replace(asked, policy=policy, auto_backend=True).decided(network)
        except RuntimeError as error:
            if isinstance(error, CannotRunError):
                reason, remedy = error.advice, error.remedy
            else:
                reason, remedy = str(error), ""
            raise ValueError(
                f"the run to continue was begun with backend {backend!r}; the {backend} readout cannot run: "
                f"{reason}{', or' if remedy else ';'} start a new run in another folder"
            ) from error

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON, one level deep.

        Runs of one machine with equal weights and equal facts of their `decided` settings produce the same
        masks.
        """
        rare: dict[str, Any] = {"cuts": "stop"} if self.cuts == "stop" else {}
        if self.drop_absent is not None:
            rare["drop_absent"] = self.drop_absent
        if self.locality:
            rare["locality"] = True
        if self.library is not None and self.policy.backend == "native":
            rare["library"] = self.library
        return {
            "dtype": str(self.dtype).removeprefix("torch."),
            "compile": self.compile,
            "size": self.size,
            **asdict(self.policy),
            **asdict(self.shortcuts),
            **rare,  # only if set, to match the facts of older files
        }


def check_network(model: object) -> None:
    """Raise ValueError unless `model` is an `STCN`."""
    if not isinstance(model, STCN):
        raise ValueError(
            f"model is an STCN, not {model!r:.60}; load one with emavos.weights.load_model, or make the "
            "predictor with Predictor.from_pretrained"
        )


def differences(was: Mapping[str, Any], now: Mapping[str, Any], any_backend: bool = False) -> list[str]:
    """Sorted names of the facts that differ, for a run to continue.

    Another build of the native readout does not count: it may round differently but finds the same cells, so
    you need not start over after an update of the compiler.

    any_backend: whether the backends may differ, because "auto" is asked for now.
    """
    was, now = comparable(was), comparable(now)
    differ = {name for name in {*was, *now} if was.get(name) != now.get(name)}
    return sorted(differ - {"backend"} if any_backend else differ)


def comparable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts with backend "blocks" for "auto", which older facts of a CPU have, and those of a GPU.

    The native readout's library is left out, and facts that `Settings.facts` leaves out are added.
    """
    facts = {name: fact for name, fact in facts.items() if name != "library"}
    backend = {"backend": "blocks"} if facts.get("backend") == "auto" else {}
    return {"cuts": "ignore", "drop_absent": None, "locality": False, **facts, **backend}
