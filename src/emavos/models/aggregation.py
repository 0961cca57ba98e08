"""Objects that were each decoded by themselves become one distribution."""

from __future__ import annotations

import torch
from torch import Tensor


def aggregate(prob: Tensor) -> Tensor:
    """Soft aggregation of STM (Oh et al., ICCV 2019): independent objects become one distribution.

    prob: (..., O, H, W), each object's own probability in [0, 1].
    Returns (..., 1 + O, H, W), background first, which sums to one over that axis.
    """
    return aggregate_logits(prob).softmax(dim=-3)


def aggregate_logits(prob: Tensor) -> Tensor:
    """The log-odds whose softmax is `aggregate(prob)`: what the training loss is taken of."""
    prob = prob.float()  # 1 - 1e-7 is 1 in half precision
    background = (1 - prob).prod(dim=-3, keepdim=True)
    return torch.cat([background, prob], dim=-3).clamp(1e-7, 1 - 1e-7).logit()
