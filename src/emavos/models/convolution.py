"""Convolutions, each computed in the fastest way that gives an object the same bits among any others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from emavos.models.linear import plain_inference, product
from emavos.models.winograd import pays, winograd

_FEWEST_CELLS = 16  # of a map: oneDNN rounds the product of a single row in another way


class Conv2d(nn.Conv2d):
    """nn.Conv2d with zero padding that keeps the size, and without groups, computed by `convolve`."""

    def forward(self, x: Tensor) -> Tensor:
        return self.with_weight(x, self.weight, self.bias)

    def with_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """This convolution with another weight, for example a slice of its channels."""
        return convolve(x, weight, bias, self.stride[0], self.kernel_size[0] // 2)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 1) -> Tensor:
    """functional.conv2d, by Winograd's method or as a product if this is faster and no gradient is needed.

    All agree to the rounding of single precision: about 4e-6 of the largest output.
    """
    if stride == 1 and _is_single(x, weight):
        kernel = tuple(weight.shape[2:])
        if kernel == (3, 3) and padding == 1 and pays(x, weight):
            return winograd(x, weight, bias)
        if kernel == (1, 1) and padding == 0 and _is_slow_in_torch(x):
            return pointwise(x, weight, bias)
    return functional.conv2d(x, weight, bias, stride, padding)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """functional.conv2d, without a gradient: (B, C, h, w), (D, C, 1, 1) -> (B, D, h, w), channels last."""
    return product(x.permute(0, 2, 3, 1), weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)


def _is_single(x: Tensor, weight: Tensor) -> bool:
    return (
        plain_inference(x)
        and not torch.is_autocast_enabled("cpu")
        and x.dtype == weight.dtype == torch.float32
        and len(x) > 0
    )


def _is_slow_in_torch(x: Tensor) -> bool:
    """Whether torch convolves with kernels of 1x1 by its own code instead of oneDNN's."""
    large = x.shape[2] * x.shape[3] >= _FEWEST_CELLS
    return large and torch.get_num_threads() == 1 and x.is_contiguous(memory_format=torch.channels_last)
