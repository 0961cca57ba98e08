"""What a memory bank keeps, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from emavos.memory.readout import Backend

Eviction = Literal["oldest", "least-used", "consolidate"]


@dataclass(frozen=True)
class MemoryPolicy:
    """When a frame becomes memory, how many may, which goes, and how many cells a readout takes.

    The defaults are STCN's for DAVIS, but bounded: a stream of any length runs in flat memory. The bound is
    the smallest of those measured that lost nothing on long videos (docs/long-videos.md).
    """

    every: int = 5  # a frame is kept each time this many have passed since the last that began an object or
    # was kept; corrections come beside these and delay none
    include_last: bool = False  # also read the previous frame, which is dropped at the next addition
    top_k: int = 20  # memory cells that count for each query cell
    max_frames: int | None = 16  # frames held; None: no bound. Given ones never go: where they fill the bank,
    # one kept frame is held beside them. The previous frame (include_last) is one more.
    max_cells: int | None = None  # the same in cells, of which a frame has h * w: as many frames as fit, at
    # least one. The time of a readout of a cell is then bounded whatever the size. The lower bound counts.
    eviction: Eviction = "least-used"  # which kept frame goes when the bank is full: the one that received
    # the least weight in readouts per frame of time, or the "oldest"; "consolidate": the oldest, but its most
    # used cells stay as prototypes, which together take the room of one frame
    backend: Backend = "auto"  # of topk_readout

    def __post_init__(self) -> None:
        for name in ("every", "top_k", "max_frames", "max_cells"):
            value = getattr(self, name)
            if name.startswith("max_") and value is None:
                continue
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is a whole number of at least 1, not {value!r}")
        if type(self.include_last) is not bool:
            raise ValueError(f"include_last is True or False, not {self.include_last!r}")
        for name, allowed in (("eviction", get_args(Eviction)), ("backend", get_args(Backend))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}")

    @property
    def bounded(self) -> bool:
        """Whether anything is ever evicted."""
        return self.max_frames is not None or self.max_cells is not None

    def frames(self, cells: int) -> int | None:
        """Frames of so many cells that are held; None: no bound."""
        bounds = [] if self.max_frames is None else [self.max_frames]
        if self.max_cells is not None:
            bounds.append(max(self.max_cells // cells, 1))
        return min(bounds, default=None)


def check_policy(policy: object) -> None:
    """Raise ValueError unless it is a `MemoryPolicy`, or None."""
    if not isinstance(policy, MemoryPolicy | None):
        raise ValueError(f"policy is a MemoryPolicy, as MemoryPolicy(every=5), not {policy!r:.60}")
