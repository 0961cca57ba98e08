"""One step of learning, and all that changes by it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from emavos.data import Sample
from emavos.models import STCN
from emavos.training import distributed
from emavos.training.average import WeightAverage
from emavos.training.clip import ClipNetwork
from emavos.training.config import TrainConfig
from emavos.training.losses import bootstrapped_cross_entropy, dice_loss, hardest_fraction


class Learner:
    """A model on its device, with optimiser, the scaler of half-precision gradients and averaged weights."""

    def __init__(self, model: STCN, config: TrainConfig) -> None:
        self.model = model.train()
        self.config = config
        self.device = next(model.parameters()).device
        self.optimiser = make_optimiser(model, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.average = WeightAverage(model, config.ema) if config.ema else None
        self._network = distributed.parallel(ClipNetwork(model))

    def step(self, sample: Sample, iteration: int) -> tuple[float, float]:
        """Learn from a batch; returns its loss and mean overlap, over all processes.

        Raises FloatingPointError in every process, before anything is changed, where the loss or its gradient
        is not finite. In float16 a gradient may overflow: that step is left out, and the scale made smaller.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * self.config.learning_rate(iteration)
        loss, overlap = self._loss(sample, iteration)
        told = distributed.mean(torch.stack([loss.detach(), overlap.detach()]))
        if not bool(told[0].isfinite()):
            raise FloatingPointError(f"the loss of iteration {iteration} is {told[0].item()}")
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad or math.inf)
        if not self.scaler.is_enabled() and not bool(norm.isfinite()):  # it would be in all weights
            raise FloatingPointError(f"the norm of the gradient of iteration {iteration} is {norm.item()}")
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model)
        return told[0].item(), told[1].item()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the model has its averaged weights, if there are any."""
        if self.average is None:
            yield
            return
        weights = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}
        self.average.put_into(self.model)
        try:
            yield
        finally:
            self.model.load_state_dict(weights, strict=False)

    def _loss(self, sample: Sample, iteration: int) -> tuple[Tensor, Tensor]:
        config, (frames, masks, valid) = self.config, sample  # (B, T, 3, S, S), (B, T, O, S, S), (B, O)
        fraction = hardest_fraction(
            iteration, config.all_pixels_until, config.hardest_from, config.least_fraction
        )
        dtype = torch.float16 if config.precision == "float16" else torch.bfloat16
        with torch.autocast(self.device.type, dtype, enabled=config.precision != "float32"):
            all_logits = self._network(frames, masks[:, 0], valid)
        losses, dices = [], []
        for t, logits in enumerate(all_logits, 1):
            objects = torch.arange(1, 1 + masks.shape[2], device=masks.device).view(1, -1, 1, 1)
            target = (masks[:, t] * objects).sum(dim=1).long()  # (B, S, S)
            losses.append(bootstrapped_cross_entropy(logits, target, fraction))
            dices.append(dice_loss(logits.softmax(dim=1)[:, 1:], masks[:, t], valid))
        dice = torch.stack(dices).mean()
        return torch.stack(losses).mean() + config.dice * dice, 1 - dice


def make_optimiser(model: STCN, config: TrainConfig) -> torch.optim.Optimizer:
    """The config's; the trunks have their own learning rate."""
    trunks = [p for name, p in model.named_parameters() if ".trunk." in name]
    others = [p for name, p in model.named_parameters() if ".trunk." not in name]
    groups = [{"params": others, "base": config.lr}, {"params": trunks, "base": config.trunk_lr}]
    kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, weight_decay=config.weight_decay)
