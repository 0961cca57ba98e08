"""Checks which parts of the library work on this machine, and what each extra lacks."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from packaging.requirements import Requirement

from emavos.machine import INSTALL, describe, multiplies_bfloat16
from emavos.memory import choose_backend, native_readout, topk_readout
from emavos.memory.readout import Backend, CannotRunError
from emavos.weights.load import KNOWN, choose_device, choose_dtype, load_model

NEEDED = ("dense", "blocks")  # readouts that run on every machine; the others are optional and faster on some


@dataclass(frozen=True)
class Extra:
    """An optional group of packages of this library."""

    name: str
    missing: tuple[str, ...]  # unmet requirements, such as "av>=14.2" or "av>=14.2 (found 13.0)"
    install: str  # command to install the extra; to be run in a clone of emavos


@dataclass(frozen=True)
class Report:
    """Results of `examine`. A reason is None if the part works."""

    versions: dict[str, str | None]  # Python, this library and the core packages; None: not installed
    device: str  # the device that "auto" selects, in words
    accelerator: str | None
    threads: int
    environment: dict[str, str]  # set variables that affect threads or the Hub
    bfloat16: bool | None  # whether this device has native bfloat16 products; None: unknown
    dtypes: dict[str, str]  # per embedded model: what dtype "auto" is on the device that "auto" selects
    readouts: dict[str, str | None]  # per backend of topk_readout: why it cannot run here
    auto: str  # the backend that sessions use if none is asked for
    prepared: str | None  # why "auto" is not "native" on a CPU; None if it is, and on other devices
    library: (
        str | None
    )  # first digits of the sha256 of the native library, as in facts, if "auto" is "native"
    weights: str | None  # why the embedded models cannot be used
    video: str  # the reader of video files
    extras: tuple[Extra, ...]

    @property
    def ok(self) -> bool:
        """Whether everything works that needs no extra: core packages, embedded models and basic readouts."""
        needed = (self.weights, *(self.readouts[name] for name in NEEDED))
        return all(reason is None for reason in needed) and None not in self.versions.values()


def examine() -> Report:
    """Report on this machine. Downloads and keeps nothing; may compile a C++ function, in a second."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    auto, prepared = _auto(accelerator)
    weights, dtypes = _weights()
    return Report(
        versions=_versions(),
        device=describe(torch.device("cpu") if accelerator is None else accelerator),
        accelerator=None if accelerator is None else str(accelerator),
        threads=torch.get_num_threads(),
        environment={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        bfloat16=_has_bfloat16(accelerator),
        dtypes=dtypes,
        readouts={name: _readout(name) for name in get_args(Backend) if name != "auto"},
        auto=auto,
        prepared=prepared,
        library=native_readout.load().sha256[:16] if auto == "native" else None,
        weights=weights,
        video=_video(),
        extras=extras(),
    )


_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "HF_HOME",
)


def extras(distribution: str = "emavos") -> tuple[Extra, ...]:
    """The extras of this library, and what each lacks. Empty if the extras are not known.

    If the library runs from a checkout, the extras are read from its `pyproject.toml`, which may be newer
    than the installed metadata. Otherwise they are read from the installed package.
    """
    groups, command = _of_checkout(distribution), f'pip install -e "{_PYPROJECT.parent}[{{extra}}]"'
    if groups is None:
        groups, command = _of_package(distribution), INSTALL
    return tuple(
        Extra(name, tuple(_missing(groups, name, distribution)), command.format(extra=name))
        for name in groups
    )


_PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def _of_checkout(distribution: str) -> dict[str, list[Requirement]] | None:
    """The requirements of each extra in `pyproject.toml`; None if there is no such file of this library."""
    if sys.version_info < (3, 11) or not _PYPROJECT.is_file():
        return None
    import tomllib

    project = tomllib.loads(_PYPROJECT.read_text(encoding="utf-8")).get("project", {})
    if project.get("name") != distribution:
        return None
    groups = project.get("optional-dependencies", {})
    return {name: [Requirement(line) for line in lines] for name, lines in groups.items()}


