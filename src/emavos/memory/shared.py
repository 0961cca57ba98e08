"""The most similar cells of several memory banks, found at once where the banks store the same frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from emavos.memory.bank import FrameKeys, MemoryBank, joined
from emavos.memory.readout import TopCells, merged, top_cells


@dataclass(frozen=True)
class _Part:
    """Frames that the same banks store."""

    frames: tuple[FrameKeys, ...]
    banks: tuple[int, ...]


def shared_top(banks: Sequence[MemoryBank], query: Tensor) -> list[TopCells] | None:
    """The most similar cells of each bank, to pass to `MemoryBank.read`; None if nothing can be shared.

    banks: of one video, so of one policy.
    query: (Ck, h, w), key of the frame.

    Each part of the memory that the same banks store is searched once. The cells of a bank are the best of
    those found in its parts. A cell that is no cell of a bank never takes a place there.
    """
    backend = _backend(banks, query)
    frames: dict[FrameKeys, list[int]] = {}  # the banks of each frame
    keys_of_banks = [bank.parts() for bank in banks]
    for number, own in enumerate(keys_of_banks):
        for keys in own:
            frames.setdefault(keys, []).append(number)
    unshared = all(len(numbers) == 1 for numbers in frames.values())
    if backend is None or unshared or not all(keys_of_banks):
        return None
    parts = _parts(frames)
    cells = query.flatten(1)  # (Ck, P)
    top_k = banks[0].top_k
    tops, first = [], 0
    for part in parts:
        joint, norms = joined(part.frames)
        top, index = top_cells(cells, joint, top_k, backend, norms)
        tops.append((top, index + first))
        first += len(joint)
    order = [keys for part in parts for keys in part.frames]
    tops_of_banks = []
    for number, own in enumerate(keys_of_banks):
        of_bank = [top for part, top in zip(parts, tops, strict=True) if number in part.banks]
        top, index = merged(of_bank, top_k)
        tops_of_banks.append((top, index + _shifts(order, own, query.device)[index]))
    return tops_of_banks


def _backend(banks: Sequence[MemoryBank], query: Tensor) -> Literal["blocks", "native"] | None:
    """The backend to search with; None if the backend of the banks searches and sums in one."""
    backend = banks[0].policy.backend if banks else "auto"
    if query.device.type != "cpu" or backend == "dense" or backend == "triton":
        return None
    return "native" if backend == "native" else "blocks"


def _parts(frames: dict[FrameKeys, list[int]]) -> list[_Part]:
    """Frames with the same banks together, in the order of the first bank's cells."""
    by_banks: dict[tuple[int, ...], list[FrameKeys]] = {}
    for keys, banks in frames.items():
        by_banks.setdefault(tuple(banks), []).append(keys)
    return [_Part(tuple(keys), banks) for banks, keys in by_banks.items()]


def _shifts(order: Sequence[FrameKeys], own: Sequence[FrameKeys], device: torch.device) -> Tensor:
    """The difference between the position of a cell in a bank and in all parts, for each cell of the parts.

    order: all frames, in the order of the parts.
    own: frames of the bank, in the order of its cells.
    """
    places, place = {}, 0
    for keys in own:
        places[keys] = place
        place += len(keys.keys)
    shifts, first = [], 0
    for keys in order:
        shifts.append(places.get(keys, first) - first)
        first += len(keys.keys)
    sizes = torch.tensor([len(keys.keys) for keys in order], device=device)
    return torch.tensor(shifts, device=device).repeat_interleave(sizes)
