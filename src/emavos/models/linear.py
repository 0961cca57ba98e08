"""Linear layers by oneDNN, which multiplies float32 matrices twice as fast as MKL on processors of AMD."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """nn.Linear, by `product` in single precision on a CPU if no gradient is needed."""

    def forward(self, x: Tensor) -> Tensor:
        single = x.dtype == self.weight.dtype == torch.float32
        if single and plain_inference(x) and not torch.is_autocast_enabled("cpu"):
            return product(x, self.weight, self.bias)
        return super().forward(x)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """functional.linear without a gradient: (..., C), (D, C), (D,) -> (..., D), on a CPU.

    torch multiplies with MKL. In both, the bits of a row do not depend on the number of rows.
    """
    if _HAS_ONEDNN:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight.contiguous(), bias, "none", [], "")
        return y
    return functional.linear(x, weight, bias)


def plain_inference(x: Tensor) -> bool:
    """Whether x is on a CPU and neither gradients, a compiler nor an exporter need plain torch functions."""
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_dynamo_compiling()  # in this thread; another thread may be compiling
        and not _is_exporting()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    )


def _is_exporting() -> bool:
    ask = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # since torch 2.7
    return bool(ask())