def _of_package(distribution: str) -> dict[str, list[Requirement]]:
    """The requirements of each extra in the metadata of the installed package."""
    try:
        declared = importlib.metadata.metadata(distribution).get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    lines = [Requirement(line) for line in importlib.metadata.requires(distribution) or []]
    # requirements of the core also apply without any extra
    optional = [line for line in lines if line.marker and not line.marker.evaluate({"extra": ""})]
    return {name: [line for line in optional if _applies(line, name)] for name in declared}


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _missing(groups: Mapping[str, list[Requirement]], extra: str, distribution: str) -> list[str]:
    missing: list[str] = []
    for requirement in groups.get(extra, []):
        if not _applies(requirement, extra):
            continue  # for another system or another Python
        if requirement.name == distribution:  # an extra that consists of other extras
            for name in sorted(requirement.extras):
                missing += _missing(groups, name, distribution)
        else:
            missing += _lacks(requirement)
    return list(dict.fromkeys(missing))


def _lacks(requirement: Requirement) -> Iterator[str]:
    """The unmet requirements of a package and of its requested extras."""
    requested = f"{requirement.name}{requirement.specifier}"
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        yield requested
        return
    if not requirement.specifier.contains(version, prereleases=True):
        yield f"{requested} (found {version})"
    groups = _of_package(requirement.name) if requirement.extras else {}
    for further in (line for name in sorted(requirement.extras) for line in groups.get(name, [])):
        yield from _lacks(further)


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
    return multiplies_bfloat16()


def _auto(accelerator: torch.device | None) -> tuple[str, str | None]:
    """The backend that "auto" is on the device that "auto" selects; and why that is not the native one."""
    if accelerator is not None and accelerator.type != "mps":  # as `choose_device`
        runs = accelerator.type == "cuda" and _readout("triton") is None
        return "triton" if runs else "blocks", None
    backend = choose_backend("auto", torch.device("cpu"), torch.float32)
    return backend, None if backend == "native" else native_readout.unprepared()


def _readout(backend: Backend) -> str | None:
    """The reason why a readout cannot run here; None if it runs and agrees with the definition."""
    if backend == "triton" and not torch.cuda.is_available():
        return "it runs on CUDA devices, and there is none"
    device = "cuda" if backend == "triton" else "cpu"
    generator = torch.Generator().manual_seed(0)
    query, keys = torch.rand(16, 40, generator=generator), torch.rand(500, 16, generator=generator)
    values = torch.rand(500, 2, 8, generator=generator)
    try:
        if backend == "native":
            native_readout.load()
        out = topk_readout(query.to(device), keys.to(device), values.to(device), backend=backend).cpu()
    except CannotRunError as error:
        return error.advice
    except RuntimeError as error:
        return str(error).splitlines()[0]
    expected = topk_readout(query, keys, values, backend="dense")
    difference = (out - expected).abs().max().item()
    return None if difference < 1e-4 else f"it differs from the definition by {difference:.1e}"


def _weights() -> tuple[str | None, dict[str, str]]:
    """The reason why the embedded models cannot be used; and the dtypes that "auto" is for those that can."""
    place = choose_device("auto")
    dtypes: dict[str, str] = {}
    for name in KNOWN:
        try:
            config = load_model(name).config
        except (ValueError, OSError) as error:
            return str(error), dtypes  # includes a changed file
        dtypes[name] = str(choose_dtype(place, config)).removeprefix("torch.")
    return None, dtypes


def _video() -> str:
    try:
        import av
    except ImportError:
        return "folders of images alone"
    h264 = "H.264 is written" if "libx264" in av.codecs_available else "no H.264 encoder: no .mp4 is written"
    return f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}; {h264}"
