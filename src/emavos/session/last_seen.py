"""Where each object was last seen: what a frame passes on to the next one, besides the memory.

Objects rarely jump, and look-alikes stand elsewhere. With `Settings.locality`, the logits of an object
therefore fall with the distance from its last mask, beyond what the object moves between frames. Frames far
apart in time thus allow far jumps. docs/experiments.md has what this gains, and how the constants were
chosen.

An object last seen at the border has probably left: its confidence without a mask depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional

from emavos.frames.preprocess import moved
from emavos.models import STRIDE

_EDGE_DECAY = 0.9  # per frame, of the share of an outline that was seen at the border
_SPEED_DECAY = 0.8  # per frame
_FREE = 0.05  # distance without penalty, in longer sides of the frame
_FREE_PER_SPEED = 2.0
_FREE_PER_ABSENCE = 0.1  # for each frame without a mask
_SLOPE = 20.0  # logits per longer side
_MOST = 4.0  # logits; what has a probability above 0.98 by itself is found anywhere


@dataclass(frozen=True, eq=False)
class LastSeen:
    """Where each of O objects was last seen. An object without a place may be in every cell.

    edges: (O,), the share of each outline last seen at the border. Fades as the object moves inside.
    cells: (O, h, w) bool, the cells of the last mask that was not empty.
    absent: (O,), frames in a row without a mask.
    speed: (O,), the lasting maximum of the distance between the centroids of successive masks, as a share of
        the frame's longer side. Infinite before the first of these distances.
    """

    edges: Tensor
    cells: Tensor
    absent: Tensor
    speed: Tensor

    @classmethod
    def unseen(cls, objects: int, size: tuple[int, int], device: torch.device) -> LastSeen:
        """Of objects that were never seen.

        size: (h, w), in cells.
        """
        zeros = torch.zeros(objects, dtype=torch.float32, device=device)
        cells = torch.ones(objects, *size, dtype=torch.bool, device=device)
        return cls(zeros, cells, zeros, torch.full_like(zeros, torch.inf))

    def with_new(self, objects: int) -> LastSeen:
        """Of this many objects: these, and new ones that were never seen."""
        if (new := objects - len(self.edges)) == 0:
            return self
        height, width = self.cells.shape[1:]
        more = LastSeen.unseen(new, (height, width), self.cells.device)
        return LastSeen(
            *(torch.cat([getattr(x, field.name) for x in (self, more)]) for field in fields(self))
        )

    def only(self, positions: list[int]) -> LastSeen:
        """Of the objects at these positions."""
        return LastSeen(*(getattr(self, field.name)[positions] for field in fields(self)))

    def anywhere(self) -> LastSeen:
        """The same, but no object has a place any more, as after frames of another scene."""
        return replace(self, cells=torch.ones_like(self.cells), absent=torch.zeros_like(self.absent))

    def without_places(self, objects: Sequence[bool]) -> LastSeen:
        """The same, but some objects have neither a place nor a speed, because their masks were wrong.

        objects: whether each object is one of them.
        """
        if not any(objects):
            return self
        chosen = moved(torch.tensor([*objects], device="cpu"), self.cells.device)  # (O,)
        return LastSeen(
            self.edges,
            self.cells | chosen[:, None, None],
            torch.where(chosen, 0.0, self.absent),
            torch.where(chosen, torch.inf, self.speed),
        )

    def after(self, prob: Tensor, signs: Tensor, given: tuple[bool, ...]) -> LastSeen:
        """After the next frame.

        prob: (O, H', W') of the objects.
        signs: (O, 4), see `emavos.session.frame.signs_of`.
        given: whether each object has a user's mask on the frame.
        """
        area, _, edge, _ = signs.unbind(dim=1)
        edges = torch.where(area > 0, torch.maximum(edge, _EDGE_DECAY * self.edges), self.edges)
        if any(given):
            by_user = moved(torch.tensor(given, device="cpu"), edges.device)
            # objects that the user marks as absent count as having left across the border
            edges = torch.where(by_user, torch.where(area > 0, edge, 1.0), edges)
        shown = functional.max_pool2d(prob[:, None], STRIDE)[:, 0] > 0.5  # (O, h, w)
        present = shown.flatten(1).any(dim=1)  # (O,)
        cells = torch.where(present[:, None, None], shown, self.cells)
        distance = (_centroids(cells) - _centroids(self.cells)).square().sum(dim=1).sqrt()  # (O,), in cells
        step = distance / max(cells.shape[1:])
        speed = torch.where(self.speed.isinf(), step, torch.maximum(_SPEED_DECAY * self.speed, step))
        measured = present & ~self.cells.flatten(1).all(dim=1)  # there was a place before
        return LastSeen(
            edges, cells, torch.where(present, 0.0, self.absent + 1), torch.where(measured, speed, self.speed)
        )

    def penalty(self, size: tuple[int, int]) -> Tensor:
        """What locality takes from the logits of each object: (O, H', W') in [0, 4].

        size: (H', W'), the working size.
        """
        free = _FREE + _FREE_PER_SPEED * self.speed + _FREE_PER_ABSENCE * self.absent  # (O,)
        share = distances(self.cells) / max(self.cells.shape[1:])  # (O, h, w)
        penalty = (_SLOPE * (share - free[:, None, None])).clamp(0, _MOST)
        return functional.interpolate(penalty[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def _centroids(cells: Tensor) -> Tensor:
    """The mean row and column of the true cells: (O, h, w) bool -> (O, 2)."""
    area = cells.flatten(1).sum(dim=1).float()  # (O,), never 0: an object without a place has all cells
    means = []
    for axis, other in ((1, 2), (2, 1)):
        position = torch.arange(cells.shape[axis], device=cells.device)
        means.append((cells.sum(dim=other) * position).sum(dim=1).float() / area)  # int / int: default dtype
    return torch.stack(means, dim=1)


def distances(cells: Tensor) -> Tensor:
    """Distance of each cell to the nearest true cell: (O, h, w) bool -> (O, h, w) float32, in cells.

    Exact, in two passes over rows and columns (Felzenszwalb and Huttenlocher, Theory of Computing 2012, with
    a search of all parabolas, because frames have few cells). Infinite if no cell is true.
    """
    zero = torch.zeros((), dtype=torch.float32, device=cells.device)
    in_rows = _envelope(torch.where(cells, zero, torch.inf))
    return _envelope(in_rows.transpose(1, 2)).transpose(1, 2).sqrt()


def _envelope(heights: Tensor) -> Tensor:
    """The least of (x - y)^2 + heights[..., y] over all y: (..., n) -> (..., n).

    In blocks of x, so that even of a very long frame no tensor is larger than the logits.
    """
    x = torch.arange(heights.shape[-1], dtype=torch.float32, device=heights.device)
    lowest = torch.empty_like(heights)
    block = STRIDE * STRIDE
    for out, some in zip(lowest.split(block, dim=-1), x.split(block), strict=True):
        out[:] = ((some[:, None] - x).square() + heights[..., None, :]).amin(dim=-1)
    return lowest
