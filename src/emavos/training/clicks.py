"""Training of a click head on the features of a trained network. The network does not change."""

from __future__ import annotations

import csv
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional

from emavos.clicks.model import ClickHead, Seen
from emavos.clicks.planes import Prompts
from emavos.clicks.simulate import next_click
from emavos.data import Clips, Remembered, StaticImages, Videos
from emavos.io.images import check_file
from emavos.io.whole import write_tensors
from emavos.models import STCN
from emavos.training.average import WeightAverage
from emavos.training.click_samples import ClickSample, draw_sample, is_measured, prompts_of
from emavos.training.config import RunConfig
from emavos.training.stages import HELD_OUT

_AVERAGE = 0.99  # decay of the averaged weights
_FED_BACK = 0.9  # share of rounds that get the earlier mask
_REMEMBERED = 1 << 30  # bytes of pictures kept of each set
_STATE = ("exp_avg", "exp_avg_sq", "step")  # state of AdamW for each parameter


@dataclass(frozen=True)
class ClickConfig(RunConfig):
    """A run. The samples and clicks of an iteration are functions of the seed and its number."""

    iterations: int = 600
    lr: float = 4e-4  # of fusion and decoder, which begin as the network's
    new_lr: float = 2e-3  # of the other layers
    warmup: int = 8  # iterations until both rates reach these values; then they fall as half a cosine
    batches: tuple[tuple[int, int], ...] = ((192, 8), (256, 5))  # (pixels, samples), in turn
    rounds: int = 3  # per batch: predict a mask, learn from its errors, click on the largest error
    leave_out: tuple[str, ...] = HELD_OUT
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "rounds"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name} is a whole number of at least 1, not {getattr(self, name)!r}")
        for name in ("lr", "new_lr"):
            if type(getattr(self, name)) not in (int, float) or not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is a number between 0 and 1, not {getattr(self, name)!r}")
        for name in ("warmup", "seed"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 0:
                raise ValueError(f"{name} is a whole number of at least 0, not {getattr(self, name)!r}")
        names: object = self.leave_out
        if isinstance(names, str):
            raise ValueError(f"leave_out is a list of names, not the text {names!r}")
        try:
            batches = tuple((int(size), int(count)) for size, count in self.batches)
        except (TypeError, ValueError) as error:
            raise ValueError(f"batches are pairs (pixels, samples), not {self.batches!r}") from error
        if not batches or any(size < 64 or size % 16 or count < 1 for size, count in batches):
            raise ValueError(
                f"batches are pairs (pixels, samples), of sizes in steps of 16 from 64 on, not {self.batches}"
            )
        object.__setattr__(self, "batches", batches)  # JSON knows lists only
        object.__setattr__(self, "leave_out", tuple(self.leave_out))

    def learning_rate(self, iteration: int) -> float:
        """The factor on `lr` and `new_lr` at an iteration, counted from 0."""
        if iteration < self.warmup:
            return (iteration + 1) / self.warmup
        done = (iteration - self.warmup) / max(self.iterations - self.warmup, 1)
        return max(0.5 * (1 + math.cos(math.pi * done)), 0.01)


class ClickProgress(NamedTuple):
    """The figures of one iteration."""

    iteration: int
    loss: float  # mean of its rounds
    overlap: float  # intersection over union of the masks of its last round
    seconds: float


class StillsApart(StaticImages):
    """Still images without the ones set apart for measurements, or only these."""

    def __init__(self, root: Path, measured: bool = False) -> None:
        super().__init__(root)
        pairs = [
            (image, mask)
            for image, mask in zip(self.images, self.masks, strict=True)
            if is_measured(mask.stem) == measured
        ]
        self.images, self.masks = [image for image, _ in pairs], [mask for _, mask in pairs]


class WholeClips(Clips):
    """Clips, except sets whose masks omit moving things or show regions instead of objects."""

    def __init__(self, root: Path, leave_out: Sequence[str]) -> None:
        super().__init__(root, leave_out)
        self.names = [name for name in self.names if not name.startswith(("sbi_", "chen_"))]


def open_sets(data: Path, config: ClickConfig) -> tuple[list[Videos], list[float]]:
    """The sets of pictures in a folder, and how often each is drawn from."""
    sets: list[Videos] = []
    shares = []
    for name, share in (("static", 0.35), ("more/static", 0.25)):
        if (data / name).is_dir():
            sets.append(StillsApart(data / name))
            shares.append(share)
    for name, share in (("clips", 0.25), ("more/clips", 0.15)):
        if (data / name).is_dir():
            sets.append(WholeClips(data / name, config.leave_out))
            shares.append(share)
    if not sets:
        raise ValueError(
            f"{data} has none of static/, more/static/, clips/ and more/clips/ to train clicks on"
        )
    return [Remembered(part, _REMEMBERED) for part in sets], [share / sum(shares) for share in shares]


def train_clicks(
    head: ClickHead,
    network: STCN,
    data: str | Path,
    out: str | Path,
    config: ClickConfig,
    *,
    save_every: int = 50,
    stop: int | None = None,
    stopping: Callable[[], bool] | None = None,
    report: Callable[[ClickProgress], None] | None = None,
) -> ClickHead:
    """Train a head in place on pictures in `data`; returns the head with averaged weights.

    If `out` has a checkpoint, the run continues from there.

    network: computes the features, on the device of the head; does not change.
    data: a folder with static/, more/static/, clips/ and more/clips/, or some of these.
    out: a folder for `checkpoint.safetensors` and `log.csv`.
    stop: end after this iteration, to continue later.
    stopping: called after each iteration; if it returns True, the run is saved and ends.
    report: called after each iteration.

    Raises ValueError if there are no pictures or the checkpoint is of another run, and FloatingPointError if
    the loss is not finite.
    """
    data, path = Path(data), Path(out) / "checkpoint.safetensors"
    sets, weights = open_sets(data, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    network.eval().requires_grad_(False)
    head.train()
    learner = _Learner(head, config)
    start = learner.resume(path) if path.exists() else 0
    end = config.iterations if stop is None else min(stop, config.iterations)
    for iteration in range(start, end):
        began = time.perf_counter()
        size, count = config.batches[iteration % len(config.batches)]
        samples = [draw_sample(sets, weights, size, (config.seed, iteration, i)) for i in range(count)]
        losses, overlap = learner.learn(network, samples, iteration)
        progress = ClickProgress(iteration, sum(losses) / len(losses), overlap, time.perf_counter() - began)
        with open(path.with_name("log.csv"), "a", newline="") as file:
            csv.writer(file).writerow([f"{value:.5g}" for value in progress])
        if report is not None:
            report(progress)
        ending = stopping is not None and stopping()
        if ending or (iteration + 1) % save_every == 0 or iteration + 1 == end:
            learner.save(path, iteration + 1)
        if ending:
            break
    learner.average.put_into(head)
    return head.eval()


class _Learner:
    """A head with its optimiser and averaged weights."""

    def __init__(self, head: ClickHead, config: ClickConfig) -> None:
        self.head, self.config = head, config
        copied = {id(p) for part in (head.fusion, head.decoder) for p in part.parameters()}
        groups = [
            {"params": [p for p in head.parameters() if id(p) in copied], "base": config.lr},
            {"params": [p for p in head.parameters() if id(p) not in copied], "base": config.new_lr},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=config.lr, weight_decay=1e-4)
        self.average = WeightAverage(head, _AVERAGE)

    def learn(
        self, network: STCN, samples: Sequence[ClickSample], iteration: int
    ) -> tuple[list[float], float]:
        """The loss of each round, and the overlap of the masks of the last round.

        After each round, a simulated user clicks on the masks. The next round gets the masks and all clicks.
        """
        rng = np.random.default_rng((self.config.seed, iteration))
        device = next(self.head.parameters()).device
        frames = torch.stack([sample.frame for sample in samples]).to(device)
        truth = torch.stack([sample.truth for sample in samples]).to(device)
        with torch.no_grad():
            features = network.encode_key(frames)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * self.config.learning_rate(iteration)
        prompts, losses, prob = prompts_of(samples), [], torch.zeros(0)
        for _ in range(self.config.rounds):
            prompts = Prompts(*(x.to(device) for x in prompts))
            loss, prob = loss_of(self.head, self.head.see(frames, features), prompts, truth)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"the loss of iteration {iteration} is {losses[-1]}")
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
            self.optimiser.step()
            self.average.update(self.head)
            add_clicks(samples, prob.cpu(), rng)
            fed_back = functional.avg_pool2d(prob, 2) if rng.random() < _FED_BACK else None
            prompts = prompts_of(samples, fed_back)
        return losses, overlap_of(prob, truth)

    def save(self, path: Path, iteration: int) -> None:
        """Write a checkpoint. iteration: the next one to run."""
        named = dict(self.head.named_parameters())
        tensors = {f"model.{name}": p.detach() for name, p in named.items()}
        tensors |= {f"average.{name}": p for name, p in self.average.weights.items()}
        for name, p in named.items():
            tensors |= {f"{field}.{name}": x for field, x in self.optimiser.state.get(p, {}).items()}
        metadata = {"iteration": str(iteration), "config": self.config.to_json()}
        write_tensors(path, {name: x.contiguous() for name, x in tensors.items()}, metadata)

    def resume(self, path: Path) -> int:
        """Restore a checkpoint; returns the next iteration. The number of iterations may have changed."""
        what = f"{path} is damaged, or no checkpoint of a click head"
        check_file(path, "a checkpoint")
        named = dict(self.head.named_parameters())
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = file.metadata() or {}
            begun, iteration = ClickConfig.from_json(metadata["config"]), int(metadata["iteration"])
            for name, p in named.items():
                for field in ("model", "average", *_STATE):
                    tensor = tensors[f"{field}.{name}"]
                    if tensor.shape != (torch.Size() if field == "step" else p.shape):
                        raise ValueError(f"{field}.{name} is of another shape")
                    if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
                        raise ValueError(f"{field}.{name} has NaN, infinity or no numbers")
        except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{what} ({error}); delete it") from error
        if dataclasses.replace(begun, iterations=self.config.iterations) != self.config:
            raise ValueError(f"{path} was begun with another config; use another folder, or the same config")
        with torch.no_grad():
            for name, p in named.items():
                p.copy_(tensors[f"model.{name}"])
                self.average.weights[name].copy_(tensors[f"average.{name}"])
                self.optimiser.state[p] = {field: tensors[f"{field}.{name}"] for field in _STATE}
        self.average.updates = iteration * self.config.rounds
        return iteration


def loss_of(head: ClickHead, seen: Seen, prompts: Prompts, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of a head's masks, and their probabilities (B, 1, S / 2, S / 2).

    The loss is Dice plus a cross entropy in which correct pixels have little weight (RITM's focal loss).

    truth: (B, S, S) of bool.
    """
    coarse = head(seen, prompts)
    logits = functional.interpolate(coarse, truth.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    target = truth.float()
    prob = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = (prob.detach() - target).square() + 0.05
    entropy = (entropy * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))
    both = (prob * target).sum(dim=(1, 2))
    dice = 1 - (2 * both + 1) / (prob.sum(dim=(1, 2)) + target.sum(dim=(1, 2)) + 1)
    return (entropy + dice).mean(), coarse.detach().sigmoid()


def overlap_of(prob: Tensor, truth: Tensor) -> float:
    """Mean intersection over union of masks, prob (B, 1, S / 2, S / 2), and truth (B, S, S)."""
    mask, target = prob[:, 0] > 0.5, truth[:, ::2, ::2]
    both = (mask & target).sum(dim=(1, 2))
    return (both / (mask | target).sum(dim=(1, 2)).clamp(min=1)).mean().item()


def add_clicks(samples: Sequence[ClickSample], prob: Tensor, rng: np.random.Generator) -> None:
    """Add the next simulated click to each sample. prob: (B, 1, S / 2, S / 2), of the masks."""
    for sample, mask in zip(samples, prob[:, 0] > 0.5, strict=True):
        click = next_click(mask, sample.truth[::2, ::2], rng)
        if click is not None:
            sample.points.append((2 * click[0], 2 * click[1], click[2]))
