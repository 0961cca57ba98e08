"""Simulated clicks of a person, drawn from the ground truth, for training and measurements.

Sofiiuk et al., "Reviving Iterative Training with Mask Guidance for Interactive Segmentation", 2021.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def distance_inside(mask: Tensor) -> Tensor:
    """Euclidean distance of each pixel of masks (..., H, W) of bool to the nearest pixel outside; 0 outside.

    Distances are exact, in pixels. Everything beyond the border of the frame is outside.
    """
    *_, height, _ = mask.shape
    row = torch.arange(1, height + 1, device=mask.device).view(-1, 1)
    above = row - (row * ~mask).cummax(dim=-2).values
    below = (row - (row * ~mask.flip(-2)).cummax(dim=-2).values).flip(-2)
    column = torch.minimum(above, below).float().square()  # to the nearest outside, in the same column
    square = column.clone()
    width = mask.shape[-1]
    edge = torch.minimum(torch.arange(1, width + 1), torch.arange(width, 0, -1)).to(column).square()
    square = torch.minimum(square, edge)
    step = 1
    while step < width and step * step < square.amax():
        square[..., step:] = torch.minimum(square[..., step:], column[..., :-step] + step * step)
        square[..., :-step] = torch.minimum(square[..., :-step], column[..., step:] + step * step)
        step += 1
    return square.sqrt()


def next_click(
    mask: Tensor, truth: Tensor, rng: np.random.Generator | None = None
) -> tuple[float, float, int] | None:
    """The next click of a person, (x, y, label), in the middle of the largest error; None if there is none.

    mask, truth: bool (H, W).
    rng: to click anywhere in the inner half of the error, as for training; None: click on the pixel farthest
        from the error's border, as in published measurements.
    """
    wrong = torch.stack([truth & ~mask, mask & ~truth])
    inside = distance_inside(wrong)  # (2, H, W)
    missed, excess = inside.flatten(1).amax(dim=1).tolist()
    if max(missed, excess) == 0:
        return None
    label = int(missed > excess)  # as RITM: of equals the excess
    place = inside[1 - label]
    if rng is None:
        spot = int(place.argmax())
    else:
        spots = (place > 0.5 * place.max()).flatten().nonzero()[:, 0]
        spot = int(spots[rng.integers(len(spots))])
    y, x = divmod(spot, mask.shape[1])
    return x + 0.5, y + 0.5, label
