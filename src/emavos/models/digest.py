"""A digest that identifies the weights of a network."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def weights_sha256(model: nn.Module) -> str:
    """The sha256 of everything the results of a model depend on: names, dtypes and bytes of its state."""
    digest = hashlib.sha256()
    for key, x in sorted(model.state_dict().items()):
        digest.update(f"{key} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
