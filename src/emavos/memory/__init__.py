"""The space-time memory: stores frames of a video, and reads them by affinity."""

from emavos.memory.bank import Eviction, Kind, MemoryBank, MemoryPolicy
from emavos.memory.native_readout import prepare
from emavos.memory.readout import (
    choose_backend,
    full_affinity,
    full_readout,
    topk_readout,
    weighted_values,
)

__all__ = [
    "Eviction",
    "Kind",
    "MemoryBank",
    "MemoryPolicy",
    "choose_backend",
    "full_affinity",
    "full_readout",
    "prepare",
    "topk_readout",
    "weighted_values",
]
