"""The state of one video: frames in, masks out, and all edits in between."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emavos.clicks.prompt import make_prompt
from emavos.clicks.seen import Look, ObjectClicks, SeenFrame
from emavos.confidence.expected import observe, signs
from emavos.frames.masks import ids_of, one_hot, planes_of, to_mask
from emavos.frames.preprocess import WorkingFrame, moved, resize, to_frame
from emavos.memory import MemoryPolicy
from emavos.models import STCN
from emavos.session.banks import Banks, BanksMark, Group
from emavos.session.file import SessionState, read_state, write_state
from emavos.session.frame import (
    CurrentFrame,
    check_fits,
    distance,
    encode_values,
    fitted,
    only_background,
    prepared,
    probabilities,
    with_masks,
    without_objects,
)
from emavos.session.result import CUT, Result
from emavos.settings import Settings, Shortcuts


@dataclass(frozen=True)
class _Before:
    """The state before a step or an edit, to restore."""

    banks: BanksMark
    now: CurrentFrame | None
    sureness: _Sureness
    clicks: Mapping[int, ObjectClicks] = field(default_factory=dict)


@dataclass(frozen=True)
class _Sureness:
    """The results of `observe` for the current frame."""

    confidences: tuple[float, ...] = ()
    edges: Mapping[int, float] = field(default_factory=dict)


class Session:
    """Tracks the objects of one video, one frame at a time.

    Make one with `Predictor.session()`. A session keeps only its memory banks, bounded by the policy, and the
    frame of the last step. Do not share a session between threads, except for `prepare`. Several sessions of
    one model may run in several threads.

    You can edit the last frame until the next step: `add`, `correct`, `remove`, `pin` and `forget` change the
    memory for later frames, and `undo` reverts the last edit.

    model: frames are processed on the device of its parameters.
    policy: which frames the memory stores and evicts.
    size: short side of the working frame, in pixels; None keeps the size of the frames.
    shortcuts: work to skip; None skips nothing.
    network: runs instead of `model`, such as its `emavos.models.folded` copy.
    settings: policy, size and shortcuts in one, instead of these arguments.
    start: index of the first frame.
    order: which frame of the video comes when, if not in turn; errors name it.
    look: makes a frame that can be clicked on, for `click`; None: there is no click head.

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
        self.settings = settings or Settings.of(self.network, policy, size, shortcuts)
        self.index = _index("start", start)  # of the next frame
        self.frame_size: tuple[int, int] | None = None  # (H, W), set by the first step
        self._order = order
        self._banks = Banks(self.settings.policy)
        self._now: CurrentFrame | None = None
        self._sureness = _Sureness()
        self._undo: list[_Before] = []  # one before each edit since the last step
        self._look = look
        self._seen: SeenFrame | None = None  # the current frame, once it was clicked on
        self._clicks: Mapping[int, ObjectClicks] = {}  # on the current frame, by object
        self._references: list[tuple[Tensor, Tensor]] = []  # images and masks to store before the first frame
        self._absent: dict[int, int] = {}  # frames in a row without a pixel of the object, if counted

    def __repr__(self) -> str:
        size = "unknown" if self.frame_size is None else "{}x{}".format(*self.frame_size)
        return (
            f"Session(index={self.index}, ids={self.ids}, frame_size={size}, "
            f"memory={self.nbytes / 1e6:.1f} MB)"
        )

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

        frame: a PIL image, an array (H, W, 3) of uint8, or a tensor (3, H, W), uint8 or float in [0, 1]; or
            the result of `prepare`.
        mask: your annotation of this frame, if any: (H, W) of ids, 0 if you do not know. An array, a tensor,
            or a PIL image of palette, gray or 1-bit kind. New ids are introduced, and tracked ids are
            corrected. Objects take their pixels from the others.

        Raises ValueError if frame or mask have another kind or size, or the mask has no object, and
        FloatingPointError if the network returns NaN or infinity for an object.
        """
        with self._computing() as device:
            working = self._working(frame, self.index, device)
            labels = None if mask is None else to_mask(mask, working.size)  # (H, W) of ids
            known = () if labels is None else ids_of(labels)
            if labels is not None and not known:
                raise ValueError(
                    f"the mask of frame {self._name(self.index)} is empty: every pixel is 0, the background"
                )
            before = _Before(self._banks.mark(cells=False), self._now, self._sureness, self._clicks)
            try:
                for image, labels_of_image in self._references:
                    self._refer(image, labels_of_image, working.size, device)()
                now = self._see(working, self.index, use=self.index)
                if labels is not None:
                    now = self._give(now, known, one_hot(moved(labels, device), known))
                sureness = self._observe(now)
                result = self._result(now, sureness)
                store = self._storing(now)
            except BaseException:  # out of memory, or interrupted: undo the step
                self._restore(before)
                self._banks.unread(self.index)
                raise
            self._keep_edits()
            store()
        self._now, self._sureness = now, sureness
        self._seen, self._clicks = None, {}
        self._references.clear()
        self.frame_size = working.size
        self.index += 1
        if self.settings.drop_absent is not None:
            self._drop_absent(result, self.settings.drop_absent)
        return result

    def prepare(self, frame: object, index: int) -> WorkingFrame:
        """The frame, resized and normalised, to pass to `step` or `remember` of this session.

        You may call this in a second thread, ahead of `step`, to save time on a CPU.

        frame: as for `step`.
        index: of the frame, from 0, for errors.

        Raises ValueError as `step` does.
        """
        _index("index", index)
        with self._computing() as device:
            return prepared(frame, self.size, device, self._name(index))

    def _see(self, working: WorkingFrame, index: int, use: int | None = None) -> CurrentFrame:
        """The predicted masks of a frame.

        use: the frame for which the readout counts as use of the memory; None: the readout does not count.
        """
        frame = working.pixels.to(next(self.network.parameters()).dtype)
        features = self.network.encode_key(frame)
        unmatched = None
        if self.groups and use is not None and self.settings.cuts != "ignore":
            unmatched = float(self._banks.unmatched(features.key[0].float()))
        without = unmatched is not None and unmatched >= CUT and self.settings.cuts == "stop"
        if without:
            prob = only_background(len(self.ids), frame)
        elif self.groups:
            readout = self._banks.read(features.key[0].float(), use)  # (O, Cv, h, w)
            name = self._name(index)
            prob = probabilities(self.network, readout, features, self.ids, self.shortcuts, name)
        else:
            prob = only_background(0, frame)
        full = resize(prob[working.crop], working.size)
        remembered = self._banks.remembered(index)
        return CurrentFrame(
            index,
            frame,
            features,
            working.crop,
            prob,
            full,
            remembered=remembered,
            edges=self._sureness.edges,
            unmatched=unmatched,
            without_masks=without,
        )

    def _give(
        self, now: CurrentFrame, known: tuple[int, ...], planes: Tensor, edit: bool = False
    ) -> CurrentFrame:
        """The frame with the user's masks, planes (G, H, W) of 0 and 1, of the objects `known`.

        New objects get a bank. Tracked objects stop sharing a bank with objects that have no mask on the
        frame.
        """
        self._banks.divide({*known, *now.given, *now.remembered})
        if new := tuple(id for id in known if id not in self.ids):
            self._banks.introduce(new)
        return with_masks(now, self.ids, known, planes, new=bool(new), edit=edit)

    def _storing(self, now: CurrentFrame) -> Callable[[], None]:
        """A callable that stores the frame, if annotated or due, or as the previous one. Cannot fail."""
        if not self.groups or (now.without_masks and not now.given):
            return _nothing
        late = now.index - self._banks.memorized >= self.settings.policy.every
        scheduled = self._banks.begins or (late and self._has_moved(now))
        stays = scheduled or bool(now.given)  # corrections are stored as well and do not restart the count
        if not (stays or self.settings.policy.include_last):
            return _nothing
        values = encode_values(self.network, now, self.settings.shortcuts)  # (O, Cv, h, w)
        return self._banks.adding(
            now.key,
            values,
            now.index,
            given=now.given,
            remembered=now.remembered,
            stays=stays,
            scheduled=scheduled,
        )

    def _has_moved(self, now: CurrentFrame) -> bool:
        """Whether the keys of a frame differ enough from those of the last stored frame."""
        still = self.settings.shortcuts.still
        return still == 0 or bool(distance(now, self._banks.latest_key(now.index)) >= still)

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
        if index is None:
            return self._reference(frame, mask)
        index = _index("index", index)
        if not self.groups:
            raise ValueError("no object is followed; there is nothing to remember")
        with self._computing() as device:
            working = self._working(frame, index, device)
            labels = to_mask(mask, working.size)  # (H, W) of ids
            shown = {*ids_of(labels)}
            groups = self._banks.within(shown)
            if not groups:
                lacking = ", ".join(str(id) for id in self.ids if id not in shown)
                raise ValueError(
                    f"the mask of frame {self._name(index)} cannot be remembered: it lacks {lacking:.60}, "
                    "and objects that were introduced together are remembered together"
                )
            known = tuple(id for group in groups for id in group.ids)
            now = self._give(self._see(working, index), known, one_hot(moved(labels, device), known))
            values = encode_values(self.network, now, self.settings.shortcuts)  # (O, Cv, h, w)
            store = self._banks.adding_known(now.key, values, index, groups, now=self.index)
            self._keep_edits()
            store()
        if self._now is not None and self._now.index == index:
            self._now = replace(self._now, remembered=self._now.remembered.union(known))
        return known

    def _reference(self, frame: object, mask: object) -> tuple[int, ...]:
        """`remember` of a picture that is no frame. Waits for the first step if the size is still unknown."""
        with self._computing() as device:
            image = to_frame(frame)
            labels = to_mask(mask, tuple(image.shape[1:]))
            shown = ids_of(labels)
            if not shown:
                raise ValueError("the mask of the reference is empty: every pixel is 0, the background")
            if self.frame_size is None:
                self._references.append((image, labels))
                return shown
            store = self._refer(image, labels, self.frame_size, device)
            self._keep_edits()
            store()
        return tuple(id for group in self._banks.within(shown) for id in group.ids)

    def _refer(
        self, image: Tensor, labels: Tensor, size: tuple[int, int], device: torch.device
    ) -> Callable[[], None]:
        """A callable that stores a reference picture of any size. Before the first frame, introduces its
        new objects at once.

        image: (3, H, W) in [0, 1]. labels: (H, W) of ids. size: (H, W) of the frames.
        """
        image, labels = fitted(image, labels, size)
        working = prepared(image, self.size, device, self.index)
        now = self._see(working, self.index)
        shown = ids_of(labels)
        new = tuple(id for id in shown if id not in self.ids and self.frame_size is None)
        if new:
            self._banks.introduce(new)
        groups = self._banks.within(shown)
        if not groups:
            lacking = ", ".join(str(id) for id in self.ids if id not in shown)
            raise ValueError(
                f"the reference cannot be remembered: its mask lacks {lacking:.60}, and objects that were "
                "introduced together are remembered together"
            )
        known = tuple(id for group in groups for id in group.ids)
        planes = one_hot(moved(labels, device), known)
        now = with_masks(now, self.ids, known, planes, new=bool(new), edit=False)
        values = encode_values(self.network, now, self.settings.shortcuts)  # (O, Cv, h, w)
        index = self._banks.reference_index
        if not self._banks.memorized:
            self._banks.memorized = self.index
        return self._banks.adding_known(now.key, values, index, groups, now=self.index)

    def _drop_absent(self, result: Result, most: int) -> None:
        """Stop tracking the objects without a pixel in this and the `most - 1` frames before."""
        present = {*np.unique(result.mask).tolist()}
        self._absent = {id: 0 if id in present else self._absent.get(id, 0) + 1 for id in result.ids}
        if gone := [id for id, frames in self._absent.items() if frames >= most]:
            self.remove(gone)
            self._keep_edits()
            self._absent = {id: frames for id, frames in self._absent.items() if id not in gone}

    def add(self, masks: Mapping[int, object]) -> Result:
        """Track more objects from the current frame on; returns the new result of the frame.

        masks: {id: mask}, each (H, W) and nonzero on the object: an array, a tensor, or a PIL image. The
            pixels are taken from the other objects, whose masks do not change otherwise.

        Raises ValueError if there is no frame yet, an id is tracked already, or a mask is empty, of another
        size, or overlaps another.
        """
        if followed := [id for id in _ids(masks) if id in self.ids]:
            raise ValueError(f"object {followed[0]} is followed already; use correct()")
        return self._mend(masks)

    def correct(self, masks: Mapping[int, object], since: int | None = None) -> Result:
        """Correct masks of the current frame; returns the new result of the frame.

        Later frames are read from the corrected frame, which stays in the memory of these objects for ever.
        Objects that shared a bank with a corrected object continue with a copy, which may evict the frame.

        masks: as for `add`, of tracked objects. An empty mask means that the object is absent.
        since: index of the first frame with a wrong mask of these objects, if you know it. Their memory of
            later frames is dropped, as by `forget`. The memory of other objects stays.

        Raises ValueError as `add` does, and if an id is not tracked.
        """
        if unknown := [id for id in _ids(masks) if id not in self.ids]:
            raise ValueError(f"object {unknown[0]} is not followed; use add()")
        return self._mend(masks, since)

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
        """Click on an object of the current frame; returns its new result.

        An object that is followed is corrected: pieces of its mask around the clicks change. Another is found
        from the clicks, and followed from here on. Clicks add up until the next step or another edit of the
        object: give each only once. `undo` takes back the clicks of the last call.

        id: of the object. Other arguments: see `emavos.clicks.SeenFrame.click`.

        Raises ValueError as that does, as `add` does, and when there is no frame yet or no click head.
        """
        now, seen = self._clickable()
        before = self._clicks.get(id)
        mask = None if before is None else before.prob
        if before is None and id in self.ids:
            mask = now.full[1 + self.ids.index(id)].clamp(0, 1)
        prompt = make_prompt(seen.size, points, labels, box, scribbles, scribble_labels, mask)
        clicks = ObjectClicks.after(before, prompt, followed=id in self.ids)
        with self._computing():
            prob = seen.answer(clicks.prompt, clicks.local).prob
        result = self._mend({id: prob > 0.5})
        self._clicks = {**self._clicks, id: replace(clicks, prob=prob)}
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
            raise ValueError(f"object {unknown[0]} is not followed")
        with self._editing() as now:
            self._now = without_objects(now, self.ids, ids)
            self._banks.remove(ids)
            self._clicks = {id: clicks for id, clicks in self._clicks.items() if id not in ids}
            return self._edited(self._now)

    def pin(self) -> None:
        """Keep the current frame, with its current masks, in the memory of all objects for ever.

        If you passed a mask of an object to `remember` for this frame, that mask is kept.

        Raises ValueError if there is no frame yet or no object.
        """
        if not self.groups:
            raise ValueError("no object is followed; there is nothing to keep")
        with self._editing() as now:
            given = now.given + tuple(id for id in self.ids if id not in now.remembered)
            self._now = replace(now, given=tuple(dict.fromkeys(given)))
            self._storing(self._now)()
            self._sureness = self._observe(self._now)

    def forget(self, since: int) -> None:
        """Drop frames from index `since` on from the memory. Annotated frames stay.

        Raises ValueError if there is no frame yet, or `since` is not an index.
        """
        with self._editing():
            self._forget(since, self.ids)

    def undo(self) -> Result:
        """Revert the last edit since the last step; returns the current frame's result without the edit."""
        if not self._undo or self._now is None:
            raise ValueError("there is nothing to undo: no edit since the last step")
        before = self._undo[-1]
        assert before.now is not None
        result = Result(
            before.now.index,
            before.banks.ids,
            before.now.full.clone(),
            before.sureness.confidences,
            before.now.unmatched,
        )
        self._restore(self._undo.pop())
        return result

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that later frames depend on to a safetensors file, for `load`.

        The current frame is not saved: after loading, you can edit only after the next step.
        """
        if self._references:
            raise ValueError("a reference is stored at the first step; save the session after that step")
        state = SessionState(
            self.settings, self.index, self.frame_size, self._banks, {**self._sureness.edges}, self._absent
        )
        write_state(path, state, self.model)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: STCN,
        network: STCN | None = None,
        look: Look | None = None,
    ) -> Session:
        """The session that was saved, to go on with the frame of `index`.

        model, network: those it was saved with; weights and dtype are compared. look: as for a new session.
        Raises ValueError where they differ, or the file is damaged or something else.
        """
        network = model if network is None else network
        state = read_state(path, model, network)
        session = cls(model, network=network, settings=state.settings, start=state.index, look=look)
        session.frame_size = state.frame_size
        session._banks, session._sureness = state.banks, _Sureness(edges=state.edges)
        session._absent = {**state.absent}
        return session

    def signs(self) -> dict[int, tuple[float, ...]]:
        """The features behind the confidence of each object on the current frame: see `emavos.confidence`.

        Raises ValueError if there is no frame yet.
        """
        if self._now is None:
            raise ValueError("there is no frame yet; step() comes first")
        return signs(self._now.prob[self._now.crop], self.ids, self._now.edges)

    def _clickable(self) -> tuple[CurrentFrame, SeenFrame]:
        if self._now is None or self.frame_size is None:
            raise ValueError("there is no frame to click on yet; step() comes first")
        if self._look is None:
            raise ValueError("this session has no click head; make it with Predictor.session()")
        if self._seen is None:
            working = WorkingFrame(self._now.frame.float(), self._now.crop, self.frame_size)
            with self._computing():
                self._seen = self._look(working, self._now.features)
        return self._now, self._seen

    def _mend(self, masks: Mapping[int, object], since: int | None = None) -> Result:
        with self._editing() as now:
            self._clicks = {id: clicks for id, clicks in self._clicks.items() if id not in masks}
            planes = planes_of(masks, tuple(now.full.shape[1:]))
            for id, plane in zip(masks, planes, strict=True):
                if id not in self.ids and not plane.any():
                    raise ValueError(f"the mask of object {id} is empty: there is nothing to follow")
            self._now = self._give(now, tuple(map(int, masks)), moved(planes, now.full.device), edit=True)
            if since is not None:
                self._forget(since, masks)
            self._storing(self._now)()
            return self._edited(self._now)

    def _forget(self, since: int, ids: Collection[int]) -> None:
        self._banks.forget(_index("since", since), until=self.index - 1, ids=ids)

    @contextmanager
    def _computing(self) -> Iterator[torch.device]:
        """The device of the network, with gradients and autocast off, whatever the caller has set."""
        device = next(self.network.parameters()).device
        with (
            torch.inference_mode(False),  # inference tensors could not be changed outside
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            yield device

    @contextmanager
    def _editing(self) -> Iterator[CurrentFrame]:
        """The current frame, for an edit that can be undone. If the edit fails, nothing changes."""
        if self._now is None:
            raise ValueError("there is no frame to edit yet; step() comes first")
        with self._computing():
            before = _Before(self._banks.mark(cells=True), self._now, self._sureness, self._clicks)
            try:
                yield self._now
            except BaseException:
                self._restore(before)
                raise
        self._undo.append(before)

    def _keep_edits(self) -> None:
        """Clear the undo history, and free what it saved."""
        self._undo.clear()
        self._banks.unmark()

    def _restore(self, before: _Before) -> None:
        self._banks.rewind(before.banks)
        self._now, self._sureness, self._clicks = before.now, before.sureness, before.clicks

    def _observe(self, now: CurrentFrame) -> _Sureness:
        return _Sureness(*observe(now.prob[now.crop], self.ids, now.given, now.edges))

    def _result(self, now: CurrentFrame, sureness: _Sureness) -> Result:
        """A result with a copy of the probabilities, because edits still read the frame's own."""
        return Result(now.index, self.ids, now.full.clone(), sureness.confidences, now.unmatched)

    def _edited(self, now: CurrentFrame) -> Result:
        """The new result of the current frame. The last allocation of an edit, so a failed edit is undone."""
        self._sureness = self._observe(now)
        return self._result(now, self._sureness)

    def _name(self, index: int) -> int:
        """The number of a frame in errors."""
        return index if self._order is None or index >= len(self._order) else self._order[index]

    def _working(self, frame: object, index: int, device: torch.device) -> WorkingFrame:
        """The prepared frame. Raises ValueError if its size is not the size of the first frame."""
        name = self._name(index)
        working = frame if isinstance(frame, WorkingFrame) else prepared(frame, self.size, device, name)
        check_fits(working, self.size, device, self.frame_size, name)
        return working


def _index(name: str, value: object) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is the index of a frame, counted from 0, not {value!r}")
    return int(value)


def _ids(masks: Mapping[int, object]) -> Iterable[int]:
    if not isinstance(masks, Mapping):
        raise ValueError(f"masks are a dict {{id: mask}}, not {type(masks).__name__}")
    return masks


def _nothing() -> None:
    pass
