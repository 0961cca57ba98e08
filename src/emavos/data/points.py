"""Coordinates for moving pictures."""

from __future__ import annotations

import torch
from torch import Tensor


def regular_points(size: int) -> Tensor:
    """The x and y of pixel centres on the square [-1, 1] x [-1, 1]: (size, size, 2)."""
    line = (torch.arange(size, dtype=torch.float32, device="cpu") + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1)
