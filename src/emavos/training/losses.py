"""The losses of training, on the log-odds that soft aggregation gives."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

Bootstrapping = Literal["hardest", "scaled"]


def hardest_fraction(iteration: int, start: int = 20_000, end: int = 70_000, least: float = 0.15) -> float:
    """The share p of pixels that count: all until `start`, then falling linearly to `least` at `end`.

    The defaults are STCN's.
    """
    if iteration < start:
        return 1.0
    if iteration >= end:
        return least
    return 1.0 - (1.0 - least) * (iteration - start) / (end - start)


def bootstrapped_cross_entropy(
    logits: Tensor, target: Tensor, fraction: float, bootstrapping: Bootstrapping = "hardest"
) -> Tensor:
    """Cross-entropy of a fraction p of the pixels: their mean in STCN's code, p times the mean in the paper.

    logits: (B, 1 + O, H, W).
    target: (B, H, W) of class indices.
    fraction: p, in (0, 1], see `hardest_fraction`.
    bootstrapping: "hardest", as in STCN's code: the mean over the p H W pixels of each clip whose loss is
        largest, so that easy pixels get no gradient. "scaled", as equation (4) of Kim and Hong (2023) reads:
        p times the mean over all pixels, so that every pixel keeps its gradient, and all gradients shrink.
        Adam divides a common factor out, so "scaled" hardly differs from the plain mean unless other losses
        are added.

    Returns a scalar.
    """
    loss = functional.cross_entropy(logits, target, reduction="none").flatten(1)  # (B, H * W)
    if bootstrapping == "scaled":
        return fraction * loss.mean()
    if fraction < 1:
        loss = loss.topk(max(int(loss.shape[1] * fraction), 1), dim=1).values
    return loss.mean()


def dice_loss(prob: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """One minus the soft Dice overlap, so that a small object weighs as much as a large one.

    prob, target: (B, O, H, W) in [0, 1]. valid: (B, O), 1 for the objects that count; None: all. Returns a
    scalar, the mean over clips of the mean over their objects.
    """
    overlap = (prob * target).sum(dim=(2, 3))
    total = prob.sum(dim=(2, 3)) + target.sum(dim=(2, 3))
    dice = (2 * overlap + 1) / (total + 1)
    if valid is None:
        return 1 - dice.mean()
    return 1 - ((dice * valid).sum(dim=1) / valid.sum(dim=1).clamp(min=1)).mean()


def matching_loss(matched: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Cross-entropy of the masks that the affinity alone reads from memory; only keys get its gradient.

    matched: (B, O, h, w) in [0, 1], the memory's true masks read by the affinity.
    target: (B, O, h, w) in [0, 1], how much of each cell the object covers.
    valid: (B, O), 1 for the objects that count; None: all.

    The cells on an object weigh as much as all others, however small it is. Returns a scalar.
    """
    loss = functional.binary_cross_entropy(matched.clamp(1e-4, 1 - 1e-4), target, reduction="none")
    on, off = (target > 0.5).to(loss), (target <= 0.5).to(loss)
    weight = sum(part / part.sum(dim=(2, 3), keepdim=True).clamp(min=1) for part in (on, off))
    each = (loss * weight).sum(dim=(2, 3)) / 2  # (B, O)
    if valid is None:
        return each.mean()
    return (each * valid).sum() / valid.sum().clamp(min=1)
