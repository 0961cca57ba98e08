"""A digest that identifies the weights of a network."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_digests: WeakKeyDictionary[nn.Module, tuple[Any, str]] = WeakKeyDictionary()  # with checksums of the state


def weights_sha256(model: nn.Module) -> str:
    """The sha256 of everything the results of a model depend on: names, dtypes and bytes of its state.

    The digest is computed again only if the state has changed, however it was written. For that, the crc32 of
    each tensor is compared, which takes less than half as long and notices any change of one number.
    """
    state = {key: (x, _bytes(x)) for key, x in sorted(model.state_dict().items())}
    checksums = [(key, x.dtype, x.shape, zlib.crc32(content)) for key, (x, content) in state.items()]
    cached = _digests.get(model)
    if cached is not None and cached[0] == checksums:
        return cached[1]
    digest = hashlib.sha256()
    for key, (x, content) in state.items():
        digest.update(f"{key} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(content)
    _digests[model] = checksums, digest.hexdigest()
    return digest.hexdigest()


def _bytes(x: Tensor) -> Any:
    """A buffer of the bytes of a tensor."""
    return x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
