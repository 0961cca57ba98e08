"""The memory of one video: a memory bank for each group of objects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from emavos.memory import Kind, MemoryBank, MemoryPolicy
from emavos.memory.bank import FrameKeys, Mark, joined
from emavos.memory.shared import shared_top
from emavos.models import STCNConfig

_LOOKED_AT = 256  # cells of a frame compared with the memory, about
UNLIKE = 0.2  # a cell resembles no other from this squared distance on, over its own squared length


def unlike(config: STCNConfig) -> float:
    """The limit `UNLIKE` for the keys of a model; with more parts, keys differ more (docs/experiments.md)."""
    if config.vit_key_channels:
        return 0.35
    return 0.26 if config.fine_key_channels else UNLIKE


@dataclass(frozen=True, eq=False)
class Group:
    """Objects introduced on the same frame and corrected on the same frames, and their memory bank."""

    ids: tuple[int, ...]
    bank: MemoryBank


@dataclass(frozen=True, eq=False)
class BanksMark:
    """The contents of all banks at the time of `mark`."""

    groups: tuple[Group, ...]
    ids: tuple[int, ...]
    memorized: int
    marks: tuple[tuple[MemoryBank, Mark], ...]


class Banks:
    """The memory of all objects of a video.

    Objects that were introduced together share a bank, so each of them has a value at every key of the bank.
    If you correct only some of them, the group splits into two banks: the corrected objects keep the frame
    for ever, and the bank of the others may evict their predicted masks. Frames are read from, stored in and
    dropped from all banks or none. Banks that store the same frame share its keys, and on a CPU one search
    for the most similar cells.

    groups: banks of a saved video.
    memorized: index of the last frame that began an object or was stored on schedule.
    ids: of the objects, in the order of introduction; None: the order of the groups.
    """

    def __init__(
        self,
        policy: MemoryPolicy,
        groups: Iterable[Group] = (),
        memorized: int = 0,
        ids: tuple[int, ...] | None = None,
    ) -> None:
        self.policy = policy
        self.groups = tuple(groups)
        for number, group in enumerate(self.groups):
            group.bank.share(_stored_keys(self.groups[:number]))
        self.memorized = memorized
        self.ids = _ids(self.groups) if ids is None else ids

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    @property
    def nbytes(self) -> int:
        """Bytes of all banks. Shared keys are counted once."""
        keys = {id(x): x for group in self.groups for x in group.bank.stored_keys}
        return sum(group.bank.own_nbytes for group in self.groups) + sum(x.nbytes for x in keys.values())

    def introduce(self, ids: tuple[int, ...]) -> None:
        """Add a group of new objects. Its bank is empty until the frame is stored."""
        self.groups += (Group(ids, MemoryBank(self.policy)),)
        self.ids += ids

    def divide(self, ids: Collection[int]) -> None:
        """Split groups so that these objects share no bank with other objects."""
        groups: list[Group] = []
        for group in self.groups:
            places = range(len(group.ids))
            parts = [[i for i in places if (group.ids[i] in ids) is own] for own in (True, False)]
            if not all(parts):
                groups.append(group)
                continue
            groups += [Group(tuple(group.ids[i] for i in part), group.bank.part(part)) for part in parts]
        self.groups = tuple(groups)

    def read(self, key: Tensor, use: int | None) -> Tensor:
        """The readout (O, Cv, h, w) of a frame, in the order of `ids`.

        key: (Ck, h, w) of the frame.
        use: index of the frame for which the readout counts as use; None: the readout does not count.
        """
        banks = [group.bank for group in self.groups]
        shared = shared_top(banks, key) if len(banks) > 1 else None
        tops = [None] * len(banks) if shared is None else shared
        readout = torch.cat([bank.read(key, use, top) for bank, top in zip(banks, tops, strict=True)])
        grouped = _ids(self.groups)
        if grouped == self.ids:
            return readout
        return torch.stack([readout[grouped.index(id)] for id in self.ids])

    def unmatched(self, key: Tensor, unlike: float = UNLIKE) -> Tensor:
        """Share of a frame's cells that resemble no cell of the memory, a tensor without dimensions.

        key: (Ck, h, w) of the frame. Every few cells are looked at, 256 or a few more in all.
        unlike: squared distance from which a cell resembles no other, over its own squared length.
        """
        cells = key.flatten(1)
        some = cells[:, :: max(cells.shape[1] // _LOOKED_AT, 1)]  # (Ck, P)
        parts = {id(part): part for group in self.groups for part in group.bank.parts()}
        near = _nearest(some, [*parts.values()])
        return (near > unlike * some.square().sum(dim=0)).float().mean()

    @property
    def reference_index(self) -> int:
        """Index for the next reference image: below those of frames and of earlier references."""
        return min([0, *(group.bank.first_index() for group in self.groups)]) - 1

    def unread(self, index: int) -> None:
        """Do not count the last readout as use, if it was for this frame. For a step that failed."""
        for group in self.groups:
            group.bank.unread(index)

    def remembered(self, index: int) -> frozenset[int]:
        """Ids of the objects with a user's mask of this frame in memory."""
        return frozenset(id for group in self.groups if group.bank.was_given(index) for id in group.ids)

    def within(self, ids: Collection[int]) -> list[Group]:
        """The groups with all of their objects in `ids`."""
        return [group for group in self.groups if {*ids}.issuperset(group.ids)]

    @property
    def begins(self) -> bool:
        """Whether a new group has no frame yet."""
        return any(not len(group.bank) for group in self.groups)

    def latest_key(self, index: int) -> Tensor:
        """Keys (h * w, Ck) of the last stored frame up to `index`, without temporary ones."""
        return self.groups[0].bank.latest_key(index)

    def adding(
        self,
        key: Tensor,
        values: Tensor,
        index: int,
        *,
        given: Collection[int] = (),
        remembered: Collection[int] = (),
        stays: bool = True,
        scheduled: bool = False,
    ) -> Callable[[], None]:
        """First half of adding a frame: does every allocation, and returns a callable that cannot fail.

        key: (Ck, h, w).
        values: (O, Cv, h, w), in the order of `ids`.
        index: of the frame.
        given: ids of the objects with a user's mask on the frame. Their banks never evict the frame.
        remembered: ids of the objects with a user's mask of the frame already in memory. These values are
            kept.
        stays: whether the frame is stored. Otherwise the frame is temporary and is dropped at the next
            addition.
        scheduled: whether the count to the next scheduled frame restarts.
        """
        commits = []
        keys = self._keys(key, index)
        for group, part in self._by_group(values, self.groups):
            keeps = [id in remembered for id in group.ids]
            if all(keeps):
                commits.append(group.bank.forget_previous)  # a prediction does not replace a user's mask
                continue
            if any(keeps):  # nor for objects that share the bank with a corrected one
                part = part.clone()
                part[keeps] = group.bank.values_of(index)[keeps].reshape_as(part[keeps])
            any_given = any(id in given for id in group.ids)
            kind: Kind = "given" if any_given else "kept" if stays else "temporary"
            commits.append(group.bank.adding(keys, part, kind, index))

        def commit() -> None:
            for one in commits:
                one()
            if scheduled:
                self.memorized = index

        return commit

    def adding_given(
        self, key: Tensor, values: Tensor, index: int, groups: Sequence[Group], at: int
    ) -> Callable[[], None]:
        """Same as `adding`, for a frame that is not the current one, with the user's masks of these groups.

        key: (Ck, h, w).
        values: (O, Cv, h, w), in the order of `ids`.
        index: of the frame.
        groups: to add the frame to.
        at: index of the next step.
        """
        parts, keys = self._by_group(values, groups), self._keys(key, index)
        commits = [group.bank.adding(keys, part, "given", index, now=at) for group, part in parts]

        def commit() -> None:
            for one in commits:
                one()

        return commit

    def remove(self, ids: Collection[int]) -> None:
        """Drop these objects, and free their memory."""
        for group in self.groups:
            group.bank.select([place for place, id in enumerate(group.ids) if id not in ids])
        groups = [replace(group, ids=tuple(i for i in group.ids if i not in ids)) for group in self.groups]
        self.groups = tuple(group for group in groups if group.ids)
        self.ids = tuple(id for id in self.ids if id not in ids)

    def forget(self, since: int, until: int, ids: Collection[int]) -> None:
        """Drop the frames from index `since` on from the banks of these objects. Annotated frames stay.

        until: index of the current frame.
        """
        for group in self.groups:
            if not {*ids}.isdisjoint(group.ids):
                group.bank.forget(since)
        latest = max((group.bank.latest(until) for group in self.groups), default=self.memorized)
        self.memorized = max(min(self.memorized, latest), 0)  # corrections never restart the count

    def mark(self, *, cells: bool) -> BanksMark:
        """A state for `rewind`.

        cells: whether frames may be stored or dropped before `rewind`. Slots are then saved before they are
            overwritten, until `unmark`.
        """
        marks = tuple((group.bank, group.bank.mark()) for group in self.groups) if cells else ()
        return BanksMark(self.groups, self.ids, self.memorized, marks)

    def rewind(self, mark: BanksMark) -> None:
        """Restore a marked state, bit for bit. Cannot fail."""
        for bank, bank_mark in mark.marks:
            bank.rewind(bank_mark)
        self.groups, self.ids, self.memorized = mark.groups, mark.ids, mark.memorized

    def unmark(self) -> None:
        """Discard all marks, and free the saved slots."""
        for group in self.groups:
            group.bank.unmark()

    def _keys(self, key: Tensor, index: int) -> FrameKeys:
        """The keys of a frame, to store: those that a bank stores already, if they are equal.

        On a CPU, keys are therefore shared if and only if they are equal, in a loaded session too, and a
        session continues with the same bits. A GPU would wait for the comparison.
        """
        new = FrameKeys.of(key)
        stored = [] if key.is_cuda else _stored_keys(self.groups).get(index, [])
        return next((keys for keys in stored if torch.equal(keys.keys, new.keys)), new)

    def _by_group(self, values: Tensor, groups: Iterable[Group]) -> Iterator[tuple[Group, Tensor]]:
        """The values of each group, from values (O, Cv, h, w) in the order of `ids`."""
        for group in groups:
            if group.ids == self.ids:
                yield group, values
            else:  # stacked: a GPU would wait for a list of indices
                yield group, torch.stack([values[self.ids.index(id)] for id in group.ids])


def _ids(groups: Iterable[Group]) -> tuple[int, ...]:
    """Ids of all objects of the groups."""
    return tuple(id for group in groups for id in group.ids)


def _stored_keys(groups: Iterable[Group]) -> dict[int, list[FrameKeys]]:
    """All keys that the banks store of each frame, by index."""
    stored: dict[int, list[FrameKeys]] = {}
    for group in groups:
        for frame, keys in group.bank.frame_keys.items():
            stored.setdefault(frame, []).append(keys)
    return stored


def _nearest(query: Tensor, parts: Sequence[FrameKeys]) -> Tensor:
    """Squared distance of each query cell (Ck, P) to the nearest cell of the memory: (P,) float32."""
    keys, norms = joined(parts)
    query = query.to(norms.dtype)
    similarity = (2 * keys.to(norms.dtype) @ query - norms[:, None]).amax(dim=0)  # (P,)
    return (query.square().sum(dim=0) - similarity).clamp(min=0)
