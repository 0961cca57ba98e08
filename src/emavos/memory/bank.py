"""The space-time memory of the objects that were introduced together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from emavos.memory.policy import MemoryPolicy
from emavos.memory.readout import squared_norms, topk_readout

Kind = Literal["given", "kept", "temporary"]


@dataclass(frozen=True)
class _Slot:
    kind: Kind
    frame: int  # its index in the video


class MemoryBank:
    """Keys and values of memory frames, read by affinity.

    A frame takes one slot of h * w cells. Slots are *given* (annotated: never evicted), *kept* (every few
    frames: the oldest goes when the bank is full) or *temporary* (the previous frame: gone at the next
    addition). Cells are rows of one buffer that doubles as it fills, up to the bound of the policy, so an
    addition copies its own cells and no others, and a readout gathers whole rows.

    All frames of a bank have one size, and all its objects have a value at every key.
    """

    def __init__(self, policy: MemoryPolicy | None = None) -> None:
        self.policy = MemoryPolicy() if policy is None else policy
        self._slots: list[_Slot] = []
        self._keys = torch.empty(0)  # (capacity, h * w, Ck)
        self._norms = torch.empty(0)  # (capacity, h * w), |k|^2
        self._values = torch.empty(0)  # (capacity, h * w, O, Cv)

    def __len__(self) -> int:
        """Frames held."""
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, the room for frames to come included."""
        return self._keys.nbytes + self._norms.nbytes + self._values.nbytes

    def add(self, key: Tensor, values: Tensor, kind: Kind = "kept", frame: int | None = None) -> None:
        """Store a frame, in place of what is held of it already.

        key: (Ck, h, w). values: (O, Cv, h, w). frame: its index in the video; None: one more than the latest.
        """
        self.prepare(key, values, kind, frame)()

    def prepare(
        self, key: Tensor, values: Tensor, kind: Kind = "kept", frame: int | None = None
    ) -> Callable[[], None]:
        """All of `add` that can fail for want of memory; what is returned does the rest, and cannot."""
        if kind not in get_args(Kind):
            raise ValueError(f"kind is one of {', '.join(get_args(Kind))}, not {kind!r}")
        if frame is None:
            frame = max((slot.frame for slot in self._slots), default=-1) + 1
        if any(slot.frame == frame and slot.kind == "given" for slot in self._slots):
            kind = "given"  # what was given once stays so, whatever is said of the frame later
        wrong = [slot.kind == "temporary" or slot.frame == frame for slot in self._slots]
        left = [slot for slot, drop in zip(self._slots, wrong, strict=True) if not drop]
        place = len(left) if kind == "temporary" else self._place(left)
        keys = key.flatten(1).T  # (h * w, Ck)
        norms = squared_norms(keys)
        rows = values.flatten(2).permute(2, 0, 1)  # (h * w, O, Cv)
        self._reserve(place + 1, keys, rows)

        def commit() -> None:
            self._drop(wrong)
            self._keys[place], self._norms[place], self._values[place] = keys, norms, rows
            self._slots[place : place + 1] = [_Slot(kind, frame)]

        return commit

    @property
    def latest(self) -> int:
        """The last frame that is held to stay; -1 where there is none."""
        return max((slot.frame for slot in self._slots if slot.kind != "temporary"), default=-1)

    @property
    def latest_key(self) -> Tensor:
        """Its keys (h * w, Ck)."""
        return self._keys[[slot.frame for slot in self._slots].index(self.latest)]

    def forget(self, since: int) -> None:
        """Drop the frames from index `since` on that were not given."""
        self._drop([slot.kind != "given" and slot.frame >= since for slot in self._slots])

    def select(self, objects: Sequence[int]) -> None:
        """Hold these objects alone, by their places, and free the memory of the others."""
        self._values = self._values[:, :, list(objects)] if self._slots else self._values

    def copy(self) -> MemoryBank:
        """Another bank that holds the same."""
        return MemoryBank.from_state(self.policy, *self.state())

    def read(self, query: Tensor) -> Tensor:
        """What the memory says of a frame.

        query: (Ck, h, w), its key. Returns (O, Cv, h, w). Raises ValueError where the memory is empty.
        """
        if not self._slots:
            raise ValueError("the memory is empty: there is nothing to read")
        frames = len(self._slots)
        keys = self._keys[:frames].flatten(0, 1)
        norms = self._norms[:frames].flatten(0, 1)
        values = self._values[:frames].flatten(0, 1)
        policy = self.policy
        readout = topk_readout(query.flatten(1), keys, values, policy.top_k, policy.backend, norms=norms)
        return readout.unflatten(2, query.shape[1:])

    def state(self) -> tuple[dict[str, Tensor], list[tuple[Kind, int]]]:
        """What is held: keys (n, h * w, Ck), values (n, h * w, O, Cv), and kind and index of each frame."""
        held = len(self._slots)
        tensors = {"keys": self._keys[:held].clone(), "values": self._values[:held].clone()}
        return tensors, [(slot.kind, slot.frame) for slot in self._slots]

    @classmethod
    def from_state(
        cls, policy: MemoryPolicy, tensors: Mapping[str, Tensor], slots: Sequence[tuple[Kind, int]]
    ) -> MemoryBank:
        """The bank whose `state` this is."""
        bank = cls(policy)
        bank._slots = [_Slot(kind, frame) for kind, frame in slots]
        bank._keys, bank._values = tensors["keys"], tensors["values"]
        bank._norms = squared_norms(bank._keys) if slots else bank._norms
        return bank

    def _place(self, slots: Sequence[_Slot]) -> int:
        """Where the next frame to stay goes: behind these or, in a full bank, to the oldest kept."""
        bound = self.policy.max_frames
        kept = [place for place, slot in enumerate(slots) if slot.kind == "kept"]
        if bound is None or len(slots) < bound or not kept:
            return len(slots)
        return min(kept, key=lambda place: slots[place].frame)

    def _drop(self, wrong: Sequence[bool]) -> None:
        """Free these slots; those behind them move up."""
        right = [place for place, drop in enumerate(wrong) if not drop]
        first = next((i for i, place in enumerate(right) if i != place), len(right))
        for place, old in enumerate(right[first:], first):
            for buffer in (self._keys, self._norms, self._values):
                buffer[place] = buffer[old]
        self._slots = [self._slots[place] for place in right]

    def _reserve(self, frames: int, keys: Tensor, rows: Tensor) -> None:
        """Room for so many frames, shaped as these cells; what is held stays."""
        capacity = len(self._keys)
        if frames <= capacity:
            return
        bound = self.policy.max_frames
        if bound is None:
            capacity = max(frames, 2 * capacity, 4)
        elif frames <= bound:
            capacity = min(max(frames, 2 * capacity, 4), bound)
        else:  # given frames, or the previous one, beyond the bound: what is over doubles
            capacity = frames + (frames - bound - 1)
        norms = squared_norms(keys)
        grown_keys, grown_norms, grown_values = (x.new_empty(capacity, *x.shape) for x in (keys, norms, rows))
        held = len(self._slots)
        if held:
            grown_keys[:held] = self._keys[:held]
            grown_norms[:held] = self._norms[:held]
            grown_values[:held] = self._values[:held]
        self._keys, self._norms, self._values = grown_keys, grown_norms, grown_values
