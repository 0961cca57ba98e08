"""The space-time memory of the objects that were introduced together, and the policy that bounds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from emavos.memory.prototypes import Prototypes, consolidate, merge
from emavos.memory.readout import Backend, squared_norms, topk_readout

Kind = Literal["given", "kept", "temporary"]
Eviction = Literal["oldest", "least-used", "consolidate"]

_SHARE = 16  # one cell in so many of an evicted frame becomes a prototype


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


@dataclass(frozen=True)
class _Slot:
    kind: Kind
    frame: int  # its index in the video


@dataclass(frozen=True, eq=False)
class Mark:
    """What a bank held when it was marked."""

    slots: list[_Slot]
    cells: tuple[Tensor, Tensor, Tensor]  # the buffers of keys, norms and values, which may be in use still
    received: Tensor
    last: tuple[int, Tensor] | None
    prototype_frames: Tensor
    replaced: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # by buffer and slot, since then


class MemoryBank:
    """Keys and values of memory frames, read by affinity.

    A frame takes one slot of h * w cells. Slots are *given* (annotated: never evicted), *kept* (every few
    frames: one goes when the bank is full, the policy says which) or *temporary* (the previous frame: gone at
    the next addition). Cells are rows of one buffer that doubles as it fills, up to the bound of the policy,
    so an addition copies its own cells and no others, and a readout gathers whole rows.

    Where evicted frames leave prototypes, the first slot of the buffer is theirs. It is filled from its end,
    so that what is read is one run of rows.

    All frames of a bank have one size, and all its objects have a value at every key.
    """

    def __init__(self, policy: MemoryPolicy | None = None) -> None:
        self.policy = MemoryPolicy() if policy is None else policy
        self._slots: list[_Slot] = []
        self._keys = torch.empty(0)  # (capacity, h * w, Ck)
        self._norms = torch.empty(0)  # (capacity, h * w), |k|^2
        self._values = torch.empty(0)  # (capacity, h * w, O, Cv)
        self._received = torch.empty(0)  # (capacity, h * w), readout weight since the frame came
        self._last: tuple[int, Tensor] | None = None  # who read last, and what each cell got: (N,)
        self._counts = self.policy.bounded and self.policy.eviction != "oldest"
        self._base = int(self.policy.bounded and self.policy.eviction == "consolidate")  # slots of prototypes
        self._prototype_frames = torch.empty(0, dtype=torch.long)  # the frame that each prototype is of
        self._marks: list[Mark] = []

    def __len__(self) -> int:
        """Frames held; prototypes are none."""
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, the room for frames to come included."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def add(self, key: Tensor, values: Tensor, kind: Kind = "kept", frame: int | None = None) -> None:
        """Store a frame, in place of what is held of it already.

        key: (Ck, h, w). values: (O, Cv, h, w). frame: its index in the video; None: one more than the latest.
        """
        self.adding(key, values, kind, frame)()

    def adding(
        self,
        key: Tensor,
        values: Tensor,
        kind: Kind = "kept",
        frame: int | None = None,
        now: int | None = None,
    ) -> Callable[[], None]:
        """First half of `add`: does every allocation, and returns a callable that commits and cannot fail.

        now: the index of the video's next frame, where the one that is stored is of another time. A temporary
        frame is still the previous one then, and stays.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"kind is one of {', '.join(get_args(Kind))}, not {kind!r}")
        if frame is None:
            frame = max((slot.frame for slot in self._slots), default=-1) + 1
        if self.was_given(frame):
            kind = "given"  # what was given once stays so, whatever is said of the frame later
        passed = [slot.kind == "temporary" and now is None for slot in self._slots]
        wrong = [gone or slot.frame == frame for gone, slot in zip(passed, self._slots, strict=True)]
        left = [place for place, drop in enumerate(wrong) if not drop]
        keys = key.flatten(1).T  # (h * w, Ck)
        norms = squared_norms(keys)
        rows = values.flatten(2).permute(2, 0, 1)  # (h * w, O, Cv)
        bound = self._bound(len(keys))
        time = frame if now is None else now
        goes = None if kind == "temporary" else self._goes(left, bound, time)
        prototypes = None if goes is None or not self._base else self._consolidated(goes, time)
        place = len(left) if goes is None else left.index(goes)
        self._reserve(place + 1, bound, keys, rows)

        def commit() -> None:
            self._drop(wrong)
            if prototypes is not None:
                self._put(prototypes)
            slot = self._base + place
            self._set_aside(slot)
            self._keys[slot], self._norms[slot], self._values[slot] = keys, norms, rows
            self._received[slot] = 0
            self._slots[place : place + 1] = [_Slot(kind, frame)]

        return commit

    def was_given(self, frame: int) -> bool:
        """Whether what is held of a frame was given."""
        return any(slot.frame == frame and slot.kind == "given" for slot in self._slots)

    def forget_previous(self) -> None:
        """Drop the temporary frame, as an addition does."""
        self._drop([slot.kind == "temporary" for slot in self._slots])

    def latest(self, until: int) -> int:
        """The last frame that is held to stay, of those up to index `until`; -1 where there is none."""
        staying = (slot.frame for slot in self._slots if slot.kind != "temporary")
        return max((frame for frame in staying if frame <= until), default=-1)

    def latest_key(self, until: int) -> Tensor:
        """Its keys (h * w, Ck)."""
        return self._keys[self._base + [slot.frame for slot in self._slots].index(self.latest(until))]

    def values_of(self, frame: int) -> Tensor:
        """What is held of a frame that is there: (O, Cv, h * w)."""
        place = [slot.frame for slot in self._slots].index(frame)
        return self._values[self._base + place].permute(1, 2, 0)

    def forget(self, since: int) -> None:
        """Drop the frames from index `since` on that were not given, and their prototypes."""
        self._drop([slot.kind != "given" and slot.frame >= since for slot in self._slots])
        if (held := self._prototypes()) is not None:
            self._put(Prototypes(*(x[held.frames < since] for x in held)))

    def select(self, objects: Sequence[int]) -> None:
        """Hold these objects alone, by their places, and free the memory of the others."""
        self._values = self._values[:, :, list(objects)] if len(self._values) else self._values

    def mark(self) -> Mark:
        """What `rewind` goes back to. Until `unmark`, each slot that is written over is set aside first."""
        cells = self._keys, self._norms, self._values
        mark = Mark([*self._slots], cells, self._received.clone(), self._last, self._prototype_frames)
        self._marks.append(mark)
        return mark

    def rewind(self, mark: Mark) -> None:
        """Hold what was held at a mark, bit for bit; it and those after it are used up. Cannot fail."""
        while self._marks.pop() is not mark:
            pass
        for (buffer, slot), cells in mark.replaced.items():
            mark.cells[buffer][slot] = cells
        self._keys, self._norms, self._values = mark.cells
        self._slots, self._received, self._last = mark.slots, mark.received, mark.last
        self._prototype_frames = mark.prototype_frames

    def unmark(self) -> None:
        """Forget all marks, and free what was set aside for them."""
        self._marks.clear()

    def read(self, query: Tensor, frame: int | None = None) -> Tensor:
        """What the memory says of a frame.

        query: (Ck, h, w), its key. frame: its index in the video. Where the policy evicts by use, readouts
        count as use; several of one index count as the last of them, one without an index does not count.
        Returns (O, Cv, h, w). Raises ValueError where the memory is empty.
        """
        if not self._slots and not len(self._prototype_frames):
            raise ValueError("the memory is empty: there is nothing to read")
        keys, norms, values, _ = (self._cells(buffer) for buffer in self._buffers)
        used = frame if self._counts else None
        received = None if used is None else keys.new_zeros(len(keys), dtype=torch.float32)
        policy = self.policy
        readout = topk_readout(
            query.flatten(1), keys, values, policy.top_k, policy.backend, norms=norms, received=received
        )
        if received is not None and used is not None:
            if self._last is not None and self._last[0] != used:
                self._settle()
            self._last = (used, received)
        return readout.unflatten(2, query.shape[1:])

    def unread(self, frame: int) -> None:
        """Take back what the last readout counts, if it was of this frame, which did not come after all."""
        if self._last is not None and self._last[0] == frame:
            self._last = None

    def state(self) -> tuple[dict[str, Tensor], list[tuple[Kind, int]]]:
        """What is held: tensors, and kind and index of each of n frames.

        keys (n, h * w, Ck), values (n, h * w, O, Cv) and received (n, h * w); the fields of `Prototypes`
        under their names after "prototypes.", where there are some.
        """
        held = slice(self._base, self._base + len(self._slots))
        tensors = {"keys": self._keys[held].clone(), "values": self._values[held].clone()}
        tensors["received"] = self._used()[held]
        if (prototypes := self._prototypes()) is not None:
            for name, x in prototypes._asdict().items():
                tensors[f"prototypes.{name}"] = x.clone()
        return tensors, [(slot.kind, slot.frame) for slot in self._slots]

    @classmethod
    def from_state(
        cls, policy: MemoryPolicy, tensors: Mapping[str, Tensor], slots: Sequence[tuple[Kind, int]]
    ) -> MemoryBank:
        """The bank whose `state` this is; it takes the tensors for its own."""
        bank = cls(policy)
        bank._slots = [_Slot(kind, frame) for kind, frame in slots]
        if not len(tensors["keys"]):
            return bank
        keys, values, received = (tensors[name] for name in ("keys", "values", "received"))
        if bank._base:  # in front of the frames
            keys, values, received = (torch.cat([x[:1], x]) for x in (keys, values, received))
        bank._keys, bank._values, bank._received = keys, values, received
        bank._norms = squared_norms(keys)
        if "prototypes.keys" in tensors:
            bank._put(Prototypes(*(tensors[f"prototypes.{name}"] for name in Prototypes._fields)))
        return bank

    @property
    def _buffers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self._keys, self._norms, self._values, self._received

    def _set_aside(self, slot: int) -> None:
        """What marks have in a slot that is about to be written over."""
        holding = [mark for mark in self._marks if slot < self._base + len(mark.slots)]
        for buffer, now in enumerate(self._buffers[:3]):
            lacking = [m for m in holding if m.cells[buffer] is now and (buffer, slot) not in m.replaced]
            if lacking:
                cells = now[slot].clone()  # nobody wrote there since the first of them
                for mark in lacking:
                    mark.replaced[buffer, slot] = cells

    def _cells(self, buffer: Tensor) -> Tensor:
        """The rows of a buffer that are read: prototypes, then frames. (N, ...)"""
        size = buffer.shape[1]
        first = self._base * size - len(self._prototype_frames)
        return buffer.flatten(0, 1)[first : (self._base + len(self._slots)) * size]

    def _settle(self) -> None:
        """Count what the cells got in the last readout."""
        if self._last is not None:
            self._cells(self._received).add_(self._last[1])
            self._last = None

    def _goes(self, left: Sequence[int], bound: int | None, now: int) -> int | None:
        """Which of the slots that are left makes room for a frame, if one must."""
        kept = [place for place in left if self._slots[place].kind == "kept"]
        staying = [place for place in left if self._slots[place].kind != "temporary"]
        if bound is None or len(staying) < bound or not kept:
            return None
        if self.policy.eviction != "least-used":
            return min(kept, key=lambda place: self._slots[place].frame)
        received = self._used()[self._base :].sum(dim=1).tolist()

        def use(place: int) -> tuple[float, int]:  # a frame of time; of equals the oldest goes
            frame = self._slots[place].frame
            return received[place] / max(now - frame, 1), frame

        return min(kept, key=use)

    def _used(self) -> Tensor:
        """Readout weight of each cell, that of the last readout included: like `_received`."""
        received = self._received.clone()
        if self._last is not None:
            self._cells(received).add_(self._last[1])
        return received

    def _bound(self, cells: int) -> int | None:
        """Frames of so many cells that are held."""
        bound = self.policy.frames(cells)
        return bound if bound is None else max(bound - self._base, 1)

    def _prototypes(self) -> Prototypes | None:
        """What stayed of evicted frames, where something did."""
        if not (held := len(self._prototype_frames)):
            return None
        keys, _, values, received = (buffer[0, -held:] for buffer in (*self._buffers[:3], self._used()))
        return Prototypes(keys, values, received, self._prototype_frames)

    def _consolidated(self, place: int, now: int) -> Prototypes:
        """The prototypes once this slot has joined them."""
        slot, frame, cells = self._base + place, self._slots[place].frame, self._keys.shape[1]
        keys, values, received = self._keys[slot], self._values[slot], self._used()[slot]
        count, policy = max(cells // _SHARE, 1), self.policy
        new = consolidate(keys, values, received, frame, count, policy.top_k, policy.backend)
        return merge(self._prototypes(), new, cells, now)

    def _put(self, prototypes: Prototypes) -> None:
        """Hold these in place of those that are held."""
        self._settle()
        self._prototype_frames = prototypes.frames
        if held := len(prototypes.frames):
            self._set_aside(0)
            self._keys[0, -held:], self._values[0, -held:] = prototypes.keys, prototypes.values
            self._norms[0, -held:] = squared_norms(prototypes.keys)
            self._received[0, -held:] = prototypes.received

    def _drop(self, wrong: Sequence[bool]) -> None:
        """Free these slots; those behind them move up."""
        self._settle()
        right = [place for place, drop in enumerate(wrong) if not drop]
        first = next((i for i, place in enumerate(right) if i != place), len(right))
        for place, old in enumerate(right[first:], first):
            self._set_aside(self._base + place)
            for buffer in self._buffers:
                buffer[self._base + place] = buffer[self._base + old]
        self._slots = [self._slots[place] for place in right]

    def _reserve(self, frames: int, bound: int | None, keys: Tensor, rows: Tensor) -> None:
        """Room for so many frames, shaped as these cells; what is held stays."""
        capacity = len(self._keys) - self._base
        if frames <= capacity:
            return
        if bound is None:
            capacity = max(frames, 2 * capacity, 4)
        elif frames <= bound:
            capacity = min(max(frames, 2 * capacity, 4), bound)
        else:  # given frames, or the previous one, beyond the bound: what is over doubles
            capacity = frames + (frames - bound - 1)
        norms = squared_norms(keys)
        shapes = (keys, norms, rows, norms)
        grown = [x.new_empty(self._base + capacity, *x.shape) for x in shapes]
        if held := len(self._slots):
            for new, old in zip(grown, self._buffers, strict=True):
                new[: self._base + held] = old[: self._base + held]
        self._keys, self._norms, self._values, self._received = grown
