"""Thin-plate splines (Bookstein, PAMI 1989): the smoothest warp with given moves of control points."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from emavos.data.points import regular_points


def thin_plate_warp(moves: Tensor, size: int) -> Tensor:
    """The moves (size, size, 2) of regular points on the square [-1, 1] x [-1, 1].

    moves: (2, n, n), x and y moves of n x n control points on a regular grid across the square.
    size: number of points per side.
    """
    n = moves.shape[1]
    return (_basis(n, size) @ moves.flatten(1).T).view(size, size, 2)


@lru_cache(maxsize=8)
def _basis(n: int, size: int) -> Tensor:
    """(size * size, n * n): the weight of each control point's move at each point."""
    line = torch.linspace(-1, 1, n, dtype=torch.float64, device="cpu")
    y, x = torch.meshgrid(line, line, indexing="ij")
    control = torch.stack([x, y], dim=-1).view(-1, 2)  # (n * n, 2)
    count = len(control)
    # [K P; P' 0] [weights; affine] = [moves; 0], so the spline is linear in the moves
    system = torch.zeros(count + 3, count + 3, dtype=torch.float64, device="cpu")
    system[:count, :count] = _radial(control, control)
    system[:count, count:] = _affine(control)
    system[count:, :count] = _affine(control).T
    points = regular_points(size).double().view(-1, 2)
    rows = torch.cat([_radial(points, control), _affine(points)], dim=1)
    return (rows @ torch.linalg.inv(system)[:, :count]).float()


def _radial(points: Tensor, control: Tensor) -> Tensor:
    """r^2 log r^2 of all pairs, with value 0 at r = 0."""
    squared = (points[:, None] - control[None]).square().sum(dim=2)
    return torch.special.xlogy(squared, squared)


def _affine(points: Tensor) -> Tensor:
    return torch.cat([points.new_ones(len(points), 1), points], dim=1)
