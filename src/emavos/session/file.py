"""Saved sessions: one safetensors file, from which you can resume after the process ends."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from emavos.frames.preprocess import working_size
from emavos.io.images import check_file
from emavos.io.whole import sweep, write_tensors
from emavos.memory import MemoryBank, MemoryPolicy
from emavos.memory.bank import Kind
from emavos.memory.readout import CannotRunError
from emavos.models import STCN, weights_sha256
from emavos.models.stcn import STRIDE
from emavos.session.memory import Banks, Group, LastSeen
from emavos.settings import Settings, Shortcuts, differences

_FORMAT = 3
_PLACES = ("cells", "absent", "speed")  # of `LastSeen`; files of older versions lack them
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)  # dtypes of networks


@dataclass(frozen=True, eq=False)
class SessionState:
    """Everything of a session that later frames depend on."""

    settings: Settings
    index: int  # of the next frame
    frame_size: tuple[int, int] | None
    banks: Banks
    last_seen: LastSeen | None  # objects in the order of `banks.ids`; None before the first step
    absent: Mapping[int, int] = dataclasses.field(default_factory=dict)  # frames in a row without a pixel


def write_state(path: str | os.PathLike[str], state: SessionState, model: STCN) -> None:
    """Write a session. The file appears complete or not at all. See `Session.save`."""
    settings = state.settings
    tensors: dict[str, Tensor] = {}
    groups = []
    for number, group in enumerate(state.banks):
        contents, slots = group.bank.state()
        tensors |= {f"{number}.{name}": x.cpu() for name, x in contents.items()}
        groups.append({"ids": group.ids, "slots": slots})
    seen = state.last_seen
    if seen is not None:
        tensors |= {f"seen.{name}": getattr(seen, name).cpu() for name in _PLACES}
    facts = {
        "format": _FORMAT,
        "weights": weights_sha256(model),
        "settings": settings.facts(),
        "index": state.index,
        "memorized": state.banks.counted_from,
        "frame_size": state.frame_size,
        "groups": groups,
        "ids": state.banks.ids,
        "edges": {} if seen is None else dict(zip(state.banks.ids, seen.edges.tolist(), strict=True)),
        **({"absent": state.absent} if state.absent else {}),
        **({"cuts": settings.cuts} if settings.cuts != "ignore" else {}),
        **({"auto_backend": True} if settings.auto_backend else {}),
    }
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{path} is a folder, or lies in none; name a file in a folder that is there")
    sweep(path.parent, path.name)
    write_tensors(path, tensors, {"session": json.dumps(facts)})


class _ElsewhereError(Exception):
    """A session is not damaged, but cannot be continued here. The message follows the path of the file."""


def read_state(path: str | os.PathLike[str], model: STCN, network: STCN) -> SessionState:
    """Read a saved session. See `Session.load`."""
    check_file(path, "a saved session")
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("session", "null"))
            if facts is None:
                raise ValueError("it does not hold a session")
            device = next(network.parameters()).device
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
        return _state(facts, tensors, model, network)
    except _ElsewhereError as error:
        raise ValueError(f"{os.fspath(path)} {error}") from error.__cause__
    except KeyError as error:
        raise ValueError(
            f"{os.fspath(path)} is not a saved session, or is damaged: it lacks {error}"
        ) from error
    except (SafetensorError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} is not a saved session, or is damaged: {error}") from error


def _state(facts: Mapping[str, Any], tensors: dict[str, Tensor], model: STCN, network: STCN) -> SessionState:
    """The state of a file's metadata and tensors, all checked. Takes the tensors out of the dict."""
    if facts["format"] != _FORMAT:
        raise ValueError(f"its format is {facts['format']}; this version reads {_FORMAT}")
    rare = {name: facts[name] for name in ("cuts", "auto_backend") if name in facts}
    settings = _settings({**facts["settings"], **rare}, network)
    _check_facts(facts)
    if facts["weights"] != weights_sha256(model) or differences(
        facts["settings"], settings.facts(), any_backend=True
    ):
        raise _ElsewhereError(
            "was saved with another model, another dtype, or compiled differently; pass the model and "
            "network it was saved with"
        )
    groups = []
    for number, group in enumerate(facts["groups"]):
        prefix = f"{number}."
        names = [name for name in tensors if name.startswith(prefix)]
        contents = {name.removeprefix(prefix): tensors.pop(name) for name in names}
        slots = [(kind, frame) for kind, frame in group["slots"]]
        _check_bank(contents, slots, len(group["ids"]), facts["frame_size"], model, settings)
        groups.append(Group(tuple(group["ids"]), MemoryBank.from_state(settings.policy, contents, slots)))
    ids = _order(facts)
    last_seen = _last_seen(facts, tensors, ids, settings, next(network.parameters()).device)
    if tensors:
        raise ValueError(f"it holds {min(tensors)}, which is not part of a session")
    return SessionState(
        settings,
        facts["index"],
        None if facts["frame_size"] is None else tuple(facts["frame_size"]),
        Banks(settings.policy, groups, facts["memorized"], ids),
        last_seen,
        {int(id): int(frames) for id, frames in facts.get("absent", {}).items()},
    )


