"""A copy of a network that only infers: faster, and as exact as its type allows."""

from __future__ import annotations

import copy

import torch

from emavos.models.efficientnet_lite import EfficientNetLiteTrunk
from emavos.models.stcn import STCN


def folded(model: STCN, dtype: torch.dtype | None = None) -> STCN:
    """A network that gives what `model` gives, in `dtype`; None: in its own.

    Frozen batch norms of small trunks become parts of the convolutions before them, in single precision,
    before anything is rounded to `dtype`. The copy is for inference alone: its state is no STCN's, and what
    happens to the weights of `model` later does not reach it. Where nothing is folded or rounded it is the
    model.
    """
    own = next(model.parameters()).dtype
    dtype = own if dtype is None else dtype
    trunks = model.key_encoder.trunk, model.value_encoder.trunk
    if dtype == own and not any(isinstance(trunk, EfficientNetLiteTrunk) for trunk in trunks):
        return model
    network = copy.deepcopy(model).eval().to(torch.promote_types(dtype, torch.float32))
    kept = {id(network.key_encoder.log_scale)}  # a rounded scale would change all similarities
    for trunk in (network.key_encoder.trunk, network.value_encoder.trunk):
        if isinstance(trunk, EfficientNetLiteTrunk):
            trunk.fold(dtype)
            kept |= {id(x) for x in trunk.parameters()}
    for x in (*network.parameters(), *network.buffers()):
        if id(x) not in kept and x.is_floating_point():
            x.data = x.data.to(dtype)
    return network.requires_grad_(False)
