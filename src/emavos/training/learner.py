"""One training step, and all state changed by a step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from emavos.data import Sample
from emavos.models import STCN
from emavos.training import distributed
from emavos.training.average import WeightAverage
from emavos.training.clip import ClipNetwork, cell_coverage
from emavos.training.clock import Clock
from emavos.training.config import TrainConfig
from emavos.training.losses import bootstrapped_cross_entropy, dice_loss, hardest_fraction, matching_loss


class Learned(NamedTuple):
    """Figures of one step, averaged over the batch and all processes."""

    loss: float
    overlap: float  # soft Dice overlap of the clips' objects
    matching: float  # `matching_loss`, reported even if its weight is 0
    best: float  # mean weight of the best memory cell
    cells: float  # mean exp(entropy) of the weights of a query cell


class Learner:
    """A model on its device, with its optimiser, gradient scaler for float16 and averaged weights."""

    def __init__(self, model: STCN, config: TrainConfig) -> None:
        self.model = model.train()
        _freeze(model, config.frozen)
        self.config = config
        self.device = next(model.parameters()).device
        self.clock = Clock(config, self.device)
        self.rate = 0.0  # factor on the learning rates in the last step
        self.optimiser = make_optimiser(model, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.average = WeightAverage(model, config.ema) if config.ema else None
        self._network = distributed.parallel(ClipNetwork(model, config.top_k))

    def step(self, sample: Sample, iteration: int) -> Learned:
        """Learn from a batch; returns the figures of the step, averaged over all processes.

        sample: batch on the model's device.
        iteration: number of the iteration, counted from 0.

        Raises FloatingPointError in every process, before any weight changes, if the loss or its gradient is
        not finite. In float16 a gradient may overflow; such a step is skipped and the scale is reduced.
        """
        place = self.clock.place(iteration)
        self.rate = self.config.learning_rate(iteration, place)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * self.rate
        loss, *rest = self._loss(sample, place)
        learned = Learned(*distributed.mean(torch.stack([loss, *rest]).detach()).tolist())
        if not math.isfinite(learned.loss):
            raise FloatingPointError(f"the loss of iteration {iteration} is {learned.loss}")
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad or math.inf)
        # otherwise NaN would reach all weights
        if not self.scaler.is_enabled() and not bool(norm.isfinite()):
            raise FloatingPointError(f"the norm of the gradient of iteration {iteration} is {norm.item()}")
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model)
        return learned

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Context in which the model has its averaged weights, if averages are kept."""
        if self.average is None:
            yield
            return
        weights = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}
        self.average.put_into(self.model)
        try:
            yield
        finally:
            self.model.load_state_dict(weights, strict=False)

    def _loss(self, sample: Sample, place: float) -> tuple[Tensor, ...]:
        """The fields of `Learned` as scalars; only the first has a gradient."""
        config, (frames, masks, valid) = self.config, sample  # (B, T, 3, S, S), (B, T, O, S, S), (B, O)
        fraction = hardest_fraction(
            place, config.all_pixels_until, config.hardest_from, config.least_fraction
        )
        dtype = torch.float16 if config.precision == "float16" else torch.bfloat16
        with torch.autocast(self.device.type, dtype, enabled=config.precision != "float32"):
            clip = self._network(frames, masks, valid)
        objects = torch.arange(1, 1 + masks.shape[2], device=masks.device).view(1, -1, 1, 1)
        covered = cell_coverage(masks)
        parts = []
        for t, (logits, matched, best, cells) in enumerate(clip, 1):
            target = (masks[:, t] * objects).sum(dim=1).long()  # (B, S, S)
            parts.append(
                torch.stack(
                    [
                        bootstrapped_cross_entropy(logits, target, fraction, config.bootstrapping),
                        dice_loss(logits.softmax(dim=1)[:, 1:], masks[:, t], valid),
                        matching_loss(matched, covered[:, t], valid),
                        best,
                        cells,
                    ]
                )
            )
        entropy, dice, matching, best, cells = torch.stack(parts).mean(dim=0)
        return entropy + config.dice * dice + config.matching * matching, 1 - dice, matching, best, cells


def _freeze(model: STCN, beginnings: Sequence[str]) -> None:
    """Freeze the parameters whose names start with one of the prefixes.

    Raises ValueError if a prefix matches no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    for beginning in beginnings:
        if not any(name.startswith(beginning) for name in names):
            raise ValueError(f"frozen names {beginning!r}, but no parameter's name begins with it")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(beginnings)))


def make_optimiser(model: STCN, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of the config, with separate learning rates for the trunks and the transformer."""
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    trunks = [p for name, p in learning if ".trunk." in name]
    vit = [p for name, p in learning if ".vit." in name]
    others = [p for name, p in learning if ".trunk." not in name and ".vit." not in name]
    groups = [
        {"params": others, "base": config.lr},
        {"params": trunks, "base": config.trunk_lr},
        {"params": vit, "base": config.vit_lr or config.lr},
    ]
    kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, weight_decay=config.weight_decay)