def _settings(facts: Mapping[str, Any], network: STCN) -> Settings:
    """The settings saved with a session, with dtype and compile of this network."""
    policy, shortcuts = (
        {field.name: facts[field.name] for field in dataclasses.fields(kind)}
        for kind in (MemoryPolicy, Shortcuts)
    )
    saved, auto = MemoryPolicy(**policy), bool(facts.get("auto_backend"))
    if next(network.parameters()).device.type == "cpu":
        if saved.backend == "auto":  # by a GPU or an older version; not decided anew within a video
            saved = dataclasses.replace(saved, backend="blocks")
    elif auto or saved.backend == "native":  # rounding differs there anyway
        saved = dataclasses.replace(saved, backend="auto")
    settings = Settings.of(network, saved, facts["size"], Shortcuts(**shortcuts))
    rare = {name: facts[name] for name in ("cuts", "drop_absent") if name in facts}
    rare["locality"] = facts.get("locality", False)  # older versions had none
    try:
        return dataclasses.replace(settings, **rare, auto_backend=auto).decided(network)
    except RuntimeError as error:
        reason = error.advice if isinstance(error, CannotRunError) else error
        raise _ElsewhereError(f"was tracked with the {saved.backend} readout: {reason}") from error


def _check_facts(facts: Mapping[str, Any]) -> None:
    """Raise ValueError unless the metadata of a session are as `write_state` writes them."""
    index, size = facts["index"], facts["frame_size"]
    if not _whole(index) or not _whole(facts["memorized"]) or facts["memorized"] > index:
        raise ValueError(f"it ends at frame {index!r} and remembers {facts['memorized']!r}")
    if size is not None and not (
        isinstance(size, list) and len(size) == 2 and all(map(_whole, size)) and all(size)
    ):
        raise ValueError(f"its frames are {size!r}, not a height and a width")
    ids = [id for group in facts["groups"] for id in group["ids"]]
    if not all(type(id) is int and id != 0 and -(2**31) <= id < 2**31 for id in ids) or len({*ids}) < len(
        ids
    ):
        raise ValueError(f"its ids are {ids!s:.60}; ids are whole numbers of 32 bits, none 0, none twice")
    if ids and (size is None or not all(group["ids"] for group in facts["groups"])):
        raise ValueError("it has objects without a frame, or a group without objects")
    for kind, frame in (slot for group in facts["groups"] for slot in group["slots"]):
        a_reference = kind == "given" and type(frame) is int and -(2**31) <= frame < 0
        is_frame = _whole(frame) and (frame < index or kind == "given")
        if kind not in get_args(Kind) or not (is_frame or a_reference):
            raise ValueError(f"it remembers frame {frame!r} as {kind!r}")
    for group in facts["groups"]:
        frames = [frame for _, frame in group["slots"]]
        if len({*frames}) < len(frames):
            raise ValueError("it holds a frame twice")
        if not any(kind == "given" and frame < index for kind, frame in group["slots"]):
            raise ValueError(f"it was never given the objects {group['ids']!s:.60}")
    if not all(0 <= edge <= 1 for edge in facts.get("edges", {}).values()):
        raise ValueError("shares of its objects that lie at the border are not between 0 and 1")


