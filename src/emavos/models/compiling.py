"""Compile the key encoder to machine code with `torch.compile`, with packed weights."""

from __future__ import annotations

import copy
from typing import Any

import torch

from emavos.models.stcn import STCN


def compiled(network: STCN) -> STCN:
    """A copy of `network` with a compiled key encoder. Results agree to rounding.

    The key encoder is compiled once per frame size, during the first call without gradients, and the call
    waits for the compiler. Torch caches part of the result for later processes in the folder named by the
    environment variable TORCHINDUCTOR_CACHE_DIR (otherwise in a temporary folder). From the ninth frame size
    in a process on, counted over all compiled networks, the encoder runs uncompiled.

    Compiling packs a second copy of the weights. If you change the weights later, call `compiled` again. The
    copy is for inference only. Pickling or deep-copying the copy returns a plain, uncompiled network.

    Everything else runs uncompiled: the decoder depends on the number of objects, and compiling for each
    number would make the video wait for less gain than in the key encoder.

    Needs a C++ compiler on a CPU, and Triton on CUDA. Without one, the first call raises torch's
    RuntimeError.
    """
    encoder = copy.copy(network.key_encoder)
    call = torch.compile(encoder._call_impl, dynamic=False)

    def packed(*arguments: Any) -> Any:
        from torch._inductor import config

        with config.patch(freezing=True):  # also read during tracing; the options of torch.compile are not
            return call(*arguments)

    encoder._compiled_call_impl = packed  # as nn.Module.compile sets it
    network = copy.copy(network)
    network._modules = network._modules | {"key_encoder": encoder}
    return network


def is_compiled(network: STCN) -> bool:
    """Whether `network` was returned by `compiled`."""
    return network.key_encoder._compiled_call_impl is not None
