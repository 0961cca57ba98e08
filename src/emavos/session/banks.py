"""Everything that is remembered of one video: a memory bank for each group of objects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from emavos.memory import Kind, MemoryBank, MemoryPolicy
from emavos.memory.bank import Mark


@dataclass(frozen=True, eq=False)
class Group:
    """Objects that were introduced on the same frame, and their memory."""

    ids: tuple[int, ...]
    bank: MemoryBank


@dataclass(frozen=True, eq=False)
class BanksMark:
    """What was remembered when it was marked."""

    groups: tuple[Group, ...]
    memorized: int
    marks: tuple[tuple[MemoryBank, Mark], ...]


class Banks:
    """The memory of all objects of a video, in the order they were introduced.

    Objects that were introduced together share a bank, so each of them has a value at every key of it. Frames
    are read from, stored in and dropped from all banks or none.

    groups, memorized: what was remembered when the video was saved.
    """

    def __init__(self, policy: MemoryPolicy, groups: Iterable[Group] = (), memorized: int = 0) -> None:
        self.policy = policy
        self.groups = tuple(groups)
        self.memorized = memorized  # the last frame that began an object or was kept on schedule

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    @property
    def ids(self) -> tuple[int, ...]:
        """The objects, in the order they were introduced."""
        return tuple(id for group in self.groups for id in group.ids)

    @property
    def nbytes(self) -> int:
        """Bytes that the banks take."""
        return sum(group.bank.nbytes for group in self.groups)

    def introduce(self, ids: tuple[int, ...]) -> None:
        """Add a group of new objects; its bank is empty until the frame is stored."""
        self.groups += (Group(ids, MemoryBank(self.policy)),)

    def read(self, key: Tensor, use: int | None) -> Tensor:
        """What the memory says of a frame with this key (Ck, h, w): (O, Cv, h, w), in the order of `ids`.

        use: the frame for which the readout counts as use of the memory; None: it does not count.
        """
        return torch.cat([group.bank.read(key, use) for group in self.groups])

    def unread(self, index: int) -> None:
        """Take back what the last readout counted, if it was of this frame, which did not come after all."""
        for group in self.groups:
            group.bank.unread(index)

    def remembered(self, index: int) -> frozenset[int]:
        """The objects whose masks on a frame were given to the memory already."""
        return frozenset(id for group in self.groups if group.bank.was_given(index) for id in group.ids)

    def within(self, ids: Collection[int]) -> list[Group]:
        """The groups whose objects are all among these."""
        return [group for group in self.groups if {*ids}.issuperset(group.ids)]

    @property
    def begins(self) -> bool:
        """Whether a group has just been introduced and has no frame yet."""
        return any(not len(group.bank) for group in self.groups)

    def latest_key(self, index: int) -> Tensor:
        """The keys (h * w, Ck) of the last frame up to `index` that stays in memory."""
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
        """Do all of adding a frame that can fail for want of memory; what is returned does the rest.

        key: (Ck, h, w). values: (O, Cv, h, w), in the order of `ids`.
        given: the objects whose masks on the frame are known: it is never evicted from their banks.
        remembered: the objects of which the memory knows a mask on this frame already. It keeps that.
        stays: whether the frame stays at all; otherwise it goes at the next addition.
        scheduled: whether the frame counts as the last one that was kept.
        """
        commits = []
        for group, part in zip(self.groups, values.split([len(g.ids) for g in self.groups]), strict=True):
            known = [id in remembered for id in group.ids]
            if all(known):
                commits.append(group.bank.forget_previous)  # a guess does not replace what is known
                continue
            if any(known):  # nor does it beside a correction
                part[known] = group.bank.values_of(index)[known].reshape_as(part[known])
            any_given = any(id in given for id in group.ids)
            kind: Kind = "given" if any_given else "kept" if stays else "temporary"
            commits.append(group.bank.adding(key, part, kind, index))

        def commit() -> None:
            for one in commits:
                one()
            if scheduled:
                self.memorized = index

        return commit

    def adding_known(
        self, key: Tensor, values: Tensor, index: int, groups: Sequence[Group], now: int
    ) -> Callable[[], None]:
        """As `adding`, for a frame of another time whose masks of these groups are known.

        now: the index of the video's next frame.
        """
        places = {id: place for place, id in enumerate(self.ids)}
        commits = []
        for group in groups:
            part = values[[places[id] for id in group.ids]]
            commits.append(group.bank.adding(key, part, "given", index, now=now))

        def commit() -> None:
            for one in commits:
                one()

        return commit

    def remove(self, ids: Collection[int]) -> None:
        """Drop these objects, and free their memory."""
        for group in self.groups:
            group.bank.select([place for place, id in enumerate(group.ids) if id not in ids])
        left = [replace(group, ids=tuple(i for i in group.ids if i not in ids)) for group in self.groups]
        self.groups = tuple(group for group in left if group.ids)

    def forget(self, since: int, until: int, ids: Collection[int]) -> None:
        """Drop the frames from index `since` on that were not given, from the banks of these objects.

        until: the current frame.
        """
        for group in self.groups:
            if not {*ids}.isdisjoint(group.ids):
                group.bank.forget(since)
        held = max((group.bank.latest(until) for group in self.groups), default=self.memorized)
        self.memorized = min(self.memorized, held)  # never later: corrections do not move the schedule

    def mark(self, *, cells: bool) -> BanksMark:
        """What `rewind` goes back to.

        cells: whether frames may be stored or dropped before that. Each slot that is written over is then
            set aside until `unmark`.
        """
        marks = tuple((group.bank, group.bank.mark()) for group in self.groups) if cells else ()
        return BanksMark(self.groups, self.memorized, marks)

    def rewind(self, mark: BanksMark) -> None:
        """Remember what was remembered at a mark, bit for bit. Cannot fail."""
        for bank, own in mark.marks:
            bank.rewind(own)
        self.groups, self.memorized = mark.groups, mark.memorized

    def unmark(self) -> None:
        """Forget all marks, and free what was set aside for them."""
        for group in self.groups:
            group.bank.unmark()
