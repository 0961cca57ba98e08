"""The memory of one video: how its objects looked, in memory banks, and where each object was last seen.

`Banks` has a memory bank for each group of objects. `LastSeen` has the place of each object, for two uses:

* Objects rarely jump, and look-alikes stand elsewhere. With `Settings.locality`, the logits of an object fall
  with the distance from its last mask, beyond what the object moves between frames. docs/experiments.md has
  the gain, and how the constants were chosen.
* An object last seen at the border has probably left. The confidence of its empty mask depends on this.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional

from emavos.frames.preprocess import moved
from emavos.memory import Kind, MemoryBank, MemoryPolicy
from emavos.memory.bank import FrameKeys, Mark, joined
from emavos.memory.shared import shared_top
from emavos.models import STRIDE, STCNConfig

_LOOKED_AT = 256  # cells of a frame compared with the memory, about
UNLIKE = 0.2  # a cell resembles no other from this squared distance on, over its own squared length


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
    counted_from: int
    marks: tuple[tuple[MemoryBank, Mark], ...]


class Banks:
    """The memory of all objects of a video.

    Objects that were introduced together share a bank, so each of them has a value at every key of the bank.
    If you correct only some of them, the group splits into two banks: the corrected objects keep the frame
    for ever, and the bank of the others may evict their predicted masks. Frames are read from, stored in and
    dropped from all banks or none. Banks that store the same frame share its keys, and on a CPU one search
    for the most similar cells.

    groups: banks of a saved video.
    counted_from: index of the frame that `MemoryPolicy.every` counts from: the last one that began an object
        or was stored on schedule.
    ids: of the objects, in the order of introduction; None: the order of the groups.
    """

    def __init__(
        self,
        policy: MemoryPolicy,
        groups: Iterable[Group] = (),
        counted_from: int = 0,
        ids: tuple[int, ...] | None = None,
    ) -> None:
        self.policy = policy
        self.groups = tuple(groups)
        for number, group in enumerate(self.groups):
            group.bank.share(_stored_keys(self.groups[:number]))
        self.counted_from = counted_from
        self.ids = _ids(self.groups) if ids is None else ids

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    @property
    def nbytes(self) -> int:
        """Bytes of all banks. Shared keys are counted once."""
        keys = {id(x): x for group in self.groups for x in group.bank.stored_keys}
        return sum(group.bank.own_nbytes for group in self.groups) + sum(x.nbytes for x in keys.values())

    def remembered(self, index: int) -> frozenset[int]:
        """Ids of the objects with a user's mask of this frame in memory."""
        return frozenset(id for group in self.groups if group.bank.was_given(index) for id in group.ids)

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

    def introduce(self, ids: tuple[int, ...]) -> None:
        """Add a group of new objects. Its bank is empty until the frame is stored."""
        self.groups += (Group(ids, MemoryBank(self.policy)),)
        self.ids += ids

    @property
    def has_new(self) -> bool:
        """Whether objects were introduced whose bank has no frame yet."""
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
        waiting: Collection[int] = (),
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
        waiting: ids of objects without a mask of the user. Banks with one of them do not store the frame.
        stays: whether the frame is stored. Otherwise the frame is temporary and is dropped at the next
            addition.
        scheduled: whether the count to the next scheduled frame restarts.
        """
        commits = []
        keys = self._keys(key, index)
        for group, part in self._by_group(values, self.groups):
            keeps = [id in remembered for id in group.ids]
            if all(keeps) or not {*waiting}.isdisjoint(group.ids):
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
                self.counted_from = index

        return commit

    def within(self, ids: Collection[int]) -> list[Group]:
        """The groups with all of their objects in `ids`."""
        return [group for group in self.groups if {*ids}.issuperset(group.ids)]

    @property
    def reference_index(self) -> int:
        """Index for the next reference image: below those of frames and of earlier references."""
        return min([0, *(group.bank.first_index() for group in self.groups)]) - 1

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
        latest = max((group.bank.latest(until) for group in self.groups), default=self.counted_from)
        self.counted_from = max(min(self.counted_from, latest), 0)  # corrections never restart the count

    def unread(self, index: int) -> None:
        """Do not count the last readout as use, if it was for this frame. For a step that failed."""
        for group in self.groups:
            group.bank.unread(index)

    def mark(self, *, contents: bool) -> BanksMark:
        """A state for `rewind`.

        contents: whether `rewind` also restores the contents of the banks. Pass True if frames may be stored
            or dropped, or objects removed, before `rewind`. Until `unmark`, slots are saved before they are
            overwritten.
        """
        marks = tuple((group.bank, group.bank.mark()) for group in self.groups) if contents else ()
        return BanksMark(self.groups, self.ids, self.counted_from, marks)

    def rewind(self, mark: BanksMark) -> None:
        """Restore a marked state, bit for bit. Cannot fail."""
        for bank, bank_mark in mark.marks:
            bank.rewind(bank_mark)
        self.groups, self.ids, self.counted_from = mark.groups, mark.ids, mark.counted_from

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


def unlike_from(config: STCNConfig) -> float:
    """`UNLIKE` for the keys of a model: keys with more parts differ more (docs/experiments.md)."""
    if config.vit_key_channels:
        return 0.35
    return 0.26 if config.fine_key_channels else UNLIKE


def _nearest(query: Tensor, parts: Sequence[FrameKeys]) -> Tensor:
    """Squared distance of each query cell (Ck, P) to the nearest cell of the memory: (P,) float32."""
    keys, norms = joined(parts)
    query = query.to(norms.dtype)
    similarity = (2 * keys.to(norms.dtype) @ query - norms[:, None]).amax(dim=0)  # (P,)
    return (query.square().sum(dim=0) - similarity).clamp(min=0)


_EDGE_DECAY = 0.9  # per frame, of the share of an outline that was seen at the border
_SPEED_DECAY = 0.8  # per frame
_FREE = 0.05  # distance without penalty, in longer sides of the frame
_FREE_PER_SPEED = 2.0
_FREE_PER_ABSENCE = 0.1  # for each frame without a mask
_SLOPE = 20.0  # logits per longer side
_MOST = 4.0  # logits; what has a probability above 0.98 by itself is found anywhere


@dataclass(frozen=True, eq=False)
class LastSeen:
    """Where each of O objects was last seen. An object without a place may be in every cell.

    edges: (O,), the share of each outline last seen at the border. Fades as the object moves inside.
    cells: (O, h, w) bool, the cells of the last mask that was not empty.
    absent: (O,), frames in a row without a mask.
    speed: (O,), the lasting maximum of the distance between the centroids of successive masks, as a share of
        the frame's longer side. Infinite before the first of these distances.
    """

    edges: Tensor
    cells: Tensor
    absent: Tensor
    speed: Tensor

    @classmethod
    def unseen(cls, objects: int, size: tuple[int, int], device: torch.device) -> LastSeen:
        """Of objects that were never seen.

        size: (h, w), in cells.
        """
        zeros = torch.zeros(objects, dtype=torch.float32, device=device)
        cells = torch.ones(objects, *size, dtype=torch.bool, device=device)
        return cls(zeros, cells, zeros, torch.full_like(zeros, torch.inf))

    def with_new(self, objects: int) -> LastSeen:
        """Of this many objects: these, and new ones that were never seen."""
        if (new := objects - len(self.edges)) == 0:
            return self
        height, width = self.cells.shape[1:]
        more = LastSeen.unseen(new, (height, width), self.cells.device)
        return LastSeen(
            *(torch.cat([getattr(x, field.name) for x in (self, more)]) for field in fields(self))
        )

    def only(self, positions: list[int]) -> LastSeen:
        """Of the objects at these positions."""
        return LastSeen(*(getattr(self, field.name)[positions] for field in fields(self)))

    def anywhere(self) -> LastSeen:
        """The same, but no object has a place any more, as after frames of another scene."""
        return replace(self, cells=torch.ones_like(self.cells), absent=torch.zeros_like(self.absent))

    def without_places(self, objects: Sequence[bool]) -> LastSeen:
        """The same, but some objects have neither a place nor a speed, because their masks were wrong.

        objects: whether each object is one of them.
        """
        if not any(objects):
            return self
        chosen = moved(torch.tensor([*objects], device="cpu"), self.cells.device)  # (O,)
        return LastSeen(
            self.edges,
            self.cells | chosen[:, None, None],
            torch.where(chosen, 0.0, self.absent),
            torch.where(chosen, torch.inf, self.speed),
        )

    def after(self, prob: Tensor, signs: Tensor, given: tuple[bool, ...]) -> LastSeen:
        """After the next frame.

        prob: (O, H', W') of the objects.
        signs: (O, 4), see `emavos.session.frame.signs_of`.
        given: whether each object has a user's mask on the frame.
        """
        area, _, edge, _ = signs.unbind(dim=1)
        edges = torch.where(area > 0, torch.maximum(edge, _EDGE_DECAY * self.edges), self.edges)
        if any(given):
            by_user = moved(torch.tensor(given, device="cpu"), edges.device)
            # objects that the user marks as absent count as having left across the border
            edges = torch.where(by_user, torch.where(area > 0, edge, 1.0), edges)
        shown = functional.max_pool2d(prob[:, None], STRIDE)[:, 0] > 0.5  # (O, h, w)
        present = shown.flatten(1).any(dim=1)  # (O,)
        cells = torch.where(present[:, None, None], shown, self.cells)
        distance = (_centroids(cells) - _centroids(self.cells)).square().sum(dim=1).sqrt()  # (O,), in cells
        step = distance / max(cells.shape[1:])
        speed = torch.where(self.speed.isinf(), step, torch.maximum(_SPEED_DECAY * self.speed, step))
        measured = present & ~self.cells.flatten(1).all(dim=1)  # there was a place before
        return LastSeen(
            edges, cells, torch.where(present, 0.0, self.absent + 1), torch.where(measured, speed, self.speed)
        )

    def penalty(self, size: tuple[int, int]) -> Tensor:
        """What locality takes from the logits of each object: (O, H', W') in [0, 4].

        size: (H', W'), the working size.
        """
        free = _FREE + _FREE_PER_SPEED * self.speed + _FREE_PER_ABSENCE * self.absent  # (O,)
        share = distances(self.cells) / max(self.cells.shape[1:])  # (O, h, w)
        penalty = (_SLOPE * (share - free[:, None, None])).clamp(0, _MOST)
        return functional.interpolate(penalty[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def _centroids(cells: Tensor) -> Tensor:
    """The mean row and column of the true cells: (O, h, w) bool -> (O, 2)."""
    area = cells.flatten(1).sum(dim=1).float()  # (O,), never 0: an object without a place has all cells
    means = []
    for axis, other in ((1, 2), (2, 1)):
        position = torch.arange(cells.shape[axis], device=cells.device)
        means.append((cells.sum(dim=other) * position).sum(dim=1).float() / area)  # int / int: default dtype
    return torch.stack(means, dim=1)


def distances(cells: Tensor) -> Tensor:
    """Distance of each cell to the nearest true cell: (O, h, w) bool -> (O, h, w) float32, in cells.

    Exact, in two passes over rows and columns (Felzenszwalb and Huttenlocher, Theory of Computing 2012, with
    a search of all parabolas, because frames have few cells). Infinite if no cell is true.
    """
    zero = torch.zeros((), dtype=torch.float32, device=cells.device)
    in_rows = _envelope(torch.where(cells, zero, torch.inf))
    return _envelope(in_rows.transpose(1, 2)).transpose(1, 2).sqrt()


def _envelope(heights: Tensor) -> Tensor:
    """The least of (x - y)^2 + heights[..., y] over all y: (..., n) -> (..., n).

    In blocks of x, so that even of a very long frame no tensor is larger than the logits.
    """
    x = torch.arange(heights.shape[-1], dtype=torch.float32, device=heights.device)
    lowest = torch.empty_like(heights)
    block = STRIDE * STRIDE
    for out, some in zip(lowest.split(block, dim=-1), x.split(block), strict=True):
        out[:] = ((some[:, None] - x).square() + heights[..., None, :]).amin(dim=-1)
    return lowest
