"""The space-time memory of the objects that were introduced together, and the policy that bounds its size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from emavos.memory.prototypes import Prototypes, consolidate, merge
from emavos.memory.readout import Backend, TopCells, squared_norms, topk_readout, weighted_sum

Kind = Literal["given", "kept", "temporary"]
Eviction = Literal["oldest", "least-used", "consolidate"]

TOP_K = 20  # of a bank whose policy has none
_SHARE = 16  # one in 16 cells of an evicted frame becomes a prototype


@dataclass(frozen=True)
class MemoryPolicy:
    """Which frames the memory stores, how many, which it evicts, and how many cells a readout uses.

    The defaults are STCN's for DAVIS, but bounded: a stream of any length runs in constant memory. The bound
    is the smallest one that lost nothing on long videos (docs/long-videos.md).

    every: store a frame when `every` frames have passed since the last stored frame or new object. Corrected
        frames are stored as well and do not restart the count.
    include_last: whether to read the previous frame too, which is dropped when the next one is stored.
    top_k: memory cells per query cell; None: `STCNConfig.top_k` of the model.
    max_frames: largest number of frames in the memory; None: no bound. Annotated frames are never evicted: if
        they fill the memory, one other frame is stored as well. The previous frame (`include_last`) is extra.
    max_cells: the same bound in cells (h * w per frame), at least one frame. Bounds the time of a readout for
        frames of any size. If both bounds are set, the lower one counts.
    eviction: which frame a full memory evicts. "least-used": the frame with the least readout weight per
        frame since it was stored; "oldest"; "consolidate": the oldest, but its most used cells are kept as
        prototypes. All prototypes together take the space of one frame.
    backend: back end of `topk_readout`. "auto" is decided before a session begins: see `choose_backend`.
    """

    every: int = 5
    include_last: bool = False
    top_k: int | None = None
    max_frames: int | None = 16
    max_cells: int | None = None
    eviction: Eviction = "least-used"
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        for name in ("every", "top_k", "max_frames", "max_cells"):
            value = getattr(self, name)
            if name != "every" and value is None:
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
        """Whether frames are ever evicted."""
        return self.max_frames is not None or self.max_cells is not None

    def frames(self, cells: int) -> int | None:
        """Largest number of frames with `cells` cells each; None: no bound."""
        bounds = [] if self.max_frames is None else [self.max_frames]
        if self.max_cells is not None:
            bounds.append(max(self.max_cells // cells, 1))
        return min(bounds, default=None)


def check_policy(policy: object) -> None:
    """Raise ValueError unless `policy` is a `MemoryPolicy` or None."""
    if not isinstance(policy, MemoryPolicy | None):
        raise ValueError(f"policy is a MemoryPolicy, as MemoryPolicy(every=5), not {policy!r:.60}")


@dataclass(frozen=True, eq=False)
class FrameKeys:
    """The keys of one frame. Never overwritten, so the banks that store the frame share them."""

    keys: Tensor  # (h * w, Ck)
    norms: Tensor  # (h * w,), |k|^2

    @classmethod
    def of(cls, key: Tensor) -> FrameKeys:
        """A copy of a key (Ck, h, w)."""
        keys = key.flatten(1).T.clone(memory_format=torch.contiguous_format)
        return cls(keys, squared_norms(keys))  # of the stored layout: the same bits after loading

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return self.keys.nbytes + self.norms.nbytes


@dataclass(frozen=True)
class _Slot:
    kind: Kind
    frame: int  # index in the video
    keys: FrameKeys


@dataclass(frozen=True, eq=False)
class Mark:
    """The contents of a bank at the time of `mark`."""

    slots: list[_Slot]
    values: Tensor  # the buffer; may still be in use
    received: Tensor
    last: tuple[int, Tensor] | None
    prototype_frames: Tensor
    prototype_keys: FrameKeys | None
    replaced: dict[int, Tensor] = field(default_factory=dict)  # {slot: old values}


class MemoryBank:
    """Keys and values of memory frames, read by affinity.

    A frame takes one slot of h * w cells. There are three kinds of slots: *given* (annotated; never evicted),
    *kept* (every few frames; the policy decides which one a full bank evicts) and *temporary* (the previous
    frame; dropped at the next addition). Values are rows of one buffer. The buffer doubles when full, up to
    the bound of the policy. An addition therefore copies only its own cells, and a readout gathers whole
    rows. Keys are one tensor per frame, which banks of the same video share; a readout joins them, which
    takes less than a hundredth of its time on a CPU.

    If evicted frames leave prototypes, the first slot of the buffer is reserved for prototypes. The slot is
    filled from its end, so that the cells to read are contiguous.

    All frames of a bank have the same size, and all objects have a value at every key.
    """

    def __init__(self, policy: MemoryPolicy | None = None) -> None:
        self.policy = MemoryPolicy() if policy is None else policy
        self.top_k = self.policy.top_k or TOP_K
        self._slots: list[_Slot] = []
        self._values = torch.empty(0)  # (capacity, h * w, O, Cv)
        self._received = torch.empty(0)  # (capacity, h * w), readout weight since the frame was stored
        self._last: tuple[int, Tensor] | None = None  # last readout: frame, weights (N,)
        self._counts_use = self.policy.bounded and self.policy.eviction != "oldest"
        self._base = int(self.policy.bounded and self.policy.eviction == "consolidate")  # prototype slots
        self._prototype_frames = torch.empty(0, dtype=torch.long)  # frame of each prototype
        self._prototype_keys: FrameKeys | None = None  # (h * w, Ck), filled from the end
        self._marks: list[Mark] = []

    def __len__(self) -> int:
        """Number of frames, without prototypes."""
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes of the bank, including space for values of future frames, and keys that others share."""
        return self.own_nbytes + sum(keys.nbytes for keys in self.stored_keys)

    @property
    def own_nbytes(self) -> int:
        """Same as `nbytes`, without keys."""
        return sum(buffer.nbytes for buffer in self._buffers)

    @property
    def stored_keys(self) -> list[FrameKeys]:
        """The keys of frames and prototypes as stored, each of which other banks may share."""
        frames = [slot.keys for slot in self._slots]
        return frames if self._prototype_keys is None else [self._prototype_keys, *frames]

    @property
    def frame_keys(self) -> dict[int, FrameKeys]:
        """The keys of each stored frame, by index."""
        return {slot.frame: slot.keys for slot in self._slots}

    def share(self, others: Mapping[int, Sequence[FrameKeys]]) -> None:
        """Replace the keys of frames by equal ones of the same frame, and free the memory.

        others: keys that other banks store, by frame.
        """
        for place, slot in enumerate(self._slots):
            for keys in others.get(slot.frame, ()):
                if torch.equal(keys.keys, slot.keys.keys):
                    self._slots[place] = replace(slot, keys=keys)
                    break

    def add(self, key: Tensor, values: Tensor, kind: Kind = "kept", frame: int | None = None) -> None:
        """Store a frame. Replaces the slot of the same frame, if there is one.

        key: (Ck, h, w).
        values: (O, Cv, h, w).
        kind: of the slot.
        frame: index in the video; None: one more than the latest.
        """
        self.adding(key, values, kind, frame)()

    def adding(
        self,
        key: Tensor | FrameKeys,
        values: Tensor,
        kind: Kind = "kept",
        frame: int | None = None,
        now: int | None = None,
    ) -> Callable[[], None]:
        """First half of `add`: does every allocation, and returns a callable that commits without failing.

        key, values, kind, frame: as for `add`. Pass `FrameKeys` to share the keys with other banks.
        now: index of the video's next frame. Pass `now` if the stored frame is not the current one; a
            temporary frame is then still the previous frame and stays.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"kind is one of {', '.join(get_args(Kind))}, not {kind!r}")
        if frame is None:
            frame = max((slot.frame for slot in self._slots), default=-1) + 1
        if self.was_given(frame):
            kind = "given"  # an annotated frame stays annotated
        dropped = [slot.frame == frame or (slot.kind == "temporary" and now is None) for slot in self._slots]
        staying = [place for place, drop in enumerate(dropped) if not drop]
        keys = key if isinstance(key, FrameKeys) else FrameKeys.of(key)
        rows = values.flatten(2).permute(2, 0, 1)  # (h * w, O, Cv)
        bound = self._bound(len(rows))
        current = frame if now is None else now
        evicted = None if kind == "temporary" else self._to_evict(staying, bound, current)
        prototypes = None if evicted is None or not self._base else self._consolidated(evicted, current)
        place = len(staying) if evicted is None else staying.index(evicted)  # after `_drop`
        self._reserve(place + 1, bound, keys, rows)

        def commit() -> None:
            self._drop(dropped)
            if prototypes is not None:
                self._replace_prototypes(*prototypes)
            slot = self._base + place
            self._set_aside(slot)
            self._values[slot] = rows
            self._received[slot] = 0
            self._slots[place : place + 1] = [_Slot(kind, frame, keys)]

        return commit

    def was_given(self, frame: int) -> bool:
        """Whether a frame is stored as annotated."""
        return any(slot.frame == frame and slot.kind == "given" for slot in self._slots)

    def forget_previous(self) -> None:
        """Drop the temporary frame, as an addition does."""
        self._drop([slot.kind == "temporary" for slot in self._slots])

    def latest(self, until: int) -> int:
        """Index of the last stored frame up to index `until`, without temporary ones; -1 if there is none."""
        staying = (slot.frame for slot in self._slots if slot.kind != "temporary")
        return max((frame for frame in staying if frame <= until), default=-1)

    def latest_key(self, until: int) -> Tensor:
        """Keys (h * w, Ck) of the frame `latest(until)`."""
        return self.frame_keys[self.latest(until)].keys

    def values_of(self, frame: int) -> Tensor:
        """Values (O, Cv, h * w) of a stored frame."""
        place = [slot.frame for slot in self._slots].index(frame)
        return self._values[self._base + place].permute(1, 2, 0)

    def forget(self, since: int) -> None:
        """Drop the frames from index `since` on, and their prototypes. Annotated frames stay."""
        self._drop([slot.kind != "given" and slot.frame >= since for slot in self._slots])
        if (prototypes := self._prototypes()) is not None:
            earlier = Prototypes(*(x[prototypes.frames < since] for x in prototypes))
            self._replace_prototypes(earlier, self._padded(earlier.keys))

    def select(self, objects: Sequence[int]) -> None:
        """Keep only the objects at these positions, and free the memory of the others."""
        self._values = self._values[:, :, list(objects)] if len(self._values) else self._values

    def part(self, objects: Sequence[int]) -> MemoryBank:
        """A copy of the bank with only the objects at these positions."""
        bank = MemoryBank(self.policy)
        bank._slots, bank._last = [*self._slots], self._last
        bank._prototype_frames, bank._prototype_keys = self._prototype_frames, self._prototype_keys
        bank._values, bank._received = self._values, self._received.clone()
        bank.select(objects)  # copies the values
        return bank

    def mark(self) -> Mark:
        """A state for `rewind`. Until `unmark`, values are saved before they are overwritten."""
        prototypes = self._prototype_frames, self._prototype_keys
        mark = Mark([*self._slots], self._values, self._received.clone(), self._last, *prototypes)
        self._marks.append(mark)
        return mark

    def rewind(self, mark: Mark) -> None:
        """Restore a marked state, bit for bit. Discards this mark and all later ones. Cannot fail."""
        while self._marks.pop() is not mark:
            pass
        for slot, values in mark.replaced.items():
            mark.values[slot] = values
        self._slots, self._values = mark.slots, mark.values
        self._received, self._last = mark.received, mark.last
        self._prototype_frames, self._prototype_keys = mark.prototype_frames, mark.prototype_keys

    def unmark(self) -> None:
        """Discard all marks, and free the saved slots."""
        self._marks.clear()

    def read(self, query: Tensor, frame: int | None = None, top: TopCells | None = None) -> Tensor:
        """The readout (O, Cv, h, w) of a frame.

        query: (Ck, h, w), key of the frame.
        frame: index in the video. If the policy evicts by use, the readout counts as use. Only the last
            readout of each index counts, and readouts without an index do not count.
        top: the most similar cells, if known: see `shared_top`.

        Raises ValueError if the memory is empty.
        """
        if not self._slots and not len(self._prototype_frames):
            raise ValueError("the memory is empty: there is nothing to read")
        values = self._cells(self._values)
        received: Tensor | None = None
        if self._counts_use and frame is not None:
            received = values.new_zeros(len(values), dtype=torch.float32)
        if top is None:
            keys, norms = joined(self.parts())
            backend = self.policy.backend
            readout = topk_readout(
                query.flatten(1), keys, values, self.top_k, backend, norms=norms, received=received
            )
        else:
            readout = weighted_sum(*top, values, received)
        if received is not None and frame is not None:
            if self._last is not None and self._last[0] != frame:
                self._settle()
            self._last = (frame, received)
        return readout.unflatten(2, query.shape[1:])

    def parts(self) -> list[FrameKeys]:
        """The keys of the memory, in the order of its cells: prototypes, if there are any, then frames."""
        frames = [slot.keys for slot in self._slots]
        if self._prototype_keys is None or not (count := len(self._prototype_frames)):
            return frames
        padded = self._prototype_keys
        return [FrameKeys(padded.keys[-count:], padded.norms[-count:]), *frames]

    def first_index(self) -> int:
        """Lowest index of a stored frame; 0 if there is none below."""
        return min([0, *(slot.frame for slot in self._slots)])

    def unread(self, frame: int) -> None:
        """Do not count the last readout as use, if it was for this frame. For a step that failed."""
        if self._last is not None and self._last[0] == frame:
            self._last = None

    def state(self) -> tuple[dict[str, Tensor], list[tuple[Kind, int]]]:
        """The contents of the bank, to save: tensors, and (kind, index) of each of n frames.

        Tensors: keys (n, h * w, Ck), values (n, h * w, O, Cv) and received (n, h * w). If there are
            prototypes, the fields of `Prototypes` too, with "prototypes." before their names.
        """
        rows = slice(self._base, self._base + len(self._slots))
        keys = [slot.keys.keys for slot in self._slots]
        tensors = {"keys": torch.stack(keys) if keys else self._values.new_empty(0)}
        tensors["values"] = self._values[rows].clone()
        tensors["received"] = self._use()[rows]
        if (prototypes := self._prototypes()) is not None:
            for name, x in prototypes._asdict().items():
                tensors[f"prototypes.{name}"] = x.clone()
        return tensors, [(slot.kind, slot.frame) for slot in self._slots]

    @classmethod
    def from_state(
        cls, policy: MemoryPolicy, tensors: Mapping[str, Tensor], slots: Sequence[tuple[Kind, int]]
    ) -> MemoryBank:
        """The bank with this `state`. The bank keeps the values without a copy."""
        bank = cls(policy)
        if not len(tensors["keys"]):
            return bank
        keys = (FrameKeys(x.clone(), squared_norms(x)) for x in tensors["keys"])  # each is freed on its own
        bank._slots = [_Slot(kind, frame, x) for (kind, frame), x in zip(slots, keys, strict=True)]
        values, received = tensors["values"], tensors["received"]
        if bank._base:  # a slot for prototypes before the frames
            values, received = (torch.cat([x[:1], x]) for x in (values, received))
        bank._values, bank._received = values, received
        if "prototypes.keys" in tensors:
            prototypes = Prototypes(*(tensors[f"prototypes.{name}"] for name in Prototypes._fields))
            bank._replace_prototypes(prototypes, bank._padded(prototypes.keys))
        return bank

    @property
    def _buffers(self) -> tuple[Tensor, Tensor]:
        return self._values, self._received

    def _set_aside(self, slot: int) -> None:
        """Save the values of a slot for the marks that need them, before they are overwritten."""
        in_use = [mark for mark in self._marks if slot < self._base + len(mark.slots)]
        lacking = [mark for mark in in_use if mark.values is self._values and slot not in mark.replaced]
        if lacking:
            values = self._values[slot].clone()  # not overwritten since the first of these marks
            for mark in lacking:
                mark.replaced[slot] = values

    def _cells(self, buffer: Tensor) -> Tensor:
        """The rows of a buffer to read: prototypes, then frames. (N, ...)"""
        size = buffer.shape[1]
        first = self._base * size - len(self._prototype_frames)
        return buffer.flatten(0, 1)[first : (self._base + len(self._slots)) * size]

    def _settle(self) -> None:
        """Add the weights of the last readout to `_received`."""
        if self._last is not None:
            self._cells(self._received).add_(self._last[1])
            self._last = None

    def _to_evict(self, places: Sequence[int], bound: int | None, current: int) -> int | None:
        """Position of the slot to evict for a new frame; None if there is space.

        places: positions of the slots that stay otherwise.
        bound: largest number of frames; None: no bound.
        current: index of the current frame.
        """
        kept = [place for place in places if self._slots[place].kind == "kept"]
        staying = [place for place in places if self._slots[place].kind != "temporary"]
        if bound is None or len(staying) < bound or not kept:
            return None
        if self.policy.eviction != "least-used":
            return min(kept, key=lambda place: self._slots[place].frame)
        received = self._use()[self._base :].sum(dim=1).tolist()

        def rate(place: int) -> tuple[float, int]:  # per frame since stored; the oldest of equals is evicted
            frame = self._slots[place].frame
            return received[place] / max(current - frame, 1), frame

        return min(kept, key=rate)

    def _use(self) -> Tensor:
        """Readout weight of each cell, including the last readout. Same shape as `_received`."""
        received = self._received.clone()
        if self._last is not None:
            self._cells(received).add_(self._last[1])
        return received

    def _bound(self, cells: int) -> int | None:
        """Largest number of frames with this many cells; None: no bound."""
        bound = self.policy.frames(cells)
        return bound if bound is None else max(bound - self._base, 1)

    def _prototypes(self) -> Prototypes | None:
        """The prototypes of evicted frames; None if there are none."""
        if self._prototype_keys is None or not (count := len(self._prototype_frames)):
            return None
        keys = self._prototype_keys.keys[-count:]
        return Prototypes(keys, self._values[0, -count:], self._use()[0, -count:], self._prototype_frames)

    def _consolidated(self, place: int, current: int) -> tuple[Prototypes, FrameKeys]:
        """The prototypes after eviction of the slot at this position, and their keys as stored."""
        slot, evicted = self._base + place, self._slots[place]
        keys, values, received = evicted.keys.keys, self._values[slot], self._use()[slot]
        count, policy = max(len(keys) // _SHARE, 1), self.policy
        new = consolidate(keys, values, received, evicted.frame, count, self.top_k, policy.backend)
        merged = merge(self._prototypes(), new, len(keys), current)
        return merged, self._padded(merged.keys)

    def _padded(self, keys: Tensor) -> FrameKeys:
        """Keys (n, Ck) of prototypes, padded in front to the (h * w, Ck) of a frame."""
        padded = keys.new_zeros(self._values.shape[1], keys.shape[1])
        padded[len(padded) - len(keys) :] = keys
        return FrameKeys(padded, squared_norms(padded))

    def _replace_prototypes(self, prototypes: Prototypes, padded: FrameKeys) -> None:
        """Replace the prototypes. `padded` are their keys, from `_padded`."""
        self._settle()
        self._prototype_frames, self._prototype_keys = prototypes.frames, padded
        if count := len(prototypes.frames):
            self._set_aside(0)
            self._values[0, -count:] = prototypes.values
            self._received[0, -count:] = prototypes.received

    def _drop(self, dropped: Sequence[bool]) -> None:
        """Free the slots marked in `dropped`, and move up the later slots."""
        self._settle()
        staying = [place for place, drop in enumerate(dropped) if not drop]
        first = next((i for i, place in enumerate(staying) if i != place), len(staying))
        for place, old in enumerate(staying[first:], first):
            self._set_aside(self._base + place)
            for buffer in self._buffers:
                buffer[self._base + place] = buffer[self._base + old]
        self._slots = [self._slots[place] for place in staying]

    def _reserve(self, frames: int, bound: int | None, keys: FrameKeys, rows: Tensor) -> None:
        """Grow the buffers to `frames` frames, without losing the contents.

        bound: largest number of frames; None: no bound.
        keys, rows: cells of one frame, for shape and dtype.
        """
        capacity = len(self._values) - self._base
        if frames <= capacity:
            return
        if bound is None:
            capacity = max(frames, 2 * capacity, 4)
        elif frames <= bound:
            capacity = min(max(frames, 2 * capacity, 4), bound)
        else:  # annotated frames, or the previous one, exceed the bound: double the excess
            capacity = frames + (frames - bound - 1)
        values = rows.new_empty(self._base + capacity, *rows.shape)
        received = keys.norms.new_empty(values.shape[:2])
        if self._slots:
            end = self._base + len(self._slots)
            for new, old in zip((values, received), self._buffers, strict=True):
                new[:end] = old[:end]
        self._values, self._received = values, received


def joined(parts: Sequence[FrameKeys]) -> tuple[Tensor, Tensor]:
    """Keys (N, Ck) and norms (N,) of several frames."""
    if len(parts) == 1:
        return parts[0].keys, parts[0].norms
    return torch.cat([part.keys for part in parts]), torch.cat([part.norms for part in parts])
