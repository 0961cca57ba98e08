"""The decoder: from the memory readout to the logits of each object."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from emavos.models.blocks import ResBlock, UpBlock
from emavos.models.encoders import Features
from emavos.models.tiles import Tile, tiles_over

# Margins around a tile, in pixels of stride 8, so that the logits inside the tile are exact. At a cut, each
# convolution and each bilinear step spoils one pixel: its neighbour is missing. From stride 4 on, five
# pixels are spoilt (upsampling, two convolutions of the block, `pred`, the last upsampling), which is three
# pixels of stride 8. Stride 8 itself spoils three more.
_HALO4, _HALO8 = 3, 6


class Decoder(nn.Module):
    """Decodes readout and context at stride 16, with skips at strides 8 and 4, to one logit per pixel.

    in_channels: channels of readout and context together.
    skip_channels: channels of the key trunk at strides 4 and 8.
    channels: channels of the decoder at strides 16, 8 and 4.
    skip_kernel: kernel size of the skip convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: tuple[int, int],
        channels: tuple[int, int, int],
        skip_kernel: int = 3,
    ) -> None:
        super().__init__()
        c16, c8, c4 = channels
        self.compress = ResBlock(in_channels, c16, skip_kernel)
        self.up8 = UpBlock(skip_channels[1], c16, c8, skip_kernel)
        self.up4 = UpBlock(skip_channels[0], c8, c4, skip_kernel)
        self.pred = nn.Conv2d(c4, 1, 3, padding=1)

    def forward(self, readout: Tensor, features: Features, cells: Tensor | None = None) -> Tensor:
        """Logits (B, O, 16 h, 16 w).

        readout: (B, O, Cv, h, w).
        features: key encoder features of the same frames.
        cells: bool (B, O, h, w), the cells to decode. Logits are computed in rectangles that cover these
            cells, and are minus infinity (a probability of zero) elsewhere. None decodes all cells.
        """
        batch, objects = readout.shape[:2]
        if cells is None:
            x = self.compress(readout.flatten(0, 1), features.context)
            logits = self._finish(self.up8(x, features.f8), features.f4)
            return logits.view(batch, objects, *logits.shape[-2:])
        height, width = readout.shape[3:]
        logits = readout.new_full((batch, objects, 16 * height, 16 * width), -torch.inf)
        near = cells.cpu().numpy()
        for frame in range(batch):
            of_frame = Features(*(x[frame : frame + 1] for x in features))
            shown = [i for i in range(objects) if near[frame, i].any()]
            if not shown:
                continue
            x = self.compress(readout[frame, shown], of_frame.context)
            for place, i in enumerate(shown):
                for tile in tiles_over(near[frame, i]):
                    logits[frame, i][tile.scaled(16).index] = self._tile(x[place : place + 1], of_frame, tile)
        return logits

    def _tile(self, x: Tensor, features: Features, tile: Tile) -> Tensor:
        """Logits of one object in a rectangle of cells, from the object's map (1, C, h, w) at stride 16."""
        height, width = (2 * side for side in x.shape[2:])
        inside = tile.scaled(2)  # in pixels of stride 8, like `near` and `far`
        near, far = (inside.grown(halo, height, width) for halo in (_HALO4, _HALO8))
        cells = tile.grown(_HALO8 // 2, *x.shape[2:])
        x = self.up8(x[cells.index], features.f8[far.index])
        logits = self._finish(x[near.within(far).index], features.f4[near.scaled(2).index])
        return logits[inside.within(near).scaled(8).index][0, 0]

    def _finish(self, x: Tensor, f4: Tensor) -> Tensor:
        """From stride 8 to the logits of each pixel."""
        logits = self.pred(self.up4(x, f4).relu())
        return functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
