"""The training loop: resumable at any saved iteration, to the bit."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset

from emavos.data import Clips, ClipSamples, Sample, StaticImages
from emavos.models import PRESETS, STCN
from emavos.training.average import WeightAverage
from emavos.training.checkpoint import load_checkpoint, save_checkpoint
from emavos.training.clip import clip_logits
from emavos.training.config import TrainConfig
from emavos.training.losses import bootstrapped_cross_entropy, dice_loss, hardest_fraction


@dataclass(frozen=True)
class Progress:
    """What one iteration did."""

    iteration: int
    loss: float
    overlap: float  # mean soft Dice of the clips' objects, 1 is perfect
    learning_rate: float
    seconds: float


def train(
    model: STCN,
    data: str | Path,
    out: str | Path,
    config: TrainConfig,
    *,
    workers: int = 1,
    save_every: int = 100,
    stop: int | None = None,
    report: Callable[[Progress], None] | None = None,
) -> STCN:
    """Train a model in place on `data/static` and `data/clips`; returns it, with averaged weights if any.

    out: a folder for `checkpoint.safetensors`, from which the same call goes on, and `log.csv`.
    workers: processes that make samples; they do not change what is drawn.
    save_every: iterations between checkpoints; the last one is always saved.
    stop: end after this iteration, to go on later; the config's `iterations` unless told.
    report: called after each iteration.

    Raises ValueError where model, data or checkpoint do not fit the config, FloatingPointError where the
    loss is not finite.
    """
    if model.config != PRESETS[config.preset]:
        raise ValueError(f"the model is not of the config's preset, {config.preset}")
    data, out = Path(data), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    samples = ClipSamples(
        StaticImages(data / "static"),
        Clips(data / "clips", config.leave_out),
        count=config.iterations * config.batch,
        batch=config.batch,
        size=config.size,
        frames=config.frames,
        max_gap=config.max_gap,
        real=config.real,
        two_objects=config.two_objects,
        occluder=config.occluder,
        lookalike=config.lookalike,
        blur=config.blur,
        zoom=config.zoom,
        seed=config.seed,
    )
    model.train()
    optimiser = make_optimiser(model, config)
    average = WeightAverage(model, config.ema) if config.ema else None
    checkpoint = out / "checkpoint.safetensors"
    start = load_checkpoint(checkpoint, model, optimiser, average, config) if checkpoint.exists() else 0
    _cut_log(out / "log.csv", start)
    end = config.iterations if stop is None else min(stop, config.iterations)
    left = Subset(samples, range(start * config.batch, end * config.batch))
    loader = DataLoader(left, config.batch, num_workers=workers, persistent_workers=workers > 0)
    device = next(model.parameters()).device
    for iteration, sample in enumerate(loader, start):
        began = time.perf_counter()
        sample = Sample(*(x.to(device) for x in sample))
        loss, overlap = step(model, optimiser, sample, iteration, config)
        if average is not None:
            average.update(model)
        progress = Progress(
            iteration, loss, overlap, config.learning_rate(iteration), time.perf_counter() - began
        )
        _log(out / "log.csv", progress)
        if report is not None:
            report(progress)
        if (iteration + 1) % save_every == 0 or iteration + 1 == end:
            save_checkpoint(checkpoint, model, optimiser, average, iteration + 1, config)
    if average is not None:
        average.put_into(model)
    return model.eval()


def make_optimiser(model: STCN, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; the trunks have their own learning rate."""
    trunks = [p for name, p in model.named_parameters() if ".trunk." in name]
    others = [p for name, p in model.named_parameters() if ".trunk." not in name]
    groups = [{"params": others, "base": config.lr}, {"params": trunks, "base": config.trunk_lr}]
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)


def step(
    model: STCN, optimiser: torch.optim.Optimizer, sample: Sample, iteration: int, config: TrainConfig
) -> tuple[float, float]:
    """One iteration; returns its loss and the mean overlap. FloatingPointError: the loss is not finite."""
    for group in optimiser.param_groups:
        group["lr"] = group["base"] * config.learning_rate(iteration)
    fraction = hardest_fraction(
        iteration, config.all_pixels_until, config.hardest_from, config.least_fraction
    )
    frames, masks = sample  # (B, T, 3, S, S), (B, T, O, S, S)
    with torch.autocast(frames.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        all_logits = clip_logits(model, frames, masks[:, 0])
    losses, dices = [], []
    for t, logits in enumerate(all_logits, 1):
        objects = torch.arange(1, 1 + masks.shape[2], device=masks.device).view(1, -1, 1, 1)
        target = (masks[:, t] * objects).sum(dim=1).long()  # (B, S, S)
        losses.append(bootstrapped_cross_entropy(logits, target, fraction))
        dices.append(dice_loss(logits.softmax(dim=1)[:, 1:], masks[:, t]))
    dice = torch.stack(dices).mean()
    loss = torch.stack(losses).mean() + config.dice * dice
    if not bool(loss.isfinite()):
        raise FloatingPointError(f"the loss of iteration {iteration} is {loss.item()}")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
    optimiser.step()
    return loss.item(), 1 - dice.item()


def _cut_log(path: Path, start: int) -> None:
    """Take out what is run again: the iterations from `start` on, which came after the last checkpoint."""
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    whole = [line for line in lines[1:] if line.endswith("\n") and int(line.partition(",")[0]) < start]
    path.write_text("".join(lines[:1] + whole))


def _log(path: Path, progress: Progress) -> None:
    row = asdict(progress)
    new = not os.path.exists(path)
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
        )
