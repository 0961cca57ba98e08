"""The exponential moving average of a model's weights: smoother than the weights of the last iteration."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """average = decay * average + (1 - decay) * weights, after each iteration.

    decay: in (0, 1). The decay of update n is at most (1 + n) / (10 + n), so that the average soon forgets
        the first weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average with the current weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in model.named_parameters():
            self.weights[name].lerp_(parameter, 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def put_into(self, model: nn.Module) -> None:
        """Replace the weights of the model by the average."""
        for name, parameter in model.named_parameters():
            parameter.copy_(self.weights[name])
