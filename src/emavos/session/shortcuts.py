"""The work that `emavos.settings.Shortcuts` leave out: the frame far from its objects."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from emavos.models import STCN, STRIDE, Features

_SEEN = 0.05  # coverage from which on a cell may hold a part of an object
_MARGIN = 3  # cells around the objects whose values are computed with theirs


def coverage(prob: Tensor) -> Tensor:
    """How much of an object a cell holds at most: prob (O, H, W) of each pixel -> (O, 1, h, w).

    Stored as one more channel of the values, a readout of it says where the memory has seen the object.
    """
    return functional.max_pool2d(prob, STRIDE).unsqueeze(1)


def cells_near(covered: Tensor) -> Tensor:
    """The cells that may show an object, and those beside them: coverage that was read (O, h, w) -> bool."""
    return functional.max_pool2d((covered >= _SEEN).float(), 3, stride=1, padding=1) > 0


def encode_near(
    model: STCN, frame: Tensor, features: Features, prob: Tensor, total: Tensor | None = None
) -> Tensor:
    """`model.encode_value` of one frame in a rectangle around all its objects: (1, O, Cv, h, w).

    frame: (1, 3, H, W). prob: (1, O, H, W). total: (1, 1, H, W), the sum over all objects, whose rectangle it
    is. Outside, a cell has the mean value of the cells of the rectangle that show no object; where all of
    them show one the whole frame is encoded.
    """
    total = prob.sum(dim=1, keepdim=True) if total is None else total
    covered = coverage(total[0])[0] >= _SEEN  # (1, h, w)
    rows, columns = (covered[0].any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
    if not rows:
        return model.encode_value(frame, features, prob, total)
    height, width = covered.shape[1:]
    top, bottom = max(rows[0] - _MARGIN, 0), min(rows[-1] + 1 + _MARGIN, height)
    left, right = max(columns[0] - _MARGIN, 0), min(columns[-1] + 1 + _MARGIN, width)
    empty = ~covered[0, top:bottom, left:right]
    if (bottom - top, right - left) == (height, width) or not empty.any():
        return model.encode_value(frame, features, prob, total)
    cells = (..., slice(top, bottom), slice(left, right))
    pixels = (..., slice(STRIDE * top, STRIDE * bottom), slice(STRIDE * left, STRIDE * right))
    own = features._replace(f16=features.f16[cells])
    near = model.encode_value(frame[pixels], own, prob[pixels], total[pixels])[0]
    background = near[:, :, empty].mean(dim=2)  # (O, Cv)
    values = background[:, :, None, None].repeat(1, 1, height, width)
    values[cells] = near
    return values[None]
