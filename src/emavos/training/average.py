"""The exponential moving average of a model's weights: what training ends with, without its last jitter."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """average = decay * average + (1 - decay) * weights, after each iteration; early on the decay is smaller.

    decay: in (0, 1). At update n it is at most (1 + n) / (10 + n), so that the start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in model.named_parameters():
            self.weights[name].lerp_(parameter, 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def put_into(self, model: nn.Module) -> None:
        """Give the model the average in place of its weights."""
        for name, parameter in model.named_parameters():
            parameter.copy_(self.weights[name])
