"""Training samples of the click head: one object in a window of a picture, and the first prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from emavos.clicks.planes import STRIDE, Prompts
from emavos.clicks.simulate import next_click
from emavos.data.transforms import Colour, Motion, draw_object_view, draw_view
from emavos.data.videos import Videos
from emavos.frames import normalize

SLOTS = 32  # points of a sample at most
_LEAST = 0.004  # share of a window that an object covers at least
_TRIES = 6


@dataclass
class ClickSample:
    """A window of a picture, and the prompts of its object before the first simulated click."""

    frame: Tensor  # (3, S, S), normalised
    truth: Tensor  # (S, S) of bool
    points: list[tuple[float, float, int]]  # x, y, label
    box: tuple[float, float, float, float] | None
    mask: Tensor | None  # (S, S) of bool


def is_measured(name: str) -> bool:
    """Whether a still image is set apart to measure clicks on: one in twenty, by its name."""
    return crc32(name.encode()) % 20 == 0


def draw_sample(videos: Sequence[Videos], weights: Sequence[float], size: int, seed: object) -> ClickSample:
    """Sample of a seed: a random object of a random picture of one of these sets."""
    rng = np.random.default_rng(seed)  # type: ignore[arg-type]
    while True:
        part = videos[rng.choice(len(weights), p=weights)]
        video = int(rng.integers(len(part)))
        image, ids = part.load(video, int(rng.integers(part.length(video))))
        objects = [id for id in ids.flatten().bincount().nonzero()[:, 0].tolist() if id]
        if not objects:
            continue
        chosen = objects if rng.random() < 0.1 else [objects[rng.integers(len(objects))]]
        mask = ids == chosen[0] if len(chosen) == 1 else ids > 0
        for _ in range(_TRIES):
            view = draw_object_view(mask, rng) if rng.random() < 0.65 else draw_view(mask, rng, (0.4, 1.0))
            seen, object_mask = view.sample(image, mask.to(torch.uint8), Motion.draw(rng, 0.25), size)
            truth = object_mask.bool()
            if _LEAST < truth.float().mean() < 0.9:
                return _prompted(normalize(Colour.draw(rng, 0.8)(seen)), truth, rng)


def _prompted(frame: Tensor, truth: Tensor, rng: np.random.Generator) -> ClickSample:
    kind = rng.random()
    sample = ClickSample(frame, truth, [], None, None)
    if kind < 0.2:
        sample.box = _box(truth, rng)
    elif kind < 0.45:
        sample.mask = _spoilt(truth, rng)
        sample.points = _click(sample.mask, truth, rng)
    elif kind < 0.55:
        sample.points = _stroke(truth, rng)
    else:
        sample.points = _click(torch.zeros_like(truth), truth, None if rng.random() < 0.3 else rng)
    if rng.random() < 0.25:
        for _ in range(rng.integers(1, 4)):
            sample.points.append(_anywhere(truth, rng))
    return sample


def _box(truth: Tensor, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A box around the object, each side off by up to a twelfth of the box."""
    y, x = (axis.tolist() for axis in (truth.any(dim=1).nonzero()[:, 0], truth.any(dim=0).nonzero()[:, 0]))
    left, top, right, bottom = x[0], y[0], x[-1] + 1, y[-1] + 1
    off = rng.uniform(-1 / 12, 1 / 12, 4) * np.array([right - left, bottom - top] * 2)
    return (left + off[0], top + off[1], right + off[2], bottom + off[3])


def _anywhere(truth: Tensor, rng: np.random.Generator) -> tuple[float, float, int]:
    """A click inside the object, or outside but near it."""
    label = int(rng.random() < 0.5)
    if label:
        spots = (~_grown(~truth, 3)).nonzero()
    else:
        near = _grown(truth, int(rng.integers(8, 64)))
        spots = (near & ~_grown(truth, 4)).nonzero()
    if not len(spots):
        spots, label = truth.nonzero(), 1
    y, x = spots[rng.integers(len(spots))].tolist()
    return x + 0.5, y + 0.5, label


