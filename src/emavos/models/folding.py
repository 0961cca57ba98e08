"""A copy of a network for inference only: faster, and as exact as its dtype allows."""

from __future__ import annotations

import copy

import torch

from emavos.models.efficientnet_lite import EfficientNetLiteTrunk
from emavos.models.stcn import STCN


def folded(model: STCN, dtype: torch.dtype | None = None) -> STCN:
    """A copy of `model` for inference in `dtype`, with the same results up to rounding.

    dtype: defaults to the dtype of the model.

    Frozen batch norms of small trunks are folded into the convolutions before them, in single precision,
    before the weights are rounded to `dtype`. The state of the copy does not fit an `STCN`, and later changes
    to the weights of `model` do not reach the copy. If there is nothing to fold or to round, `model` itself
    is returned.
    """
    before = next(model.parameters()).dtype
    dtype = before if dtype is None else dtype
    trunks = model.key_encoder.trunk, model.value_encoder.trunk
    if dtype == before and not any(isinstance(trunk, EfficientNetLiteTrunk) for trunk in trunks):
        return model
    network = copy.deepcopy(model).eval().to(torch.promote_types(dtype, torch.float32))
    # rounded, the lengths of keys would change all similarities
    kept = {id(x) for name, x in network.key_encoder.named_parameters() if name.startswith("log_")}
    for trunk in (network.key_encoder.trunk, network.value_encoder.trunk):
        if isinstance(trunk, EfficientNetLiteTrunk):
            trunk.fold(dtype)
            kept |= {id(x) for x in trunk.parameters()}
    for x in (*network.parameters(), *network.buffers()):
        if id(x) not in kept and x.is_floating_point():
            x.data = x.data.to(dtype)
    return network.requires_grad_(False)
