"""Soft aggregation: combines the probabilities of separate objects into one distribution."""

from __future__ import annotations

import torch
from torch import Tensor


def aggregate(prob: Tensor) -> Tensor:
    """Soft aggregation of STM (Oh et al., ICCV 2019): one distribution from independent objects.

    prob: (..., O, H, W), the probability of each object by itself, in [0, 1].

    Returns (..., 1 + O, H, W), background first. The values of each pixel sum to one.
    """
    return aggregate_logits(prob).softmax(dim=-3)


def aggregate_logits(prob: Tensor) -> Tensor:
    """Log-odds (..., 1 + O, H, W) whose softmax is `aggregate(prob)`. The training loss uses these.

    prob: as for `aggregate`.
    """
    prob = prob.float()  # 1 - 1e-7 is 1 in half precision
    background = (1 - prob).prod(dim=-3, keepdim=True)
    return torch.cat([background, prob], dim=-3).clamp(1e-7, 1 - 1e-7).logit()
