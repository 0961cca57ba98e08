"""A network whose key encoder is machine code of its own: made by `torch.compile`, with packed weights."""

from __future__ import annotations

import copy
from typing import Any

import torch

from emavos.models.stcn import STCN


def compiled(network: STCN) -> STCN:
    """A network that gives what `network` gives, to rounding, and whose key encoder is compiled.

    It is compiled for each size of frame, within the first call without gradients, which waits; part of what
    torch makes is kept in the folder that the environment variable TORCHINDUCTOR_CACHE_DIR names (otherwise a
    temporary one), for processes to come. From the ninth size on in a process, those of all such networks
    counted, the encoder runs as it is. Weights are packed, and held twice, as they are at that call: where
    they are changed later, compile anew. The copy is for inference alone; pickled or deeply copied it is
    `network` again.

    All else is of `network`. It depends on the number of objects, and each number would be compiled anew
    while a video waits, for less than the key encoder gains.

    Needs a C++ compiler on a CPU, and Triton on CUDA; without one the first call raises torch's RuntimeError.
    """
    encoder = copy.copy(network.key_encoder)
    call = torch.compile(encoder._call_impl, dynamic=False)

    def packed(*arguments: Any) -> Any:
        from torch._inductor import config

        with config.patch(
            freezing=True
        ):  # read while it is traced too, which torch.compile's options are not
            return call(*arguments)

    encoder._compiled_call_impl = packed  # as nn.Module.compile sets it
    network = copy.copy(network)
    network._modules = network._modules | {"key_encoder": encoder}
    return network


def is_compiled(network: STCN) -> bool:
    """Whether this is what `compiled` returned."""
    return network.key_encoder._compiled_call_impl is not None
