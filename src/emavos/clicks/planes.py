"""Prompts as maps, to be read by convolutions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

STRIDE = 4  # of the planes
PLANES = 10
_RADIUS = 1.5  # of a disk, in cells of stride 4: 6 pixels
_NEAR, _FAR = 4.0, 16.0  # cells over which nearness to a click falls to 1/e


class Prompts(NamedTuple):
    """The prompts of one object in each of B frames, in pixels of the padded working frames."""

    points: Tensor  # (B, N, 2), x and y
    labels: Tensor  # (B, N): 1 the object, 0 not the object, -1 no point
    box: Tensor  # (B, 4), left, top, right, bottom; NaN: no box
    mask: Tensor  # (B, 1, H / 4, W / 4), earlier probability of the object; 0 if unknown
    has_mask: Tensor  # (B,), 1 if there is an earlier mask, else 0


def planes_of(prompts: Prompts) -> Tensor:
    """The prompts as (B, PLANES, H / 4, W / 4), each in [0, 1].

    Planes of points on the object: disks, and two maps of nearness. The same of points beside the object.
    Then the inside and the outside of the box, the earlier mask, and whether there is an earlier mask.
    """
    height, width = prompts.mask.shape[2:]
    parts = []
    for label in (1, 0):
        away = _distance(prompts.points, prompts.labels == label, height, width)  # (B, h, w)
        parts += [(_RADIUS + 0.5 - away).clamp(0, 1), (-away / _NEAR).exp(), (-away / _FAR).exp()]
    inside, given = box_plane(prompts.box, height, width), prompts.box.isfinite().all(dim=1)
    parts += [inside, (1 - inside) * given.view(-1, 1, 1)]
    parts += [prompts.mask[:, 0], prompts.has_mask.view(-1, 1, 1).expand_as(inside)]
    return torch.stack(parts, dim=1)


def box_plane(box: Tensor, height: int, width: int) -> Tensor:
    """(B, h, w): the share of each cell inside the box (B, 4); 0 if there is no box."""
    cells = box.nan_to_num(nan=0.0) / STRIDE
    x, y = (torch.arange(n, device=box.device, dtype=box.dtype) for n in (width, height))
    across = (torch.minimum(cells[:, 2:3], x + 1) - torch.maximum(cells[:, 0:1], x)).clamp(0, 1)
    down = (torch.minimum(cells[:, 3:4], y + 1) - torch.maximum(cells[:, 1:2], y)).clamp(0, 1)
    return down[:, :, None] * across[:, None, :]


def _distance(points: Tensor, used: Tensor, height: int, width: int) -> Tensor:
    """(B, h, w): distance of each cell, in cells, to the nearest point (B, N, 2) that is used (B, N)."""
    cells = points / STRIDE
    x, y = (torch.arange(n, device=points.device, dtype=points.dtype) + 0.5 for n in (width, height))
    nearest = points.new_full((len(points), height, width), 1e6)
    for some, there in zip(cells.split(32, dim=1), used.split(32, dim=1), strict=True):
        dx = (x - some[..., 0:1]).square()  # (B, n, w)
        dy = (y - some[..., 1:2]).square()  # (B, n, h)
        square = dy[..., :, None] + dx[..., None, :] + (~there)[..., None, None] * 1e12
        if square.shape[1]:
            nearest = torch.minimum(nearest, square.amin(dim=1).sqrt())
    return nearest


def likeness(embedding: Tensor, prompts: Prompts) -> Tensor:
    """How similar each cell of stride 8 is to the cells of the prompts: (B, LIKENESS, 2h, 2w), in [0, 1].

    Channels: the most and the mean over points on the object, the most over points beside the object, then
    the similarity to the mean of the earlier mask, of the box, and of the surroundings of the box.

    embedding: (B, E, 2h, 2w), of unit length.
    """
    size = embedding.shape[2:]
    extent = torch.tensor([size[1], size[0]], device=embedding.device, dtype=embedding.dtype) * 8
    grid = prompts.points / extent * 2 - 1  # (B, N, 2)
    at = functional.grid_sample(embedding, grid[:, None], align_corners=False, padding_mode="border")[:, :, 0]
    at = functional.normalize(at, dim=1)  # (B, E, N)
    same = (1 + torch.einsum("ben,behw->bnhw", at, embedding)) / 2  # (B, N, 2h, 2w)
    parts = []
    for label in (1, 0):
        there = (prompts.labels == label)[..., None, None]
        parts.append((same * there).amax(dim=1) if same.shape[1] else same.new_zeros(len(same), *size))
        if label:
            parts.append((same * there).sum(dim=1) / there.sum(dim=1).clamp(min=1))
    inside = box_plane(prompts.box, size[0] * 2, size[1] * 2)[:, None]
    outside = (1 - inside) * prompts.box.isfinite().all(dim=1).view(-1, 1, 1, 1)
    for weight in (prompts.mask * prompts.has_mask.view(-1, 1, 1, 1), inside, outside):
        weight = functional.avg_pool2d(weight, 2)  # (B, 1, 2h, 2w)
        mean = functional.normalize((embedding * weight).sum(dim=(2, 3), keepdim=True), dim=1)
        seen = (weight.sum(dim=(2, 3), keepdim=True) > 0).to(mean.dtype)
        parts.append(((1 + (mean * embedding).sum(dim=1, keepdim=True)) / 2 * seen)[:, 0])
    return torch.stack(parts, dim=1)


LIKENESS = 6
