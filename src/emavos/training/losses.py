"""Training losses on the log-odds of soft aggregation."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

Bootstrapping = Literal["hardest", "scaled"]


def hardest_fraction(iteration: float, start: int = 20_000, end: int = 70_000, least: float = 0.15) -> float:
    """The fraction p of pixels to count: 1 until `start`, then falling linearly to `least` at `end`.

    iteration: iteration, counted from 0.
    start, end: iterations; the defaults are STCN's.
    least: in (0, 1].
    """
    if iteration < start:
        return 1.0
    if iteration >= end:
        return least
    return 1.0 - (1.0 - least) * (iteration - start) / (end - start)


def bootstrapped_cross_entropy(
    logits: Tensor, target: Tensor, fraction: float, bootstrapping: Bootstrapping = "hardest"
) -> Tensor:
    """Cross-entropy of a fraction p of the pixels (STCN's code), or p times their mean (the paper): a scalar.

    logits: (B, 1 + O, H, W).
    target: (B, H, W) of class indices.
    fraction: p, in (0, 1], see `hardest_fraction`.
    bootstrapping: "hardest", as in STCN's code: the mean over the p H W pixels of each clip with the largest
        loss, so that easy pixels get no gradient. "scaled", as in equation (4) of Kim and Hong (2023): p
        times the mean over all pixels, so that every pixel keeps a gradient, scaled by p. Adam cancels a
        common factor, so "scaled" hardly differs from the plain mean unless other losses are added.
    """
    loss = functional.cross_entropy(logits, target, reduction="none").flatten(1)  # (B, H * W)
    if bootstrapping == "scaled":
        return fraction * loss.mean()
    if fraction < 1:
        loss = loss.topk(max(int(loss.shape[1] * fraction), 1), dim=1).values
    return loss.mean()


def dice_loss(prob: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """One minus the soft Dice overlap, so that small objects count as much as large ones: a scalar.

    prob: (B, O, H, W) in [0, 1].
    target: (B, O, H, W) in [0, 1].
    valid: (B, O), 1 for the objects to count; None counts all.

    The loss is averaged over the objects of a clip, then over clips.
    """
    overlap = (prob * target).sum(dim=(2, 3))
    total = prob.sum(dim=(2, 3)) + target.sum(dim=(2, 3))
    dice = (2 * overlap + 1) / (total + 1)
    if valid is None:
        return 1 - dice.mean()
    return 1 - ((dice * valid).sum(dim=1) / valid.sum(dim=1).clamp(min=1)).mean()


def matching_loss(matched: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Cross-entropy of masks read from memory with the affinity; only keys get a gradient. A scalar.

    matched: (B, O, h, w) in [0, 1], true masks of the memory frames, read with the affinity.
    target: (B, O, h, w) in [0, 1], fraction of each cell covered by the object.
    valid: (B, O), 1 for the objects to count; None counts all.

    The cells of an object count as much as all other cells together, so small objects count fully.
    """
    loss = functional.binary_cross_entropy(matched.clamp(1e-4, 1 - 1e-4), target, reduction="none")
    on, off = (target > 0.5).to(loss), (target <= 0.5).to(loss)
    weight = sum(part / part.sum(dim=(2, 3), keepdim=True).clamp(min=1) for part in (on, off))
    each = (loss * weight).sum(dim=(2, 3)) / 2  # (B, O)
    if valid is None:
        return each.mean()
    return (each * valid).sum() / valid.sum().clamp(min=1)
