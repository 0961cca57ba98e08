"""Connected pieces of masks, at stride 4, and the clicks in them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from emavos.clicks.planes import STRIDE, Prompts

_REACH = 3  # cells around a click, within which a change counts as meant
_APART = 2  # cells around each of two parts that count as one if they touch


def near_clicks(mask: Tensor, prompts: Prompts) -> Tensor:
    """The cells (1, 1, h, w) of bool of a mask (1, 1, h, w) that may differ from the earlier mask.

    These are the connected changes in which or near which a click is, plus one cell around. Without this step
    of Chen et al., "FocalClick", CVPR 2022, a click on one end of a good mask may spoil the other end.
    """
    changed = (mask != (prompts.mask > 0.5)).float()
    piece = _connected(_grown(_seeds(prompts.points[0], changed), _REACH), changed)
    return _grown(piece, 1) > 0


def clicked_parts(mask: Tensor, prompts: Prompts) -> Tensor | None:
    """The cells (1, 1, h, w) of bool around the parts of a mask (1, 1, h, w) of the clicked object.

    A part counts if a click on the object, or a cell of the earlier mask, is in it or near it. Parts near one
    another are one part. None: no part counts.
    """
    near = _grown(mask.float(), _APART)
    on_object = prompts.points[0][prompts.labels[0] == 1]  # (N, 2)
    seeds = torch.maximum(_seeds(on_object, near), (prompts.mask > 0.5).float())
    parts = _connected(seeds, near) > 0
    return parts if parts.any() else None


def _seeds(points: Tensor, cells: Tensor) -> Tensor:
    """1 in the cells (1, 1, h, w) in which a point (N, 2) is, and 0 elsewhere."""
    x, y = (points / STRIDE).long().unbind(dim=1)
    seeds = torch.zeros_like(cells)
    seeds[0, 0, y.clamp(0, cells.shape[2] - 1), x.clamp(0, cells.shape[3] - 1)] = 1
    return seeds


def _grown(cells: Tensor, reach: int) -> Tensor:
    """Cells (1, 1, h, w) of 0 and 1, and all others within `reach`."""
    return functional.max_pool2d(cells, 2 * reach + 1, 1, reach)


def _connected(seeds: Tensor, cells: Tensor) -> Tensor:
    """The pieces of cells (1, 1, h, w) of 0 and 1 in which there is a seed (1, 1, h, w)."""
    piece, count = seeds * cells, -1
    while (grown := int(piece.sum())) != count:  # eight steps between looks: a look waits for a GPU
        count = grown
        for _ in range(8):
            piece = _grown(piece, 1) * cells
    return piece
