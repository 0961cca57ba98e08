"""The decoder: from what the memory said to the logits of each object."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from emavos.models.blocks import ResBlock, UpBlock
from emavos.models.encoders import Features


class Decoder(nn.Module):
    """Readout and context at stride 16, up with skips at strides 8 and 4, one logit a pixel.

    skip_channels: of the trunk at strides 4 and 8. channels: of the decoder at strides 16, 8 and 4.
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

    def forward(self, readout: Tensor, features: Features) -> Tensor:
        """readout: (B, O, Cv, h, w). Returns logits (B, O, 16 h, 16 w)."""
        batch, objects = readout.shape[:2]
        x = self.compress(readout.flatten(0, 1), features.context)
        x = self.up8(x, features.f8)
        x = self.up4(x, features.f4)
        logits = self.pred(x.relu())
        logits = functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        return logits.view(batch, objects, *logits.shape[-2:])
