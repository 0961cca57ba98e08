"""The space-time memory: what is kept of a video, and how it is read."""

from emavos.memory.bank import Eviction, Kind, MemoryBank, MemoryPolicy
from emavos.memory.readout import full_affinity, full_readout, topk_readout, weighted_values

__all__ = [
    "Eviction",
    "Kind",
    "MemoryBank",
    "MemoryPolicy",
    "full_affinity",
    "full_readout",
    "topk_readout",
    "weighted_values",
]
