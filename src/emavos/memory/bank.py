"""The space-time memory of the objects that were introduced together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from emavos.memory.policy import MemoryPolicy
from emavos.memory.readout import squared_norms, topk_readout

Kind = Literal["given", "kept", "temporary"]


@dataclass
class _Slot:
    kind: Kind
    age: int  # the number of additions before it


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
        self._additions = 0
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

    def add(self, key: Tensor, values: Tensor, kind: Kind = "kept") -> None:
        """Store a frame.

        key: (Ck, h, w). values: (O, Cv, h, w).
        """
        if kind not in get_args(Kind):
            raise ValueError(f"kind is one of {', '.join(get_args(Kind))}, not {kind!r}")
        keys = key.flatten(1).T  # (h * w, Ck)
        rows = values.flatten(2).permute(2, 0, 1)  # (h * w, O, Cv)
        if self._slots and self._slots[-1].kind == "temporary":  # always the last
            self._slots.pop()
        place = len(self._slots) if kind == "temporary" else self._place()
        if place == len(self._slots):
            self._reserve(place + 1, keys, rows)
            self._slots.append(_Slot(kind, self._additions))
        else:
            self._slots[place] = _Slot(kind, self._additions)
        self._keys[place] = keys
        self._norms[place] = squared_norms(keys)
        self._values[place] = rows
        self._additions += 1

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

    def _place(self) -> int:
        """The slot of the next frame to stay: a new one or, in a full bank, that of the oldest kept frame."""
        bound = self.policy.max_frames
        kept = [place for place, slot in enumerate(self._slots) if slot.kind == "kept"]
        if bound is None or len(self._slots) < bound or not kept:
            return len(self._slots)
        return min(kept, key=lambda place: self._slots[place].age)

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
