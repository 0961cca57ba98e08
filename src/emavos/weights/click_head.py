"""Click heads in and out of files, strictly checked as models are."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from emavos.clicks.model import ClickHead
from emavos.io.notices import InputWarning
from emavos.io.whole import write_tensors
from emavos.models import STCN, folded
from emavos.weights.load import KNOWN, find_files, load_model, load_strictly, read_weights

CLICKS_NAME = "clicks.safetensors"


def load_clicks(network: STCN, name_or_path: str | os.PathLike[str] | None = None, **hub: Any) -> ClickHead:
    """The click head of a model, for the features of `network`, on the device of `network`.

    name_or_path: of the model, as for `emavos.weights.load_model`; or a file `clicks.safetensors`.
    hub: revision, cache_dir, token and local_files_only, for a model of the Hub.

    Raises ValueError if the model has no `clicks.safetensors`, and if the file has another sha256 or is for
    other features.
    """
    sha256 = None
    if name_or_path is not None and os.path.isfile(name_or_path):
        path = Path(name_or_path)
    else:
        folder, entry = find_files(name_or_path, (CLICKS_NAME,), **hub)
        path, sha256 = folder / CLICKS_NAME, entry.clicks_sha256
    if not path.is_file():
        raise ValueError(
            f"{path.parent} has no {CLICKS_NAME}, so this model cannot be clicked with; click with tiny, "
            "train a head for it (docs/clicks.md), or pass a prompter"
        )
    state = read_weights(path, sha256)
    head = empty_head(network).float()
    load_strictly(head, state, f"{path} does not fit the model")
    return head.eval().to(next(network.parameters()).device)


def save_clicks(head: ClickHead, path: str | os.PathLike[str], dtype: torch.dtype = torch.float16) -> None:
    """Write a head to a safetensors file, for `load_clicks`."""
    state = {name: x.detach().cpu().to(dtype).contiguous() for name, x in head.state_dict().items()}
    write_tensors(Path(path), state)


def empty_head(network: STCN) -> ClickHead:
    """A head for the features of a network, with random weights to be replaced."""
    with torch.random.fork_rng(devices=[]):  # drawing them would move torch's generator
        return ClickHead(network.config, network.key_encoder.trunk.channels)


class LazyHead:
    """The click head of a model, loaded at the first call. Safe to call from several threads.

    A call returns the head and the network whose features the head reads. The network is `network`, unless
    the model has no head and another known model answers its clicks.

    network: tracks the objects.
    name_or_path, hub: of the model, as for `load_clicks`.
    """

    def __init__(self, network: STCN, name_or_path: str | os.PathLike[str] | None, **hub: Any) -> None:
        self._network, self._place, self._hub = network, name_or_path, hub
        self._loaded: tuple[ClickHead, STCN] | None = None
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = Lock()

    def __call__(self) -> tuple[ClickHead, STCN]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
                if (other := self._other()) is not None:
                    warnings.warn(  # after it is stored: a warning may be an error
                        f"{self._place} has no click head: {other} finds the masks of clicks, and "
                        f"{self._place} tracks them",
                        InputWarning,
                        stacklevel=2,
                    )
            return self._loaded

    def _other(self) -> str | None:
        """The known model that answers the clicks of this one, if it has no head of its own."""
        entry = KNOWN.get(self._place) if isinstance(self._place, str) else None
        return None if entry is None else entry.clicks_of

    def _load(self) -> tuple[ClickHead, STCN]:
        other = self._other()
        if other is None:
            return load_clicks(self._network, self._place, **self._hub), self._network
        weight = self._network.decoder.pred.weight  # the first weights of a folded network stay in float32
        network = folded(load_model(other, device=weight.device), weight.dtype)
        return load_clicks(network, other), network