def _order(facts: Mapping[str, Any]) -> tuple[int, ...]:
    """Ids in the order of introduction. Files of older versions have only the order of the groups."""
    grouped = [id for group in facts["groups"] for id in group["ids"]]
    ids = facts.get("ids", grouped)
    if not isinstance(ids, list) or not all(type(id) is int for id in ids) or sorted(ids) != sorted(grouped):
        raise ValueError(f"its objects are {ids!s:.60}, and those of its memory {grouped!s:.60}")
    return tuple(ids)


def _last_seen(
    facts: Mapping[str, Any],
    tensors: dict[str, Tensor],
    ids: tuple[int, ...],
    settings: Settings,
    device: torch.device,
) -> LastSeen | None:
    """Where the objects were last seen. Takes the tensors out of the dict."""
    if facts["frame_size"] is None:
        return None
    unknown = LastSeen.unseen(len(ids), _cells(facts["frame_size"], settings), device)
    places = {name: tensors.pop(f"seen.{name}", getattr(unknown, name)) for name in _PLACES}
    for name, x in places.items():
        like = getattr(unknown, name)
        if (x.shape, x.dtype) != (like.shape, like.dtype):
            raise ValueError(
                f"seen.{name} is {tuple(x.shape)} {x.dtype}, not {tuple(like.shape)} {like.dtype}"
            )
    if not ((places["absent"] >= 0) & (places["speed"] >= 0)).all() or not places["absent"].isfinite().all():
        raise ValueError("the absence or the speed of its objects is NaN, infinite or negative")
    if not places["cells"].flatten(1).any(dim=1).all():
        raise ValueError("an object of it was seen in no cell")
    saved = {int(id): float(edge) for id, edge in facts.get("edges", {}).items()}
    edges = torch.tensor([saved.get(id, 0.0) for id in ids], dtype=torch.float32, device=device)
    return LastSeen(edges, **places)


def _cells(frame_size: Sequence[int], settings: Settings) -> tuple[int, int]:
    """(h, w) of frames (H, W)."""
    height, width = working_size(frame_size[0], frame_size[1], settings.size)
    return -(-height // STRIDE), -(-width // STRIDE)


def _check_bank(
    contents: Mapping[str, Tensor],
    slots: Sequence[tuple[Kind, int]],
    objects: int,
    frame_size: tuple[int, int] | None,
    model: STCN,
    settings: Settings,
) -> None:
    """Raise ValueError unless the tensors of a bank are as `MemoryBank.state` describes."""
    height, width = _cells(frame_size or (1, 1), settings)
    cells = height * width
    keys = model.config.key_channels
    values = model.config.value_channels + settings.shortcuts.decode_near
    shapes: dict[str, tuple[int, ...]] = {
        "keys": (len(slots), cells, keys),
        "values": (len(slots), cells, objects, values),
        "received": (len(slots), cells),
    }
    if (prototypes := contents.get("prototypes.keys")) is not None:
        count, policy = len(prototypes) if prototypes.ndim else 0, settings.policy
        if not 1 <= count <= cells or policy.eviction != "consolidate" or not policy.bounded:
            raise ValueError(f"it holds {count} prototypes, which its policy does not keep")
        shapes |= {
            "prototypes.keys": (count, keys),
            "prototypes.values": (count, objects, values),
            "prototypes.received": (count,),
            "prototypes.frames": (count,),
        }
    if contents.keys() != shapes.keys():
        names = ", ".join(sorted(contents))
        raise ValueError(f"a memory of it holds {names}, not {', '.join(sorted(shapes))}")
    for name, shape in shapes.items():
        x = contents[name]
        if tuple(x.shape) != shape:
            raise ValueError(f"{name} is {tuple(x.shape)}, not {shape}")
        if x.dtype not in ((torch.int64,) if name.endswith("frames") else _FLOATS):
            raise ValueError(f"{name} is {x.dtype}")
        if not x.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinity")


def _whole(number: object) -> bool:
    return type(number) is int and 0 <= number < 2**53
