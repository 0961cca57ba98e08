"""Cost of a model: its parameters, and GFLOP per frame."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from emavos.frames.preprocess import pad_to_stride
from emavos.memory import MemoryBank, MemoryPolicy
from emavos.models import STCN, STCNConfig


@torch.no_grad()
def gflop(
    config: STCNConfig, height: int = 480, width: int = 854, objects: int = 1, memory_frames: int = 10
) -> dict[str, float]:
    """GFLOP of each stage and of a whole frame (a multiplication and an addition count as two operations).

    A frame is a key, a readout, a decoding and a fifth of a value, because one frame in five is stored. Only
    the operations that torch's counter knows are counted: convolutions and matrix products. Nothing is
    computed, so a convolution has the same count on every machine.

    config: of the model.
    height, width: of the frame, in pixels.
    objects: number of objects.
    memory_frames: frames in the memory.
    """
    policy = MemoryPolicy(max_frames=memory_frames)
    with torch.device("meta"):
        model = STCN(config).eval()
        frame, _ = pad_to_stride(torch.zeros(1, 3, height, width))
        prob = torch.zeros(1, objects, *frame.shape[2:])
    counts = {}
    with FlopCounterMode(display=False) as counter:
        features = model.encode_key(frame)
    counts["encode_key"] = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        values = model.encode_value(frame, features, prob)[0]
    counts["encode_value"] = counter.get_total_flops()
    bank = MemoryBank(policy)
    key, value = (torch.zeros(x.shape) for x in (features.key[0], values))
    for _ in range(memory_frames):
        bank.add(key, value)
    with FlopCounterMode(display=False) as counter:
        bank.read(key)
    counts["read"] = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        model.decode(values[None], features)  # a readout has the shape of values
    counts["decode"] = counter.get_total_flops()
    counts["frame"] = counts["encode_key"] + counts["read"] + counts["decode"]
    counts["frame"] += counts["encode_value"] / policy.every
    return {name: count / 1e9 for name, count in counts.items()}


def parameters(model: STCN) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
