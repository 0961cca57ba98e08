"""A digest that identifies the weights of a network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_SAMPLES = 16  # numbers per tensor that are compared before a digest is used again
_digests: WeakKeyDictionary[nn.Module, tuple[Any, str]] = WeakKeyDictionary()  # with `_marks` of the state


def weights_sha256(model: nn.Module) -> str:
    """The sha256 of everything the results of a model depend on: names, dtypes and bytes of its state.

    The digest is computed again only if the state has changed: another tensor, a write that torch counts, or,
    for writes through `.data`, another value among samples of each tensor.
    """
    state = model.state_dict()
    marks = _marks(state)
    known = _digests.get(model)
    if marks is not None and known is not None and known[0] == marks:
        return known[1]
    digest = hashlib.sha256()
    for key, x in sorted(state.items()):
        digest.update(f"{key} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    _digests[model] = marks, digest.hexdigest()
    return digest.hexdigest()


def _marks(state: Mapping[str, Tensor]) -> Any:
    """Values that change when a state changes; None if writes are not counted."""
    if any(x.is_inference() for x in state.values()):
        return None
    marks = [(key, x.data_ptr(), x._version, x.dtype, x.shape, x.stride()) for key, x in state.items()]
    samples = [_samples(x) for x in state.values() if x.numel()]
    return marks, torch.cat(samples).tolist() if samples else []


def _samples(x: Tensor) -> Tensor:
    flat = x.detach().flatten()
    return flat[:: -(-len(flat) // _SAMPLES)].double()
