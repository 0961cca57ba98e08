"""A session on disk: one safetensors file, from which a process that was killed goes on."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from emavos.io.whole import sweep, write_tensors
from emavos.memory import MemoryBank, MemoryPolicy
from emavos.models import STCN
from emavos.pretrained import weights_sha256
from emavos.session import Group, Session
from emavos.shortcuts import Shortcuts

_FORMAT = 2


def save_session(session: Session, path: str | os.PathLike[str]) -> None:
    """Write a session; the file appears whole or not at all. See `Session.save`."""
    tensors: dict[str, Tensor] = {}
    groups = []
    for number, group in enumerate(session.groups):
        held, slots = group.bank.state()
        tensors |= {f"{number}.{name}": x.cpu() for name, x in held.items()}
        groups.append({"ids": group.ids, "slots": slots})
    facts = {
        "format": _FORMAT,
        "weights": weights_sha256(session.model),
        "dtype": _dtype(session.network),
        "policy": dataclasses.asdict(session.policy),
        "shortcuts": dataclasses.asdict(session.shortcuts),
        "size": session.size,
        "index": session.index,
        "memorized": session.memorized,
        "frame_size": session.frame_size,
        "groups": groups,
        "edges": session._edges,
    }
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{path} is a folder, or lies in none; name a file in a folder that is there")
    sweep(path.parent, path.name)
    write_tensors(path, tensors, {"session": json.dumps(facts)})


def load_session(path: str | os.PathLike[str], model: STCN, network: STCN | None = None) -> Session:
    """The session of a file. See `Session.load`."""
    network = model if network is None else network
    device = next(model.parameters()).device
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("session", "null"))
            if facts is None:
                raise ValueError("it holds no session")
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
        if facts["format"] != _FORMAT:
            raise ValueError(f"its format is {facts['format']}; this version reads {_FORMAT}")
        policy, shortcuts = MemoryPolicy(**facts["policy"]), Shortcuts(**facts["shortcuts"])
        session = Session(model, policy, facts["size"], shortcuts, network)
        for number, group in enumerate(facts["groups"]):
            prefix = f"{number}."
            held = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
            slots = [(kind, frame) for kind, frame in group["slots"]]
            if {len(held[name]) for name in ("keys", "values", "received")} != {len(slots)}:
                raise ValueError("its parts disagree")
            if held["values"].shape[2] != len(group["ids"]):
                raise ValueError("its parts disagree")
            bank = MemoryBank.from_state(session.policy, held, slots)
            session.groups.append(Group(tuple(group["ids"]), bank))
        session.index, session.memorized = facts["index"], facts["memorized"]
        session.frame_size = None if facts["frame_size"] is None else tuple(facts["frame_size"])
        session._edges = {int(id): float(edge) for id, edge in dict(facts.get("edges", {})).items()}
        weights, dtype = facts["weights"], facts["dtype"]
    except FileNotFoundError:
        raise
    except (SafetensorError, ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{os.fspath(path)} is no saved session, or is damaged: {error}") from error
    if weights != weights_sha256(model) or dtype != _dtype(network):
        raise ValueError(
            f"{os.fspath(path)} was saved with another model, or with this one in another dtype; load that"
        )
    return session


def _dtype(network: STCN) -> str:
    """In which its values are."""
    return str(network.decoder.pred.weight.dtype).removeprefix("torch.")
