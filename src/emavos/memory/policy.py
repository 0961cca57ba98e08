"""What a memory bank keeps, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from emavos.memory.readout import Backend


@dataclass(frozen=True)
class MemoryPolicy:
    """When a frame becomes memory, how many may, and how many cells a readout takes.

    The defaults are STCN's for DAVIS, but bounded: a stream of any length runs in flat memory.
    """

    every: int = 5  # a frame is kept each time this many have passed since the last that was stored
    include_last: bool = False  # also read the previous frame, which is dropped at the next addition
    top_k: int = 20  # memory cells that count for each query cell
    max_frames: int | None = 32  # frames held; None: no bound. Given ones never go: where they fill the bank,
    # one kept frame is held beside them. The previous frame (include_last) is one more.
    backend: Backend = "auto"  # of topk_readout

    def __post_init__(self) -> None:
        for name in ("every", "top_k", "max_frames"):
            value = getattr(self, name)
            if name == "max_frames" and value is None:
                continue
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is a whole number of at least 1, not {value!r}")
        if type(self.include_last) is not bool:
            raise ValueError(f"include_last is True or False, not {self.include_last!r}")
        if self.backend not in get_args(Backend):
            raise ValueError(f"backend is one of {', '.join(get_args(Backend))}, not {self.backend!r}")
