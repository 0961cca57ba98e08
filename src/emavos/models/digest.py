"""Which weights a network has, in one line."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def weights_sha256(model: nn.Module) -> str:
    """The sha256 of all that a model's results depend on: names, dtypes and bytes of its state."""
    digest = hashlib.sha256()
    for key, x in sorted(model.state_dict().items()):
        digest.update(f"{key} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
