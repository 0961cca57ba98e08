"""The life of one video: frames in, masks out, and all that changes in between."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from emavos.confidence import observe
from emavos.frames import check_short_side, moved, resize
from emavos.given import overwrite, without
from emavos.masks import Crop, aggregate, ids_of, one_hot, pad_to_stride, planes_of, to_mask
from emavos.memory import Kind, MemoryBank, MemoryPolicy
from emavos.memory.bank import Mark
from emavos.memory.policy import check_policy
from emavos.models import STCN, Features
from emavos.result import Result
from emavos.shortcuts import Shortcuts, cells_near, coverage, encode_near
from emavos.working import WorkingFrame, prepare

OBJECTS_AT_ONCE = 8  # through the network: its memory stays bounded, and what they share is computed once


@dataclass(frozen=True, eq=False)
class Group:
    """Objects that were introduced on the same frame, and their memory."""

    ids: tuple[int, ...]
    bank: MemoryBank


@dataclass(frozen=True, eq=False)
class _Now:
    """The frame of the last step, which can be edited until the next."""

    index: int
    frame: Tensor  # (1, 3, H', W'), normalised and padded, at the working size
    features: Features
    crop: Crop  # undoes the padding
    prob: Tensor  # (1 + O, H', W')
    full: Tensor  # (1 + O, H, W), of the result
    given: tuple[int, ...] = ()  # the objects whose masks are known on it
    remembered: frozenset[int] = frozenset()  # those whose masks on it the memory knows from elsewhere
    edges: Mapping[int, float] = field(default_factory=dict)  # of the frame before, see `observe`


@dataclass(frozen=True)
class _State:
    """What a step or an edit changes, and what takes it back."""

    groups: list[Group]
    memorized: int
    now: _Now | None
    marks: list[tuple[MemoryBank, Mark]]  # before an edit; a step writes last, and cannot fail there


class Session:
    """Follows the objects of one video, a frame at a time.

    Made by `Predictor.session()`. Holds the memory banks, which the policy bounds, and the frame of the last
    step; nothing else. Not to be shared between threads but for `prepare`; sessions of one model may run in
    several.

    That frame can be edited until the next step: `add`, `correct`, `remove`, `pin` and `forget` change what
    the frames after it are read from, and `undo` takes back the last of them.

    model: where frames are processed is where its parameters are.
    size: short side in pixels at which frames are processed; None keeps theirs.
    shortcuts: work that is left out; None: nothing is.
    network: what computes, where it is not the model itself but its `emavos.models.folded` copy.

    >>> session = predictor.session()
    >>> result = session.step(first_frame, mask)
    >>> for frame in camera:
    ...     result = session.step(frame)
    """

    def __init__(
        self,
        model: STCN,
        policy: MemoryPolicy | None = None,
        size: int | None = 480,
        shortcuts: Shortcuts | None = None,
        network: STCN | None = None,
    ) -> None:
        check_short_side(size)
        check_policy(policy)
        self.model = model
        self.network = model if network is None else network
        self.policy = MemoryPolicy() if policy is None else policy
        self.size = size
        self.shortcuts = Shortcuts() if shortcuts is None else shortcuts
        self.index = 0  # of the next frame
        self.groups: list[Group] = []
        self.memorized = 0  # the last frame that began an object or was kept
        self.frame_size: tuple[int, int] | None = None  # (H, W), known from the first frame on
        self.order: Sequence[int] | None = None  # which frame comes when, if not in turn; errors name it
        self._now: _Now | None = None
        self._edges: dict[int, float] = {}  # of the current frame, see `observe`
        self._undo: list[_State] = []  # one before each edit since the last step

    @property
    def ids(self) -> tuple[int, ...]:
        """The objects followed, in the order they were introduced."""
        return tuple(id for group in self.groups for id in group.ids)

    @property
    def nbytes(self) -> int:
        """Bytes that the memory banks take."""
        return sum(group.bank.nbytes for group in self.groups)

    def step(self, frame: object, mask: object = None) -> Result:
        """The masks of the next frame.

        frame: a PIL image, an array (H, W, 3) of uint8, or a tensor (3, H, W), uint8 or float in [0, 1]; or
            what `prepare` made of one.
        mask: what is known of this frame, (H, W) of ids with 0 where nothing is: an array, a tensor, a PIL
            image of palette, gray or 1-bit kind. Ids not yet followed are introduced; ids followed already
            are corrected. Objects take their pixels from the others.

        Raises ValueError where frame or mask are of another kind or size, or the mask holds no object;
        FloatingPointError where the network gives NaN or infinity for an object.
        """
        with self._computing() as device:
            working = self._working(frame, self.index, device)
            given = None if mask is None else to_mask(mask, working.size)
            known = () if given is None else ids_of(given)
            if given is not None and not known:
                raise ValueError(
                    f"the mask of frame {self._told(self.index)} is empty: every pixel is 0, the background"
                )
            before = self._state()
            try:
                now = self._see(working, self.index, use=self.index)
                if given is not None:
                    now = self._give(now, known, one_hot(moved(given, device), known))
                self._memorize(now)
            except BaseException:  # out of memory, or interrupted: as if the frame had not come
                self._restore(before)
                for group in self.groups:
                    group.bank.unread(self.index)
                raise
        self._now = now
        self.frame_size = working.size
        self.index += 1
        return self._result(now)

    def prepare(self, frame: object, index: int) -> WorkingFrame:
        """What `step` does first with a frame, for a thread that works ahead of it on a CPU.

        index: of the frame, counted from 0, which an error names. Returns (1, 3, H', W') and what undoes it,
        to be given to `step` or `remember` of this session. Raises ValueError as `step` does.
        """
        _index("index", index)
        with self._computing() as device:
            return self._prepared(frame, index, device)

    def _see(self, working: WorkingFrame, index: int, use: int | None = None) -> _Now:
        """What the memory and a frame say of the objects followed.

        use: the frame of whose time the readout counts as use of the memory; None: of none.
        """
        frame = working.pixels.to(next(self.network.parameters()).dtype)
        features = self.network.encode_key(frame)
        prob = self._propagate(features, frame, index, use)  # (1 + O, H', W')
        remembered = [id for group in self.groups if group.bank.was_given(index) for id in group.ids]
        full = resize(prob[working.crop], working.size)
        return _Now(
            index,
            frame,
            features,
            working.crop,
            prob,
            full,
            remembered=frozenset(remembered),
            edges=self._edges,
        )

    def _propagate(self, features: Features, frame: Tensor, index: int, use: int | None) -> Tensor:
        """The probabilities of the objects followed: (1 + O, H', W')."""
        if not self.groups:
            return torch.ones(1, *frame.shape[2:], dtype=torch.float32, device=frame.device)  # background
        key = features.key[0].float()  # in half precision, cells that differ would look the same
        readout = torch.cat([group.bank.read(key, use) for group in self.groups])  # (O, Cv, h, w)
        cells: Sequence[Tensor | None] = [None] * len(self.ids)
        if self.shortcuts.decode_near:
            readout, covered = readout[:, :-1], readout[:, -1]
            cells = cells_near(covered)[None].split(OBJECTS_AT_ONCE, dim=1)
        some = zip(readout[None].split(OBJECTS_AT_ONCE, dim=1), cells, strict=False)
        parts = [self.network.decode(part, features, near)[0] for part, near in some]
        logits = torch.cat(parts).float()  # (O, H', W')
        far = self.shortcuts.decode_near  # of which minus infinity is said
        self._check_finite(index, readout, logits.clamp(min=0) if far else logits)
        return aggregate(logits.sigmoid())

    def _check_finite(self, index: int, *parts: Tensor) -> None:
        """A sum for each object, which NaN and infinity survive; masks would be black and not say why."""
        sums = torch.stack([part.flatten(1).sum(dim=1, dtype=torch.float32) for part in parts]).sum(dim=0)
        for id, total in zip(self.ids, sums.tolist(), strict=True):
            if not math.isfinite(total):
                raise FloatingPointError(
                    f"frame {self._told(index)}: the network gives NaN or infinity for object {id}; its "
                    "weights are damaged, or its numbers too large for their dtype (float32 holds the most)"
                )

    def _give(self, now: _Now, known: tuple[int, ...], planes: Tensor, edit: bool = False) -> _Now:
        """The frame with the masks of known objects, (G, H, W) of 0 and 1; a bank for those that are new.

        edit: others keep what they got but for the pixels they cede, be they as improbable as the background.
        """
        if new := tuple(id for id in known if id not in self.ids):
            self.groups.append(Group(new, MemoryBank(self.policy)))
        height, width = now.prob[now.crop].shape[1:]
        working = pad_to_stride(resize(planes, (height, width)))[0]
        prob = overwrite(now.prob, self.ids, known, working)
        full = overwrite(now.full, self.ids, known, planes)
        return replace(
            now,
            prob=aggregate(prob[1:]) if new else prob,  # as STCN introduces objects
            full=aggregate(full[1:]) if new and not edit else full,
            given=tuple(dict.fromkeys(now.given + known)),
            remembered=now.remembered.difference(known),
        )

    def _memorize(self, now: _Now, edit: bool = False) -> None:
        """Store the frame in every bank where it is given or due, or as the last frame."""
        commits, scheduled = self._additions(now)
        if not edit:
            self._keep_edits()
        for commit in commits:  # all banks or none
            commit()
        if scheduled:  # a correction comes beside the frames that are kept, and delays none of them
            self.memorized = now.index

    def _additions(self, now: _Now) -> tuple[list[Callable[[], None]], bool]:
        """What stores the frame and cannot fail, a bank each, and whether it is one of those to be kept."""
        if not self.groups:
            return [], False
        begins = any(not len(group.bank) for group in self.groups)
        late = now.index - self.memorized >= self.policy.every
        scheduled = begins or (late and self._has_moved(now))
        due = scheduled or bool(now.given)
        if not (due or self.policy.include_last):
            return [], False
        values = self._values(now)  # (O, Cv, h, w)
        key, commits = now.features.key[0].float(), []
        for group, part in zip(self.groups, values.split([len(g.ids) for g in self.groups]), strict=True):
            known = [id in now.remembered for id in group.ids]
            if all(known):
                commits.append(group.bank.forget_previous)  # a guess does not take the place of what is known
                continue
            if any(known):  # nor does it beside a correction
                part[known] = group.bank.values_of(now.index)[known].reshape_as(part[known])
            given = any(id in now.given for id in group.ids)
            kind: Kind = "given" if given else "kept" if due else "temporary"
            commits.append(group.bank.prepare(key, part, kind, now.index))
        return commits, scheduled

    def _values(self, now: _Now) -> Tensor:
        """What the memory is to hold of each object followed: (O, Cv, h, w)."""
        prob = now.prob[None, 1:].to(now.frame.dtype)  # (1, O, H', W')
        total = prob.sum(dim=1, keepdim=True)
        near = self.shortcuts.encode_near and not now.given
        encode = partial(encode_near, self.network) if near else self.network.encode_value
        some = prob.split(OBJECTS_AT_ONCE, dim=1)
        parts = [encode(now.frame, now.features, part, total)[0] for part in some]
        values = torch.cat(parts)
        if not self.shortcuts.decode_near:
            return values
        return torch.cat([values, coverage(prob[0]).to(values.dtype)], dim=1)  # (O, Cv + 1, h, w)

    def _has_moved(self, now: _Now) -> bool:
        """Whether the keys of a frame differ from those of the last that was given or kept."""
        if self.shortcuts.still == 0:
            return True
        key = now.features.key[0].flatten(1).T.float()  # (h * w, Ck)
        distance = (key - self.groups[0].bank.latest_key(now.index)).square().sum(dim=1).mean() / key.shape[
            1
        ] ** 0.5
        return bool(distance >= self.shortcuts.still)

    def remember(self, frame: object, mask: object, index: int) -> tuple[int, ...]:
        """Learn what objects look like on a frame of another time, which is not stepped through now.

        The frame becomes a memory that is never evicted, of the objects that were introduced together and are
        all in the mask. Others, and objects that are not followed, are passed over.

        What was edited since the last step can then no longer be undone.

        frame, mask: as for `step`. index: of the frame, counted from 0; when its turn comes, it is read from
            this, and a mask that is given with it takes the place of this one.

        Returns the ids of the objects of which it is remembered. Raises ValueError as `step` does, where the
        index is none, and where there are no such objects.
        """
        index = _index("index", index)
        if not self.groups:
            raise ValueError("no object is followed; there is nothing to remember")
        with self._computing() as device:
            working = self._working(frame, index, device)
            given = to_mask(mask, working.size)
            shown = {*ids_of(given)}
            groups = [group for group in self.groups if shown.issuperset(group.ids)]
            if not groups:
                lacking = ", ".join(str(id) for id in self.ids if id not in shown)
                raise ValueError(
                    f"the mask of frame {self._told(index)} cannot be remembered: it lacks {lacking:.60}, "
                    "and objects that were introduced together are remembered together"
                )
            known = tuple(id for group in groups for id in group.ids)
            now = self._give(self._see(working, index), known, one_hot(moved(given, device), known))
            values = self._values(now)  # (O, Cv, h, w)
            places = {id: place for place, id in enumerate(self.ids)}
            key, commits = now.features.key[0].float(), []
            for group in groups:
                part = values[[places[id] for id in group.ids]]
                commits.append(group.bank.prepare(key, part, "given", index, now=self.index))
            self._keep_edits()
            for commit in commits:  # all banks or none
                commit()
        if self._now is not None and self._now.index == index:
            self._now = replace(self._now, remembered=self._now.remembered.union(known))
        return known

    def add(self, masks: Mapping[int, object]) -> Result:
        """Follow more objects from the current frame on; returns its new result.

        masks: {id: mask}, each (H, W) and not 0 where the object is: an array, a tensor, or a PIL image. They
            take their pixels from the others, which lose nothing else.

        Raises ValueError where there is no frame yet, an id is followed already, or a mask is empty, of
        another size, or overlaps another.
        """
        if followed := [id for id in _ids(masks) if id in self.ids]:
            raise ValueError(f"object {followed[0]} is followed already; use correct()")
        return self._mend(masks)

    def correct(self, masks: Mapping[int, object], since: int | None = None) -> Result:
        """Say what objects look like on the current frame; returns its new result.

        The frame stays in their memory for ever, and those after it are read from it.

        masks: as for `add`, of objects that are followed. An empty one says that the object is not there.
        since: the index of the frame from which on the memory is known to be wrong: see `forget`.

        Raises ValueError as `add` does, and where an id is not followed.
        """
        if unknown := [id for id in _ids(masks) if id not in self.ids]:
            raise ValueError(f"object {unknown[0]} is not followed; use add()")
        return self._mend(masks, since)

    def remove(self, ids: Iterable[int]) -> Result:
        """Follow these objects no longer, and free their memory; returns the current frame's new result.

        Their pixels become background. Raises ValueError where there is no frame yet, or an id is not
        followed.
        """
        if not isinstance(ids, Iterable):
            raise ValueError(f"ids are a list of them, not {ids!r}")
        ids = list(ids)
        if unknown := [id for id in ids if id not in self.ids]:
            raise ValueError(f"object {unknown[0]} is not followed")
        with self._editing() as now:
            left = [place for place, id in enumerate(self.ids) if id not in ids]
            for group in self.groups:
                group.bank.select([place for place, id in enumerate(group.ids) if id not in ids])
            groups = [
                replace(group, ids=tuple(i for i in group.ids if i not in ids)) for group in self.groups
            ]
            self.groups = [group for group in groups if group.ids]
            self._now = replace(
                now,
                prob=without(now.prob, left),
                full=without(now.full, left),
                given=tuple(id for id in now.given if id not in ids),
            )
        return self._result(self._now)

    def pin(self) -> None:
        """Keep the current frame, as it is, in the memory of all objects for ever.

        Of objects whose masks on it were remembered, those are what is kept.

        Raises ValueError where there is no frame yet or no object.
        """
        if not self.groups:
            raise ValueError("no object is followed; there is nothing to keep")
        with self._editing() as now:
            given = now.given + tuple(id for id in self.ids if id not in now.remembered)
            self._now = replace(now, given=tuple(dict.fromkeys(given)))
            self._memorize(self._now, edit=True)
        self._result(self._now)  # which says to the next frame where the objects are

    def forget(self, since: int) -> None:
        """Drop what the memory holds of frames from index `since` on, but for frames that were given.

        Raises ValueError where there is no frame yet, or `since` is no index.
        """
        with self._editing():
            self._forget(since)

    def undo(self) -> Result:
        """Take back the last edit since the last step; returns the current frame's result without it."""
        if not self._undo or self._now is None:
            raise ValueError("there is nothing to undo: no edit since the last step")
        self._restore(self._undo.pop())
        return self._result(self._now)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that the frames to come depend on into a safetensors file, which `load` reads.

        The current frame is not part of it: after loading, edits wait for the next step.
        """
        from emavos.saved_session import save_session

        save_session(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: STCN, network: STCN | None = None) -> Session:
        """The session that was saved, to go on with the frame of `index`.

        model, network: those it was saved with; weights and dtype are compared. Raises ValueError where they
        differ, or the file is damaged or something else.
        """
        from emavos.saved_session import load_session

        return load_session(path, model, network)

    def _mend(self, masks: Mapping[int, object], since: int | None = None) -> Result:
        with self._editing() as now:
            planes = planes_of(masks, tuple(now.full.shape[1:]))
            for id, plane in zip(masks, planes, strict=True):
                if id not in self.ids and not plane.any():
                    raise ValueError(f"the mask of object {id} is empty: there is nothing to follow")
            if since is not None:
                self._forget(since)
            self._now = self._give(now, tuple(map(int, masks)), moved(planes, now.full.device), edit=True)
            self._memorize(self._now, edit=True)
        return self._result(self._now)

    def _forget(self, since: int) -> None:
        since = _index("since", since)
        for group in self.groups:
            group.bank.forget(since)
        held = max((group.bank.latest(self.index - 1) for group in self.groups), default=self.memorized)
        self.memorized = min(self.memorized, held)  # never later: corrections do not move the schedule

    @contextmanager
    def _computing(self) -> Iterator[torch.device]:
        """Where and how the network runs, whatever the caller's settings are."""
        device = next(self.network.parameters()).device
        with (
            torch.inference_mode(False),  # whose tensors could not be written to outside it
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            yield device

    @contextmanager
    def _editing(self) -> Iterator[_Now]:
        """The current frame, to be edited; the edit can be undone, and one that fails changes nothing."""
        if self._now is None:
            raise ValueError("there is no frame to edit yet; step() comes first")
        with self._computing():
            before = self._state([(group.bank, group.bank.mark()) for group in self.groups])
            try:
                yield self._now
            except BaseException:
                self._restore(before)
                raise
        self._undo.append(before)

    def _keep_edits(self) -> None:
        """What was edited can be undone no longer; nothing is set aside for that from here on."""
        self._undo.clear()
        for group in self.groups:
            group.bank.unmark()

    def _state(self, marks: Iterable[tuple[MemoryBank, Mark]] = ()) -> _State:
        return _State([*self.groups], self.memorized, self._now, [*marks])

    def _restore(self, state: _State) -> None:
        for bank, mark in state.marks:
            bank.rewind(mark)
        self.groups, self.memorized, self._now = state.groups, state.memorized, state.now

    def _result(self, now: _Now) -> Result:
        confidences, self._edges = observe(now.prob[now.crop], self.ids, now.given, now.edges)
        return Result(now.index, self.ids, now.full, confidences)

    def _told(self, index: int) -> int:
        """What a frame is called in an error."""
        return index if self.order is None else self.order[index]

    def _working(self, frame: object, index: int, device: torch.device) -> WorkingFrame:
        """A frame, prepared, of the size with which the video began."""
        working = frame if isinstance(frame, WorkingFrame) else self._prepared(frame, index, device)
        if not working.suits(self.size, device):
            height, width = working.working_size
            raise ValueError(
                f"frame {self._told(index)} was prepared at {height}x{width} (height x width) on "
                f"{working.pixels.device.type}, for a session of another size or device than this one, "
                f"whose size is {self.size} on {device.type}"
            )
        if self.frame_size is not None and working.size != self.frame_size:
            (height, width), size = self.frame_size, working.size
            raise ValueError(
                f"frame {self._told(index)} is {size[0]}x{size[1]} but the video began with {height}x{width} "
                "(height x width); resize it, or begin a new session"
            )
        return working

    def _prepared(self, frame: object, index: int, device: torch.device) -> WorkingFrame:
        try:
            return prepare(frame, self.size, device)
        except ValueError as error:
            raise ValueError(f"frame {self._told(index)}: {error}") from error


def _index(name: str, value: object) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is the index of a frame, counted from 0, not {value!r}")
    return int(value)


def _ids(masks: Mapping[int, object]) -> Iterable[int]:
    if not isinstance(masks, Mapping):
        raise ValueError(f"masks are a dict {{id: mask}}, not {type(masks).__name__}")
    return masks
