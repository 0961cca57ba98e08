"""The state of one video: frames in, masks out, and all edits in between."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from emavos.clicks.seen import Look, ObjectClicks, SeenFrame
from emavos.frames.preprocess import (
    WorkingFrame,
    moved,
    one_hot,
    planes_of,
    to_annotation,
    to_mask,
    to_working,
    working_frame,
)
from emavos.memory import MemoryPolicy
from emavos.models import STCN, is_compiled
from emavos.session.file import SessionState, read_state, write_state
from emavos.session.frame import CurrentFrame, Tracker, computing, without_objects
from emavos.session.memory import Banks, BanksMark, Group, LastSeen
from emavos.session.references import Reference, referring, remembering, taught
from emavos.session.result import Result
from emavos.settings import Settings, Shortcuts


@dataclass(frozen=True)
class _Before:
    """The state before a step or an edit, to restore."""

    banks: BanksMark
    now: CurrentFrame | None
    clicks: Mapping[int, ObjectClicks]


class Session:
    """Tracks the objects of one video, one frame at a time.

    Make one with `Predictor.session()`. A session keeps only its memory banks, bounded by the policy, and the
    frame of the last step. Do not share a session between threads, except for `preprocess`. Several sessions
    of one model may run in several threads.

    You can edit the last frame until the next step: `add`, `correct`, `remove`, `pin` and `forget` change the
    memory for later frames, and `undo` reverts the last edit.

    model: frames are processed on the device of its parameters.
    policy: which frames the memory stores and evicts.
    size: short side of the working frame, in pixels; None keeps the size of the frames.
    shortcuts: work to skip; None skips nothing.
    network: runs instead of `model`, such as its `emavos.models.folded` copy.
    settings: policy, size and shortcuts in one, instead of these arguments; what is undecided, such as a
        backend "auto", is decided now. dtype and compile have to be those of the network.
    start: index of the first frame.
    order: indices of the video's frames in the order of the steps, for errors; None: in turn.
    look: makes a frame to click on, for `click`; None: there is no click head.

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
        *,
        settings: Settings | None = None,
        start: int = 0,
        order: Sequence[int] | None = None,
        look: Look | None = None,
    ) -> None:
        self.model = model
        self.network = model if network is None else network
        if settings is None:
            settings = Settings.of(self.network, policy, size, shortcuts)
        if _needs_deciding(settings, self.network):
            settings = settings.decided(self.network)
        self.settings = settings
        self.index = _index("start", start)  # of the next frame
        self.frame_size: tuple[int, int] | None = None  # (H, W), set by the first step
        self._order = order
        self._tracker = Tracker(self.network, self.settings, Banks(self.settings.policy))
        self._now: CurrentFrame | None = None
        self._saved: LastSeen | None = None  # of the last frame of a saved session
        self._undo: list[_Before] = []  # one before each edit since the last step
        self._look = look
        self._seen: SeenFrame | None = None  # the current frame, once it was clicked on
        self._clicks: Mapping[int, ObjectClicks] = {}  # on the current frame, by object
        self._references: list[Reference] = []  # to store before the first frame
        self._absent: dict[int, int] = {}  # frames in a row without a pixel of the object, if counted

    def __repr__(self) -> str:
        size = "unknown" if self.frame_size is None else "{}x{}".format(*self.frame_size)
        return (
            f"Session(index={self.index}, ids={self.ids}, frame_size={size}, "
            f"memory={self.nbytes / 1e6:.1f} MB)"
        )

    def __copy__(self) -> Session:
        """A session that continues on its own from here, with the same network: `copy.copy(session)`."""
        shared = (self.model, self.network, self._look, self._seen, self._order)
        twin: Session = copy.deepcopy(self, {id(each): each for each in shared})
        return twin

    @property
    def _banks(self) -> Banks:
        return self._tracker.banks

    @property
    def _last_seen(self) -> LastSeen | None:
        return self._saved if self._now is None else self._now.last_seen

    @property
    def policy(self) -> MemoryPolicy:
        """Which frames the memory stores and evicts."""
        return self.settings.policy

    @property
    def size(self) -> int | None:
        """Short side of the working frame, in pixels; None keeps the size of the frames."""
        return self.settings.size

    @property
    def shortcuts(self) -> Shortcuts:
        """Work to skip."""
        return self.settings.shortcuts

    @property
    def ids(self) -> tuple[int, ...]:
        """The tracked objects, in the order of introduction."""
        return self._banks.ids

    @property
    def groups(self) -> tuple[Group, ...]:
        """Objects that share a memory bank, and the bank of each group."""
        return self._banks.groups

    @property
    def nbytes(self) -> int:
        """Bytes of the memory banks."""
        return self._banks.nbytes

    def step(self, frame: object, mask: object = None) -> Result:
        """The masks of the next frame.

        Without a mask, and before any object was introduced, the result is an empty mask without ids. You may
        step on, and introduce objects later: with a mask, `add`, `click` or `remember`.

        frame: a PIL image, an array (H, W, 3) of uint8, or a tensor (3, H, W), uint8 or float in [0, 1]; or
            the result of `preprocess` or of `Predictor.encode`.
        mask: your annotation of this frame, if any: (H, W) of ids, 0 if you do not know. An array, a tensor,
            or a PIL image of palette, gray or 1-bit kind. New ids are introduced, and tracked ids are
            corrected. Objects take their pixels from the others.

        Raises ValueError if frame or mask have another kind or size, or the mask has no object, and
        FloatingPointError if the network returns NaN or infinity for an object.
        """
        with computing(self.network) as device:
            working, number = self._working(frame, self.index, device), self._number(self.index)
            given, labels = ((), None) if mask is None else to_annotation(mask, working.size, number)
            with self._all_or_nothing(contents=False):
                self._store_references(working.size, device)
                now = self._tracker.see(working, self.index, number, is_step=True, before=self._last_seen)
                if labels is not None:
                    now = self._tracker.give(now, given, one_hot(moved(labels, device), given))
                result = now.result()
                absent, gone = self._absences(now, result)
                with self._all_or_nothing(contents=bool(gone)):  # objects leave their banks
                    store = self._tracker.storing(now, gone)
                    if gone:
                        now = without_objects(now, gone)
            self._keep_edits()
            store()
        self._now, self._absent = now, absent
        self._seen, self._clicks = None, {}
        self._references.clear()
        self.frame_size = working.size
        self.index += 1
        return result

    def preprocess(self, frame: object, index: int) -> WorkingFrame:
        """The frame, resized and normalised, to pass to `step` or `remember` of this session.

        You may call this in a second thread, ahead of `step`, to save time on a CPU.

        frame: as for `step`.
        index: of the frame, from 0, for errors.

        Raises ValueError as `step` does.
        """
        _index("index", index)
        with computing(self.network) as device:
            return to_working(frame, self.size, device, self._number(index))

    def remember(self, frame: object, mask: object, index: int | None = None) -> tuple[int, ...]:
        """Learn the appearance of objects from an annotated frame of another time, or from another picture.

        The frame is stored for ever in the memory of each group of objects with all of its objects in the
        mask. Other groups and untracked ids are skipped. This clears the undo history.

        frame, mask: as for `step`.
        index: of the frame, from 0. If you step through the frame later, it is read from this memory, and a
            mask passed to that step replaces this one. None: a reference picture of any size, which is no
            frame of the video. Before the first step, its objects are tracked from that step on, so the
            video needs no mask.

        Returns the ids of the objects that learned. Raises ValueError as `step` does, and if the index is
        invalid or no group is complete in the mask.

        >>> session = predictor.session()
        >>> session.remember(photo, mask_of_the_photo)
        >>> for frame in video:
        ...     result = session.step(frame)
        """
        index = None if index is None else _index("index", index)
        if index is not None and not self.groups:
            raise ValueError("no object is tracked; there is nothing to remember")
        with computing(self.network) as device:
            if index is None:
                reference = Reference.of(frame, mask)
                if self.frame_size is None:  # the first step stores it
                    learned = taught([*self._references, reference])
                    self._references.append(reference)
                    return learned
                learned, store = referring(
                    self._tracker, reference, self.frame_size, self.index, device, introduce=False
                )
            else:
                working, number = self._working(frame, index, device), self._number(index)
                labels = to_mask(mask, working.size)  # (H, W) of ids
                learned, store = remembering(self._tracker, working, labels, index, self.index, number)
            self._keep_edits()
            store()
        if (now := self._now) is not None and now.index == index:
            remembered, mistaken = now.remembered.union(learned), now.mistaken.union(learned)
            self._now = replace(now, remembered=remembered, mistaken=mistaken)
        return learned

    def add(self, masks: Mapping[int, object]) -> Result:
        """Track more objects from the current frame on; returns the new result of the frame.

        masks: {id: mask}, each (H, W) and nonzero on the object: an array, a tensor, or a PIL image. The
            pixels are taken from the other objects, whose masks do not change otherwise.

        Raises ValueError if there is no frame yet, an id is tracked already, or a mask is empty, of another
        size, or overlaps another.
        """
        if tracked := [id for id in _ids(masks) if id in self.ids]:
            raise ValueError(f"object {tracked[0]} is tracked already; use correct()")
        return self._edit_masks(masks)

    def correct(self, masks: Mapping[int, object], since: int | None = None) -> Result:
        """Correct masks of the current frame; returns the new result of the frame.

        Later frames are read from the corrected frame, which stays in the memory of these objects for ever.
        Objects that shared a bank with a corrected object continue with a copy, which may evict the frame.

        masks: as for `add`, of tracked objects. An empty mask means that the object is absent.
        since: index of the first frame with a wrong mask of these objects, if you know it. Their memory of
            later frames is dropped, as by `forget`. The memory of other objects stays.

        Raises ValueError as `add` and `forget` do, and if an id is not tracked.
        """
        if unknown := [id for id in _ids(masks) if id not in self.ids]:
            raise ValueError(f"object {unknown[0]} is not tracked; use add()")
        return self._edit_masks(masks, since)

    def click(
        self,
        points: Any = None,
        labels: Any = None,
        *,
        id: int = 1,
        box: Any = None,
        scribbles: Any = None,
        scribble_labels: Any = None,
    ) -> Result:
        """Click on an object of the current frame; returns the new result of the frame.

        If the object is tracked, clicks correct the pieces of its mask around them. Otherwise, clicks find a
        new object, which is tracked from this frame on. Clicks add up until the next step or another edit of
        the object, so pass each click only once. `undo` reverts the clicks of the last call.

        id: of the object. Other arguments: see `emavos.clicks.SeenFrame.click`.

        Raises ValueError as `SeenFrame.click` and `add` do, and if there is no frame yet or no click head.
        """
        if self._now is None or self.frame_size is None:
            raise ValueError("there is no frame to click on yet; step() comes first")
        if self._look is None:
            raise ValueError("this session has no click head; make it with Predictor.session()")
        tracked = self._now.full[1 + self.ids.index(id)].clamp(0, 1) if id in self.ids else None
        with computing(self.network):
            if self._seen is None:
                working = WorkingFrame(self._now.frame.float(), self._now.crop, self.frame_size)
                self._seen = self._look(working, self._now.features)
            clicks = ObjectClicks.on(
                self._seen,
                self._clicks.get(id),
                tracked,
                points=points,
                labels=labels,
                box=box,
                scribbles=scribbles,
                scribble_labels=scribble_labels,
            )
            assert clicks.prob is not None
        result = self._edit_masks({id: clicks.prob > 0.5})
        self._clicks = {**self._clicks, id: clicks}
        return result

    def remove(self, ids: Iterable[int]) -> Result:
        """Stop tracking these objects and free their memory; returns the new result of the current frame.

        Their pixels become background.

        Raises ValueError if there is no frame yet, or an id is not tracked.
        """
        if not isinstance(ids, Iterable):
            raise ValueError(f"ids are a list of them, not {ids!r}")
        ids = list(ids)
        if unknown := [id for id in ids if id not in self.ids]:
            raise ValueError(f"object {unknown[0]} is not tracked")
        with self._editing() as now:
            self._now = without_objects(now, ids)
            self._banks.remove(ids)
            self._clicks = {id: clicks for id, clicks in self._clicks.items() if id not in ids}
            return self._now.result()

    def pin(self) -> None:
        """Keep the current frame, with its current masks, in the memory of all objects for ever.

        If you passed a mask of an object to `remember` for this frame, that mask is kept.

        Raises ValueError if there is no frame yet or no object.
        """
        if not self.groups:
            raise ValueError("no object is tracked; there is nothing to keep")
        with self._editing() as now:
            pinned = (id for id in self.ids if id not in now.remembered)
            self._now = replace(now, given=tuple(dict.fromkeys((*now.given, *pinned))))
            self._tracker.storing(self._now)()

    def forget(self, since: int) -> None:
        """Drop frames from index `since` on from the memory. Annotated frames stay.

        Raises ValueError if there is no frame yet, or `since` is not one of the frames up to the current one.
        """
        with self._editing():
            self._forget(since, self.ids)

    def undo(self) -> Result:
        """Revert the last edit since the last step; returns the current frame's result without the edit."""
        if not self._undo or self._now is None:
            raise ValueError("there is nothing to undo: no edit since the last step")
        before = self._undo[-1]
        assert before.now is not None
        with computing(self.network):
            result = before.now.result()
        self._restore(self._undo.pop())
        return result

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that later frames depend on to a safetensors file, for `load`.

        The current frame is not saved: after loading, you can edit only after the next step.
        """
        if self._references:
            raise ValueError("a reference is stored at the first step; save the session after that step")
        with computing(self.network):
            last_seen = self._last_seen
        state = SessionState(self.settings, self.index, self.frame_size, self._banks, last_seen, self._absent)
        write_state(path, state, self.model)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: STCN,
        network: STCN | None = None,
        look: Look | None = None,
    ) -> Session:
        """Read a saved session, which continues with the frame of `index`.

        model, network: of the saved session; weights and dtype are compared.
        look: as for a new session.

        The session continues with the backend that it began with. On a GPU, "auto" decides anew.

        Raises ValueError if weights or dtype differ, if the session was tracked with the native readout and
        this CPU cannot run it, and if the file is damaged or no saved session.
        """
        network = model if network is None else network
        state = read_state(path, model, network)
        session = cls(model, network=network, settings=state.settings, start=state.index, look=look)
        session._tracker = Tracker(network, state.settings, state.banks)
        session.frame_size, session._absent = state.frame_size, {**state.absent}
        session._saved = state.last_seen
        return session

    def _working(self, frame: object, index: int, device: torch.device) -> WorkingFrame:
        return working_frame(frame, self.size, device, self.frame_size, self._number(index))

    def _number(self, index: int) -> int:
        """The number of a frame in errors: its index in the video, whatever the order of the steps."""
        return index if self._order is None or index >= len(self._order) else self._order[index]

    def _store_references(self, size: tuple[int, int], device: torch.device) -> None:
        """Store the pictures that were remembered before the first frame, whose (H, W) is `size`."""
        for reference in self._references:
            _, store = referring(self._tracker, reference, size, self.index, device, introduce=True)
            store()

    def _absences(self, now: CurrentFrame, result: Result) -> tuple[dict[int, int], list[int]]:
        """Frames in a row without a pixel of each object, and the objects to drop for it."""
        if (most := self.settings.drop_absent) is None:
            return self._absent, []
        present = {*np.unique(result.mask).tolist()}
        more = 0 if now.without_masks else 1  # another scene shows nothing of the objects: the counts wait
        absent = {id: 0 if id in present else self._absent.get(id, 0) + more for id in result.ids}
        gone = [id for id, frames in absent.items() if frames >= most]
        return {id: frames for id, frames in absent.items() if id not in gone}, gone

    def _keep_edits(self) -> None:
        """Clear the undo history, and free what it saved."""
        self._undo.clear()
        self._banks.unmark()

    def _edit_masks(self, masks: Mapping[int, object], since: int | None = None) -> Result:
        """The result of the current frame with these masks of new or tracked objects, as an edit."""
        with self._editing() as now:
            self._clicks = {id: clicks for id, clicks in self._clicks.items() if id not in masks}
            planes = planes_of(masks, tuple(now.full.shape[1:]))
            for id, plane in zip(masks, planes, strict=True):
                if id not in self.ids and not plane.any():
                    raise ValueError(f"the mask of object {id} is empty: there is nothing to track")
            ids = tuple(map(int, masks))
            self._now = self._tracker.give(now, ids, moved(planes, now.full.device), edit=True)
            if since is not None:
                self._forget(since, masks)
            self._tracker.storing(self._now)()
            return self._now.result()  # the last allocation of an edit, so a failed edit is undone

    def _forget(self, since: int, ids: Collection[int]) -> None:
        if _index("since", since) >= self.index:
            raise ValueError(f"since is a frame up to the current one, {self.index - 1}, not {since}")
        self._banks.forget(int(since), until=self.index - 1, ids=ids)
        if self._now is not None:
            self._now = replace(self._now, mistaken=self._now.mistaken.union(ids))

    @contextmanager
    def _editing(self) -> Iterator[CurrentFrame]:
        """The current frame, for an edit that can be undone. If the edit fails, nothing changes."""
        if self._now is None:
            raise ValueError("there is no frame to edit yet; step() comes first")
        with computing(self.network), self._all_or_nothing(contents=True) as before:
            yield self._now
        self._undo.append(before)

    @contextmanager
    def _all_or_nothing(self, *, contents: bool) -> Iterator[_Before]:
        """The state before a step or an edit. It is restored if the block fails.

        contents: as for `Banks.mark`.
        """
        before = _Before(self._banks.mark(contents=contents), self._now, self._clicks)
        try:
            yield before
        except BaseException:  # out of memory, or interrupted
            self._restore(before)
            self._banks.unread(self.index)
            raise

    def _restore(self, before: _Before) -> None:
        self._banks.rewind(before.banks)
        self._now, self._clicks = before.now, before.clicks


def _needs_deciding(settings: Settings, network: STCN) -> bool:
    """Whether the settings leave something to decide or check, or are not of this network."""
    always_runs = settings.policy.backend in ("blocks", "dense")
    undecided = settings.policy.top_k is None or settings.locality is None
    if undecided or not always_runs or not isinstance(network, STCN):
        return True
    return settings.dtype != network.decoder.pred.weight.dtype or settings.compile != is_compiled(network)


def _index(name: str, value: object) -> int:
    """The value as an int. Raises ValueError unless the value of this argument is the index of a frame."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is the index of a frame, counted from 0, not {value!r}")
    return int(value)


def _ids(masks: Mapping[int, object]) -> Iterable[int]:
    """The ids of the masks of an edit. Raises ValueError unless `masks` is a dict."""
    if not isinstance(masks, Mapping):
        raise ValueError(f"masks are a dict {{id: mask}}, not {type(masks).__name__}")
    return masks
