"""What of the library works on this machine, and what each extra lacks."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from packaging.requirements import Requirement

from emavos.machine import describe
from emavos.memory import topk_readout
from emavos.memory.readout import Backend
from emavos.pretrained import KNOWN, WEIGHTS_NAME, load_model


@dataclass(frozen=True)
class Extra:
    """An optional group of packages of this library."""

    name: str
    missing: tuple[str, ...]  # requirements that are not met, as "av>=14.2 (not installed)"

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f'pip install "emavos[{self.name}]"'


@dataclass(frozen=True)
class Report:
    """What `examine` found. A reason of None says that the thing works."""

    versions: dict[str, str | None]  # of Python, this library and what it needs; None: not installed
    device: str  # what "auto" takes, in words
    accelerator: str | None
    threads: int
    environment: dict[str, str]  # variables that change threads or the Hub
    bfloat16: bool | None  # whether this device multiplies it natively; None: not known
    readouts: dict[str, str | None]  # reason why a back end of topk_readout cannot run here
    weights: str | None  # reason why the embedded model cannot be used
    video: str  # what opens video files
    extras: tuple[Extra, ...]

    @property
    def ok(self) -> bool:
        """Whether all works that needs no extra: the core packages, the model, and its readout."""
        needed = (self.weights, self.readouts["dense"], self.readouts["blocks"])
        return all(reason is None for reason in needed) and None not in self.versions.values()


def examine() -> Report:
    """Look at this machine. Nothing is downloaded; a C++ function may be compiled, which takes a second."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return Report(
        versions=_versions(),
        device=describe(torch.device("cpu") if found is None else found),
        accelerator=None if found is None else str(found),
        threads=torch.get_num_threads(),
        environment={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        bfloat16=_has_bfloat16(found),
        readouts={name: _readout(name) for name in get_args(Backend) if name != "auto"},
        weights=_weights(),
        video=_video(),
        extras=extras(),
    )


_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "HF_HOME",
)


def extras(distribution: str = "emavos") -> tuple[Extra, ...]:
    """The extras that the installed package declares, with what each lacks; none where it is no package."""
    try:
        declared = importlib.metadata.metadata(distribution).get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(Extra(name, tuple(_missing(distribution, name))) for name in declared)


def _missing(distribution: str, extra: str) -> list[str]:
    missing = []
    for requirement in _requirements(distribution):
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue  # of the core, or of another extra
        if requirement.name == distribution:  # an extra that is made of others
            missing += [lack for name in sorted(requirement.extras) for lack in _missing(distribution, name)]
        elif (lack := _lack(requirement)) is not None:
            missing.append(lack)
    return missing


def _requirements(distribution: str) -> list[Requirement]:
    return [Requirement(line) for line in importlib.metadata.requires(distribution) or []]


def _lack(requirement: Requirement) -> str | None:
    wanted = f"{requirement.name}{requirement.specifier}"
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{wanted} (not installed)"
    return (
        None if requirement.specifier.contains(version, prereleases=True) else f"{wanted} (found {version})"
    )


def _versions() -> dict[str, str | None]:
    from emavos import __version__

    versions: dict[str, str | None] = {"python": platform.python_version(), "emavos": __version__}
    for name in ("torch", "torchvision", "numpy", "pillow", "huggingface_hub", "safetensors"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _has_bfloat16(accelerator: torch.device | None) -> bool | None:
    if accelerator is not None:
        return torch.cuda.is_bf16_supported(False) if accelerator.type == "cuda" else None
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return None
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def _readout(backend: Backend) -> str | None:
    """Why a readout cannot run where it is meant to; None where it gives what the definition gives."""
    device = "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    query, keys = torch.rand(16, 40, generator=generator), torch.rand(500, 16, generator=generator)
    values = torch.rand(500, 2, 8, generator=generator)
    try:
        out = topk_readout(query.to(device), keys.to(device), values.to(device), backend=backend).cpu()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    wanted = topk_readout(query, keys, values, backend="dense")
    difference = (out - wanted).abs().max().item()
    return None if difference < 1e-4 else f"it differs from the definition by {difference:.1e}"


def _weights() -> str | None:
    known = KNOWN["tiny"]
    try:
        load_model("tiny")
    except (ValueError, OSError) as error:
        return str(error)
    file = Path(known.place) / WEIGHTS_NAME
    return None if hashlib.sha256(file.read_bytes()).hexdigest() == known.sha256 else f"{file} has changed"


def _video() -> str:
    try:
        import av
    except ImportError:
        return "folders of images alone"
    h264 = "H.264 is written" if "libx264" in av.codecs_available else "no H.264 encoder: no .mp4 is written"
    return f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}; {h264}"
