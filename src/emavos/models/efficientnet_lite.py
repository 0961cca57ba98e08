"""EfficientNet-Lite0 (Tan and Le, ICML 2019, without squeeze-excitation) up to stride 16."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emavos.models.convolution import convolve

# Input channels, output channels, expansion, kernel and stride of each block. Stride 32 is omitted.
_BLOCKS = (
    (32, 16, 1, 3, 1),
    (16, 24, 6, 3, 2),
    (24, 24, 6, 3, 1),
    (24, 40, 6, 5, 2),
    (40, 40, 6, 5, 1),
    (40, 80, 6, 3, 2),
    (80, 80, 6, 3, 1),
    (80, 80, 6, 3, 1),
    (80, 112, 6, 5, 1),
    (112, 112, 6, 5, 1),
    (112, 112, 6, 5, 1),
)
# Bytes. Larger maps are computed in strips. The C library returns blocks above 32 MB to the system each time
# they are freed, and zeroing new blocks took twice as long as the convolutions: a block at stride 2 of a
# frame of 480x864 took 19 ms whole and 7 ms in strips.
_LARGE = 24 << 20

_OUT4, _OUT8 = 2, 4  # the last blocks at strides 4 and 8
_FIRST = 2  # blocks that stay in single precision, like the stem, if the others use half


class EfficientNetLiteTrunk(nn.Module):
    """Lite0 without its last stage: feature maps at strides 4, 8 and 16.

    Padding is symmetric, although the ImageNet weights were trained with one more pixel on the right and
    below. The result equals the original network on a picture shifted by 15 pixels. Away from the border
    nothing changes, and cell i is centred on pixel 16 i, as the decoder's bilinear upsampling expects.
    """

    channels = (24, 40, 112)

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = ConvNorm(in_channels, 32, 3, 2, relu=True)
        self.blocks = nn.ModuleList(MBConv(*block) for block in _BLOCKS)

    def fold(self, dtype: torch.dtype) -> None:
        """Fold frozen batch norms into their convolutions and compute in `dtype`. You cannot undo this.

        If `dtype` is a half precision, the stem and the first two blocks keep their dtype: they cause most of
        the error of an all-bfloat16 trunk and take little of its time.
        """
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()
        if dtype.itemsize < 4:
            self.blocks[_FIRST:].to(dtype)
        else:
            self.to(dtype)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, in_channels, H, W) -> features at strides 4, 8, 16."""
        x = self.stem(x)
        for block in self.blocks[:_FIRST]:
            x = block(x)
        x = x.to(next(self.blocks[_FIRST].parameters()).dtype)  # a folded trunk has another dtype
        for block in self.blocks[_FIRST : _OUT4 + 1]:
            x = block(x)
        f4 = x
        for block in self.blocks[_OUT4 + 1 : _OUT8 + 1]:
            x = block(x)
        f8 = x
        for block in self.blocks[_OUT8 + 1 :]:
            x = block(x)
        return f4, f8, x


class MBConv(nn.Module):
    """Expand, depthwise convolution, project; plus the input if the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = ConvNorm(in_channels, hidden, 1, relu=True) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(hidden, hidden, kernel, stride, groups=hidden, relu=True)
        self.project = ConvNorm(hidden, out_channels, 1)
        self.residual = in_channels == out_channels and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.numel() * x.element_size() * self.depthwise.conv.in_channels // x.shape[1]
        if not torch.is_grad_enabled() and x.device.type == "cpu" and hidden > _LARGE:
            out = self._in_strips(x, strips=math.ceil(2 * hidden / _LARGE))
        else:
            out = self._whole(x)
        return x + out if self.residual else out

    def _whole(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return out

    def _in_strips(self, x: Tensor, strips: int) -> Tensor:
        """Same as `_whole`, a few rows at a time, so the expanded map is never whole in memory."""
        stride, reach = self.depthwise.conv.stride[0], self.depthwise.conv.kernel_size[0] // 2
        rows = math.ceil(x.shape[2] / stride)  # of the output
        margin = math.ceil(reach / stride)  # output rows spoilt by the padding at the edge of a strip
        step = math.ceil(rows / strips)
        parts = []
        for first in range(0, rows, step):
            last = min(first + step, rows)
            top, bottom = max(first - margin, 0), min(last + margin, rows)
            part = self._whole(x[:, :, top * stride : bottom * stride])
            parts.append(part[:, :, first - top : last - top])
        return torch.cat(parts, dim=2)


class ConvNorm(nn.Module):
    """Convolution and batch norm computed as one convolution, then an optional ReLU6.

    Batch norm is frozen, so batch norm only scales and shifts the output of the convolution. Scaling the
    weights instead is the same function with the same gradients, and saves passes over the largest maps.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        relu: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.norm: nn.BatchNorm2d | None = nn.BatchNorm2d(out_channels, eps=1e-3)
        self.relu = relu

    def fold(self) -> None:
        """Replace weights and batch norm by the scaled weights. You cannot undo this."""
        weight, bias = self._scaled()
        self.conv.weight, self.norm = nn.Parameter(weight.detach()), None
        self.conv.bias = nn.Parameter(bias.detach())

    def _scaled(self) -> tuple[Tensor, Tensor]:
        norm, conv = self.norm, self.conv
        if norm is None:
            assert conv.bias is not None
            return conv.weight, conv.bias
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return conv.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        weight, bias = self._scaled()
        if (
            conv.groups > 1
            and x.dtype == torch.bfloat16
            and x.device.type == "cpu"
            and torch.is_grad_enabled()
        ):
            x = _Depthwise.apply(x, weight.to(x.dtype), bias.to(x.dtype), conv.stride, conv.padding)
        elif conv.groups > 1:
            x = functional.conv2d(x, weight, bias, conv.stride, conv.padding, groups=conv.groups)
        else:
            x = convolve(x, weight, bias, conv.stride[0], conv.kernel_size[0] // 2)
        return functional.relu6(x, inplace=True) if self.relu else x


class _Depthwise(torch.autograd.Function):
    """A bfloat16 depthwise convolution with gradients computed in float32.

    On a CPU, bfloat16 gradients take up to six times as long (for strided and 5x5 kernels) and are no better.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight, bias, stride, padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        channels = x.shape[1]
        grads = torch.ops.aten.convolution_backward(
            grad.float(),
            x.float(),
            weight.float(),
            [channels],
            ctx.stride,
            ctx.padding,
            [1, 1],
            False,
            [0, 0],
            channels,
            [True, True, True],
        )
        return *(g.to(x.dtype) for g in grads), None, None
