"""Weights for tests: every tensor of a state dict, made from its key and shape alone.

The recipe of the reference outputs beside this file: a generator seeded with the CRC of "<salt>:<key>",
scaled by what kind of tensor it is, so that the untrained network gives masks that are not trivial.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

GAIN = {
    "key_proj.key_proj.weight": 0.18,
    "key_comp.weight": 0.5,
    "decoder.up_16_8.skip_conv.weight": 0.5,
    "decoder.up_8_4.skip_conv.weight": 0.5,
    "decoder.pred.weight": 0.1,
}
BIAS = {"decoder.pred.bias": -1.6}
MASK_GAIN = 20.0  # on the channels of the value encoder's first convolution that see masks


def fill_tensor(key: str, shape: tuple[int, ...], salt: str = "parity-v1") -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{salt}:{key}".encode()))
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_mean"):
        filled = 0.1 * torch.randn(shape, generator=generator)
    elif key.endswith("running_var"):
        filled = 0.5 + torch.rand(shape, generator=generator)
    elif len(shape) >= 2:
        filled = torch.randn(shape, generator=generator) * math.sqrt(2 / math.prod(shape[1:]))
    elif key.endswith(".bias"):
        filled = 0.05 * torch.randn(shape, generator=generator)
    else:
        filled = 0.5 + 0.5 * torch.rand(shape, generator=generator)
    filled = filled * GAIN.get(key, 1.0) + BIAS.get(key, 0.0)
    if key == "value_encoder.conv1.weight":
        filled[:, 3:] *= MASK_GAIN
    return filled


def fill_state_dict(shapes: Mapping[str, tuple[int, ...]], salt: str = "parity-v1") -> dict[str, Tensor]:
    return {key: fill_tensor(key, tuple(shape), salt) for key, shape in sorted(shapes.items())}
