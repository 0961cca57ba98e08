"""The shortcuts of `emavos.settings.Shortcuts`: skip work far from the objects."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from emavos.models import STCN, STRIDE, Features

_SEEN = 0.05  # cells with at least this coverage may contain a part of an object
_MARGIN = 3  # cells around the objects that are encoded too


def coverage(prob: Tensor) -> Tensor:
    """The largest probability of an object in each cell: prob (O, H, W) -> (O, 1, h, w).

    Coverage is stored as one more channel of the values. Its readout shows where the memory has seen the
    object.
    """
    return functional.max_pool2d(prob, STRIDE).unsqueeze(1)


def cells_near(covered: Tensor) -> Tensor:
    """The cells that may show an object, and their neighbours, from coverage: (O, h, w) -> bool."""
    return functional.max_pool2d((covered >= _SEEN).float(), 3, stride=1, padding=1) > 0


def encode_near(
    model: STCN, frame: Tensor, features: Features, prob: Tensor, total: Tensor | None = None
) -> Tensor:
    """`model.encode_value` of one frame in a rectangle around all objects: (1, O, Cv, h, w).

    Cells outside the rectangle get the mean value of the cells inside the rectangle that show no object. If
    all of the cells show an object, the whole frame is encoded.

    frame: (1, 3, H, W).
    features: of the frame.
    prob: (1, O, H, W).
    total: (1, 1, H, W), the sum of prob over all objects. Needed only if `prob` has some of the objects.
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
    cropped = features._replace(f16=features.f16[cells])
    near = model.encode_value(frame[pixels], cropped, prob[pixels], total[pixels])[0]
    background = near[:, :, empty].mean(dim=2)  # (O, Cv)
    values = background[:, :, None, None].repeat(1, 1, height, width)
    values[cells] = near
    return values[None]
