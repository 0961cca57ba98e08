"""The space-time memory: what is kept of a video, and how it is read."""

from emavos.memory.bank import Kind, MemoryBank
from emavos.memory.policy import Eviction, MemoryPolicy
from emavos.memory.readout import full_readout, topk_readout

__all__ = ["Eviction", "Kind", "MemoryBank", "MemoryPolicy", "full_readout", "topk_readout"]
