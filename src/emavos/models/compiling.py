"""A network whose key encoder is machine code of its own: made by `torch.compile`, with packed weights."""

from __future__ import annotations

import copy

from emavos.models.stcn import STCN


def compiled(network: STCN) -> STCN:
    """A network that gives what `network` gives, to rounding, and whose key encoder is compiled.

    It is compiled for each size of frame, within the first call without gradients, which waits; torch keeps
    what it made in the folder that the environment variable TORCHINDUCTOR_CACHE_DIR names, for processes to
    come. From the ninth size on the encoder runs as it is. Weights are packed, as they are at that call: what
    happens to them later may not reach the copy, which is for inference alone.

    All else is of `network`. It depends on the number of objects, and each number would be compiled anew
    while a video waits, for less than the key encoder gains.

    Needs a C++ compiler on a CPU, and Triton on CUDA; without one the first call raises torch's RuntimeError.
    """
    encoder = copy.copy(network.key_encoder)
    encoder.compile(dynamic=False, options={"freezing": True})
    network = copy.copy(network)
    network._modules = network._modules | {"key_encoder": encoder}
    return network
