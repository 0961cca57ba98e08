"""3x3 convolutions by the minimal filtering of Winograd, F(4x4, 3x3) (Lavin and Gray, CVPR 2016).

A tile of 4x4 outputs takes 36 products instead of the 144 of a direct convolution. The transforms before and
after are passes over memory, so the method pays if both sides have many channels and the map is not small.
"""

from __future__ import annotations

import torch
from torch import Tensor

from emavos.models.linear import product

_CHANNELS = 256  # input and output channels, at least
_TILES = 64  # tiles of 4x4 outputs, at least
_BLOCK = 30 << 20  # bytes of transformed tiles at a time; the C library returns larger blocks to the system

# The polynomials are evaluated at 0, ±1/√2, ±√2 and infinity. With the usual 0, ±1, ±2 the rounding error
# is five times as large.
_A, _B = 0.5, 2.0  # the squares of the points; their product is 1
_POINTS = (_A**0.5, -(_A**0.5), _B**0.5, -(_B**0.5))


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether `winograd` is faster than a direct convolution for x (B, C, h, w), weight (D, C, 3, 3)."""
    tiles = len(x) * -(-x.shape[2] // 4) * -(-x.shape[3] // 4)
    return min(weight.shape[:2]) >= _CHANNELS and tiles >= _TILES


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """functional.conv2d(x, weight, bias, padding=1) without a gradient: (B, D, h, w), channels last.

    x: (B, C, h, w).
    weight: (D, C, 3, 3).
    """
    (batch, channels, height, width), out_channels = x.shape, weight.shape[0]
    down, across = -(-height // 4), -(-width // 4)  # tiles
    row = (4 * across + 2) * channels  # values in a row of pixels
    padded = _padded(x, down, across)
    filters = weight.permute(0, 2, 3, 1).reshape(out_channels, 9, channels)  # the order in memory
    out = x.new_empty(batch * down, 4, across, 4, out_channels)

    tile_rows = _BLOCK // (36 * 4 * across * max(channels, out_channels)) or 1
    blocks = -(-batch * down // tile_rows)
    tile_rows = -(-batch * down // blocks)  # blocks of equal size
    tiles = tile_rows * across
    rows = x.new_empty(tile_rows * 6 * row)
    turned = x.new_empty(36 * tiles * channels)
    products = x.new_empty(36 * tiles * out_channels)
    spare = x.new_empty(max(6 * tiles * channels, 24 * tiles * out_channels))
    filter_column = x.new_empty(out_channels, 6, channels)
    to_rows, to_tiles, from_filters = (matrix.to(x.dtype) for matrix in (_INPUT, _OUTPUT, _FILTER))

    for first in range(0, batch * down, tile_rows):
        last = min(first + tile_rows, batch * down)
        n = last - first
        tiles = n * across
        y = rows[: n * 6 * row].view(n, 6, row)
        _turn_rows(padded, first, to_rows, y)
        z = turned[: 36 * tiles * channels].view(6, 6, n, across, channels)  # columns and rows of a tile, ...
        columns = y.view(n, 6, -1, channels).transpose(0, 1)
        _turn(columns, z, spare[: 6 * tiles * channels].view(z.shape[1:]))
        m = products[: 36 * tiles * out_channels].view(6, 6, tiles, out_channels)
        for column in range(6):
            torch.bmm(from_filters[column].expand(out_channels, 6, 9), filters, out=filter_column)
            for place in range(6):
                m[column, place] = product(z[column, place].view(tiles, channels), filter_column[:, place])
        half = spare[: 24 * tiles * out_channels].view(6, 4, tiles * out_channels)
        torch.bmm(to_tiles.expand(6, 4, 6), m.view(6, 6, -1), out=half)
        whole = products[: 16 * tiles * out_channels].view(4, 4 * tiles * out_channels)
        torch.mm(to_tiles, half.view(6, -1), out=whole)
        done = whole.view(4, 4, n, across, out_channels).permute(2, 1, 3, 0, 4)
        if bias is None:
            out[first:last].copy_(done)
        else:
            torch.add(done, bias, out=out[first:last])
    out = out.view(batch, 4 * down, 4 * across, out_channels)
    return out[:, :height, :width].permute(0, 3, 1, 2)


def _padded(x: Tensor, down: int, across: int) -> Tensor:
    """x (B, C, h, w) in whole tiles with zeros around: (B, 4 down + 2, 4 across + 2, C)."""
    batch, channels, height, width = x.shape
    padded = x.new_empty(batch, 4 * down + 2, 4 * across + 2, channels)
    padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
    for border in (padded[:, :1], padded[:, height + 1 :], padded[:, :, :1], padded[:, :, width + 1 :]):
        border.zero_()
    return padded


def _turn_rows(padded: Tensor, first: int, to_rows: Tensor, out: Tensor) -> None:
    """Apply _INPUT along the rows of n rows of tiles, counted over all images from `first` on.

    padded: (B, 4 down + 2, 4 across + 2, C).
    to_rows: (6, 6), _INPUT in the dtype of `padded`.
    out: (n, 6, (4 across + 2) C).
    """
    down, row, last = (padded.shape[1] - 2) // 4, out.shape[2], first + len(out)
    for image in range(first // down, (last - 1) // down + 1):  # tiles overlap by two rows of pixels
        begin, end = max(first, image * down), min(last, (image + 1) * down)
        start = ((begin - image * down) * 4 + image * (4 * down + 2)) * row
        strips = padded.as_strided((end - begin, 6, row), (4 * row, row, 1), start)
        torch.bmm(to_rows.expand(end - begin, 6, 6), strips, out=out[begin - first : end - first])


def _turn(x: Tensor, out: Tensor, spare: Tensor) -> None:
    """Apply _INPUT along the columns of the tiles. x: (6, n, 4 across + 2, C). out: (6, 6, n, across, C)."""
    across = out.shape[3]
    d = [x[:, :, i : i + 4 * across - 3 : 4] for i in range(6)]
    for place, point, other in ((1, _POINTS[0], _B), (3, _POINTS[2], _A)):
        torch.sub(d[4], d[2], alpha=other, out=out[place])
        torch.sub(d[3], d[1], alpha=other, out=spare)
        torch.sub(out[place], spare, alpha=point, out=out[place + 1])
        out[place].add_(spare, alpha=point)
    for place, (low, middle, high) in ((0, d[0::2]), (5, d[1::2])):
        torch.sub(high, middle, alpha=_A + _B, out=out[place]).add_(low)


def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """Input (6, 6), output (4, 6) and filter (6, 6, 9) transforms."""
    points = torch.tensor(_POINTS, dtype=torch.float64)
    a, b = _A, _B
    rows = [[1, 0, -a - b, 0, 1, 0]]
    rows += [[0, -p * c, -c, p, 1, 0] for p, c in zip(_POINTS, (b, b, a, a), strict=True)]
    rows += [[0, 1, 0, -a - b, 0, 1]]
    powers = torch.stack([points**i for i in range(4)])  # (4, 4)
    outputs = torch.zeros(4, 6, dtype=torch.float64)
    outputs[0, 0] = outputs[3, 5] = 1
    outputs[:, 1:5] = powers
    weights = torch.zeros(6, 3, dtype=torch.float64)
    weights[0, 0] = weights[5, 2] = 1
    for i, point in enumerate(points):
        others = torch.cat([points[:i], points[i + 1 :], points.new_zeros(1)])
        weights[i + 1] = powers[:3, i] / (point - others).prod()
    filters = torch.einsum("ca,rb->crba", weights, weights).reshape(6, 6, 9)
    return torch.tensor(rows, dtype=torch.float64), outputs, filters


_INPUT, _OUTPUT, _FILTER = _matrices()