def _stroke(truth: Tensor, rng: np.random.Generator) -> list[tuple[float, float, int]]:
    """A line of clicks through the object, like a scribble."""
    spots = (~_grown(~truth, 2)).nonzero()
    spots = spots if len(spots) else truth.nonzero()
    (y0, x0), (y1, x1) = (spots[rng.integers(len(spots))].tolist() for _ in range(2))
    count = min(int(np.hypot(x1 - x0, y1 - y0) / 8) + 2, 20)
    line = [(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t) for t in np.linspace(0, 1, count)]
    return [(x + 0.5, y + 0.5, 1) for x, y in line if truth[int(y), int(x)]]


def _spoilt(truth: Tensor, rng: np.random.Generator) -> Tensor:
    """A mask with a tracker's mistakes: too wide or too narrow, with a piece missing or a piece too much."""
    mask = truth.clone()
    kind = rng.integers(4)
    if kind == 0:
        mask = _grown(mask, int(rng.integers(2, 12)))
    elif kind == 1:
        narrow = ~_grown(~mask, int(rng.integers(2, 8)))
        mask = narrow if narrow.any() else mask
    elif kind == 2:
        mask = mask & ~_blob(truth, rng)
    else:
        mask = mask | _blob(_grown(truth, 16), rng)
    if rng.random() < 0.3:
        move = rng.integers(-6, 7, 2).tolist()
        mask = torch.roll(mask, move, dims=(0, 1))
    return mask


def _blob(near: Tensor, rng: np.random.Generator) -> Tensor:
    """A round or square piece of the window around a random pixel of `near`."""
    spots = near.nonzero()
    y, x = spots[rng.integers(len(spots))].tolist()
    reach = float(near.sum()) ** 0.5 * rng.uniform(0.15, 0.5)
    rows, columns = (torch.arange(n) - c for n, c in zip(near.shape, (y, x), strict=True))
    if rng.random() < 0.5:
        return (rows[:, None].square() + columns.square()) < reach**2
    return (rows[:, None].abs() < reach) & (columns.abs() < reach * rng.uniform(0.5, 1.5))


def _grown(mask: Tensor, reach: int) -> Tensor:
    """mask (H, W) with all pixels nearer than `reach`, along both axes."""
    plane = mask[None].float()
    for kernel in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        plane = functional.max_pool2d(plane, kernel, 1, (kernel[0] // 2, kernel[1] // 2))
    return plane[0] > 0


def _click(mask: Tensor, truth: Tensor, rng: np.random.Generator | None) -> list[tuple[float, float, int]]:
    """The next click, chosen at half the size; none if there is no error."""
    click = next_click(mask[::2, ::2], truth[::2, ::2], rng)
    return [] if click is None else [(2 * click[0], 2 * click[1], click[2])]


def prompts_of(samples: Sequence[ClickSample], masks: Tensor | None = None) -> Prompts:
    """The prompts of samples of one size. masks: (B, 1, S / 4, S / 4), instead of the samples' own."""
    size = samples[0].truth.shape[0]
    points, labels = torch.zeros(len(samples), SLOTS, 2), torch.full((len(samples), SLOTS), -1)
    box = torch.full((len(samples), 4), float("nan"))
    has_mask = torch.zeros(len(samples))
    given = torch.zeros(len(samples), 1, size // STRIDE, size // STRIDE)
    for i, sample in enumerate(samples):
        last = sample.points[-SLOTS:]
        if last:
            points[i, : len(last)] = torch.tensor([point[:2] for point in last])
            labels[i, : len(last)] = torch.tensor([point[2] for point in last])
        if sample.box is not None:
            box[i] = torch.tensor(sample.box)
        if sample.mask is not None:
            has_mask[i] = 1
            given[i] = functional.avg_pool2d(sample.mask[None].float(), STRIDE)
    used = int((labels >= 0).sum(dim=1).amax())
    points, labels = points[:, :used], labels[:, :used]
    if masks is not None:
        given, has_mask = masks, torch.ones(len(samples))
    return Prompts(points, labels, box, given, has_mask)
