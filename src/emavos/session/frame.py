"""One frame of a video: the tracker predicts the masks, inserts masks of the user, and stores the frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from emavos.confidence.expected import Evidence
from emavos.frames.preprocess import Crop, WorkingFrame, pad_to_stride, resize
from emavos.models import STCN, Features, aggregate
from emavos.session.memory import Banks, LastSeen, unlike_from
from emavos.session.result import CUT, Result
from emavos.session.shortcuts import cells_near, coverage, encode_near
from emavos.settings import Settings, Shortcuts

OBJECTS_AT_ONCE = 8  # objects per pass of the network: bounds its memory, and shared work is computed once
_HIDDEN = 0.25  # of an object's pixels are left, at most, if its distance hides it
_LONGEST_WAIT = 15  # frames: by then, an object without a mask may be anywhere


@dataclass(frozen=True, eq=False)
class CurrentFrame:
    """The frame of the last step. You can edit it until the next step."""

    index: int
    ids: tuple[int, ...]  # of the objects
    frame: Tensor  # (1, 3, H', W'), normalised and padded, at the working size
    features: Features
    crop: Crop  # undoes the padding
    prob: Tensor  # (1 + O, H', W')
    full: Tensor  # (1 + O, H, W), at the size of the frame
    before: LastSeen  # of the previous frame. Its objects are the first of these
    given: tuple[int, ...] = ()  # ids of the objects with a user's mask on this frame
    remembered: frozenset[int] = frozenset()  # ids of the objects with a mask of this frame already in memory
    unmatched: float | None = None  # share of the frame that resembles nothing in the memory
    mistaken: frozenset[int] = frozenset()  # ids of the objects with a wrong predicted mask on this frame
    without_masks: bool = False  # after a scene cut, if such frames get no masks
    hidden: frozenset[int] = frozenset()  # ids of the objects of which their distance left few pixels

    @property
    def key(self) -> Tensor:
        """(Ck, h, w) float32, whatever the dtype of the network."""
        return self.features.key[0].float()

    @cached_property
    def evidence(self) -> Evidence:
        """What the masks show, for their confidences."""
        edges = self.before.with_new(len(self.ids)).edges
        return Evidence(signs_of(self.prob[self.crop]), edges, tuple(id in self.given for id in self.ids))

    @cached_property
    def last_seen(self) -> LastSeen:
        """Where each object was last seen, for the next frame. Places from wrong masks do not count."""
        mistaken = [id in self.mistaken for id in self.ids]
        before = self.before.with_new(len(self.ids)).without_places(mistaken)
        seen = before.after(self.prob[1:], self.evidence.signs, self.evidence.given)
        return seen.without_places([id in self.mistaken and id not in self.given for id in self.ids])

    def result(self) -> Result:
        """A result with a copy of the probabilities, because edits still read the frame's own."""
        return Result(self.index, self.ids, self.full.clone(), self.evidence, self.unmatched)


@dataclass(frozen=True, eq=False)
class Tracker:
    """Tracks the objects of one video from frame to frame. Only the banks change.

    `see` predicts the masks of a frame from the banks, `give` inserts masks of the user, and `storing`
    decides whether to store the frame. Steps, edits and references use these three.

    Storing has two halves: `storing`, like `Banks.adding`, does everything that can fail, and returns a
    callable that stores the frame and cannot fail.
    """

    network: STCN
    settings: Settings
    banks: Banks

    def see(
        self,
        working: WorkingFrame,
        index: int,
        number: int,
        *,
        is_step: bool = False,
        before: LastSeen | None = None,
    ) -> CurrentFrame:
        """A frame with its predicted masks.

        index: of the frame.
        number: of the frame in errors. Backward in time, frame 0 of the session is the last of the video.
        is_step: whether the session steps to the frame. If so, the readout counts as use of the memory, and
            scene cuts are looked for.
        before: where the objects were last seen, on the previous frame; None: there is none.
        """
        network, banks = self.network, self.banks
        frame, features = _input_of(network, working), features_of(network, working)
        key = features.key[0].float()  # (Ck, h, w)
        size = key.shape[1], key.shape[2]
        before = (before or LastSeen.unseen(0, size, key.device)).with_new(len(banks.ids))
        remembered = banks.remembered(index)
        unmatched = self._unmatched(key) if is_step else None
        without_masks = self.settings.cuts == "stop" and unmatched is not None and unmatched >= CUT
        if without_masks:
            before = before.anywhere()
        hidden: frozenset[int] = frozenset()
        if without_masks or not banks.groups:
            prob = only_background(len(banks.ids), frame)
        else:
            readout = banks.read(key, index if is_step else None)  # (O, Cv, h, w)
            last_seen = None
            if self.settings.locality:  # an object whose mask of this frame is in memory may be anywhere
                last_seen = before.without_places([id in remembered for id in banks.ids])
            prob, hidden = probabilities(
                network, readout, features, banks.ids, self.settings.shortcuts, number, last_seen
            )
        return CurrentFrame(
            index,
            banks.ids,
            frame,
            features,
            working.crop,
            prob,
            resize(prob[working.crop], working.size),
            before,
            remembered=remembered,
            unmatched=unmatched,
            without_masks=without_masks,
            hidden=hidden,
        )

    def give(
        self, now: CurrentFrame, given: tuple[int, ...], planes: Tensor, edit: bool = False
    ) -> CurrentFrame:
        """The frame with masks of the user.

        New objects get a bank. Tracked objects stop sharing a bank with objects that have no mask on the
        frame.

        given: ids of the objects with a mask.
        planes: (G, H, W) of 0 and 1, the masks of `given`.
        edit: whether the frame was returned before, so that masks of other objects must not change elsewhere.
        """
        self.banks.divide({*given, *now.given, *now.remembered})
        if new := tuple(id for id in given if id not in self.banks.ids):
            self.banks.introduce(new)
        return with_masks(now, self.banks.ids, given, planes, new=bool(new), edit=edit)

    def storing(self, now: CurrentFrame, gone: Collection[int] = ()) -> Callable[[], None]:
        """First half of storing a frame that is annotated, due, or kept as the previous one.

        gone: ids of objects that leave the video with this frame. They are removed from the banks at once.
        """
        banks = self.banks
        empty = not banks.groups or (now.without_masks and not now.given)
        scheduled = not empty and self._is_due(now)
        stays = scheduled or bool(now.given)  # corrections are stored as well and do not restart the count
        values = None if empty or not (stays or self.settings.policy.include_last) else self.values(now)
        if gone:  # after `values`, so that those of other objects do not depend on it
            staying = [place for place, id in enumerate(banks.ids) if id not in gone]
            values = None if values is None else values[staying]
            banks.remove(gone)
        if values is None:
            return lambda: None
        return banks.adding(
            now.key,
            values,
            now.index,
            given=now.given,
            remembered=now.remembered,
            waiting=self._waits_for(now),
            stays=stays,
            scheduled=scheduled,
        )

    def values(self, now: CurrentFrame) -> Tensor:
        """The values (O, Cv, h, w) of a frame."""
        return encode_values(self.network, now, self.settings.shortcuts)

    def _unmatched(self, key: Tensor) -> float | None:
        """Share of a frame that resembles nothing in the memory.

        None if cuts are ignored, or no object is tracked.

        key: (Ck, h, w) of the frame.
        """
        if not self.banks.groups or self.settings.cuts == "ignore":
            return None
        return float(self.banks.unmatched(key, unlike_from(self.network.config)))

    def _is_due(self, now: CurrentFrame) -> bool:
        """Whether the schedule stores a frame: one that begins an object, or that is late and has changed.

        While an object is hidden, no frame is stored: a mask without it in memory would hide it for ever.
        """
        if self.banks.has_new:
            return True
        if self._waits_for(now):
            return False
        late = now.index - self.banks.counted_from >= self.settings.policy.every
        still = self.settings.shortcuts.still
        return late and (still == 0 or bool(change_since(now, self.banks.latest_key(now.index)) >= still))

    def _waits_for(self, now: CurrentFrame) -> frozenset[int]:
        """Ids of the hidden objects whose banks do not store the frame yet."""
        longest = self.settings.policy.every + _LONGEST_WAIT
        return now.hidden if now.index - self.banks.counted_from < longest else frozenset()


@contextmanager
def computing(network: STCN) -> Iterator[torch.device]:
    """The device of the network, with gradients and autocast off, whatever the caller has set."""
    device = next(network.parameters()).device
    with (
        torch.inference_mode(False),  # inference tensors could not be changed outside
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        yield device


@dataclass(frozen=True, eq=False)
class EncodedFrame(WorkingFrame):
    """A working frame with its features, so that a step need not encode the frame.

    Make one with `Predictor.encode`.
    """

    features: Features = field(repr=False)
    network: STCN = field(repr=False)  # that encoded the frame

    @classmethod
    def of(cls, network: STCN, working: WorkingFrame) -> EncodedFrame:
        """The frame, encoded by a network on the same device."""
        features = network.encode_key(_input_of(network, working))
        return cls(working.pixels, working.crop, working.size, features, network)


def _input_of(network: STCN, working: WorkingFrame) -> Tensor:
    """The pixels (1, 3, H', W') of a frame, in the dtype of the network."""
    return working.pixels.to(next(network.parameters()).dtype)


def features_of(network: STCN, working: WorkingFrame) -> Features:
    """The features of a frame. Those of an encoded frame are known, if this network encoded the frame."""
    if isinstance(working, EncodedFrame) and working.network is network:
        return working.features
    return network.encode_key(_input_of(network, working))


def only_background(objects: int, frame: Tensor) -> Tensor:
    """Probabilities (1 + O, H, W) of a frame (1, 3, H, W) that shows no object."""
    prob = torch.zeros(1 + objects, *frame.shape[2:], dtype=torch.float32, device=frame.device)
    prob[0] = 1
    return prob


def probabilities(
    network: STCN,
    readout: Tensor,
    features: Features,
    ids: Sequence[int],
    shortcuts: Shortcuts,
    number: int,
    last_seen: LastSeen | None = None,
) -> tuple[Tensor, frozenset[int]]:
    """Probabilities (1 + O, H', W') of a frame, background first, decoded from the memory readout.

    readout: (O, Cv, h, w).
    features: of the frame.
    ids: of the objects.
    shortcuts: work to skip.
    number: of the frame in errors.
    last_seen: where the objects were last seen, to make them less likely far from there; None: equally likely
        everywhere.

    Returns also the ids of hidden objects: those that lost three quarters of their pixels, or more, to their
    distance from where they were last seen.

    Raises FloatingPointError with the frame and the object if the network returns NaN or infinity.
    """
    logits = decode(network, readout, features, shortcuts)  # (O, H', W')
    sums = _sums(readout) + _sums(logits.clamp(min=0) if shortcuts.decode_near else logits)
    anywhere = _area(logits)  # (O,)
    if last_seen is not None:
        logits -= last_seen.penalty((logits.shape[1], logits.shape[2]))
    near = _area(logits)
    totals, *areas = torch.stack([sums, anywhere, near]).tolist()  # the only wait for a GPU
    _check_finite(ids, number, totals)
    hidden = frozenset(id for id, area, left in zip(ids, *areas, strict=True) if left < _HIDDEN * area)
    return aggregate(logits.sigmoid()), hidden


def decode(network: STCN, readout: Tensor, features: Features, shortcuts: Shortcuts) -> Tensor:
    """Logits (O, H', W') of each object by itself.

    readout: (O, Cv, h, w). With `decode_near`, the last channel is coverage, and logits far from the covered
        cells are -infinity.
    features: of the frame.
    """
    cells: Sequence[Tensor | None] = [None] * len(readout)  # to decode, for each pass; None: all
    if shortcuts.decode_near:
        readout, covered = readout[:, :-1], readout[:, -1]
        cells = cells_near(covered)[None].split(OBJECTS_AT_ONCE, dim=1)
    passes = zip(readout[None].split(OBJECTS_AT_ONCE, dim=1), cells, strict=False)
    return torch.cat([network.decode(some, features, near)[0] for some, near in passes]).float()


def encode_values(network: STCN, now: CurrentFrame, shortcuts: Shortcuts) -> Tensor:
    """Values (O, Cv, h, w) of a frame to store. With `decode_near`, coverage is one more channel."""
    prob = now.prob[None, 1:].to(now.frame.dtype)  # (1, O, H', W')
    total = prob.sum(dim=1, keepdim=True)
    skips = shortcuts.encode_near and not now.given  # a user's mask is encoded in full
    encode = partial(encode_near, network) if skips else network.encode_value
    passes = prob.split(OBJECTS_AT_ONCE, dim=1)
    values = torch.cat([encode(now.frame, now.features, some, total)[0] for some in passes])
    if not shortcuts.decode_near:
        return values
    return torch.cat([values, coverage(prob[0]).to(values.dtype)], dim=1)  # (O, Cv + 1, h, w)


def _sums(part: Tensor) -> Tensor:
    """The sum of each object's part: (O, ...) -> (O,) float32."""
    return part.flatten(1).sum(dim=1, dtype=torch.float32)


def _area(logits: Tensor) -> Tensor:
    """Pixels (O,) of each object by itself. logits: (O, H, W)."""
    return (logits > 0).to(logits.dtype).flatten(1).sum(dim=1)


def _check_finite(ids: Sequence[int], number: int, totals: Sequence[float]) -> None:
    """Raise FloatingPointError if an object has NaN or infinity, instead of returning a black mask.

    totals: of each object, the sum of all that the network returned for it.
    """
    for id, total in zip(ids, totals, strict=True):
        if not math.isfinite(total):
            raise FloatingPointError(
                f"frame {number}: the network gives NaN or infinity for object {id}; its weights are "
                "damaged, or its numbers too large for their dtype (float32 holds the most)"
            )


def change_since(now: CurrentFrame, key: Tensor) -> Tensor:
    """How much a frame differs from an earlier one: mean squared distance of their keys, over sqrt(Ck).

    key: (h * w, Ck), the keys of the earlier frame.
    """
    current = now.key.flatten(1).T  # (h * w, Ck)
    return (current - key).square().sum(dim=1).mean() / current.shape[1] ** 0.5


def with_masks(
    now: CurrentFrame, ids: tuple[int, ...], given: tuple[int, ...], planes: Tensor, *, new: bool, edit: bool
) -> CurrentFrame:
    """The frame with these masks.

    now: the frame.
    ids: of all objects: those of the frame, then the new ones.
    given: ids of the objects with a mask.
    planes: (G, H, W) of 0 and 1, the masks of `given`.
    new: whether some of these objects are new.
    edit: whether the frame was returned before. If so, the probabilities that the user has seen do not change
        outside the masks, not even where objects begin.
    """
    height, width = now.prob[now.crop].shape[1:]
    working = pad_to_stride(resize(planes, (height, width)))[0]
    prob = overwrite(now.prob, ids, given, working)
    full = overwrite(now.full, ids, given, planes)
    return replace(
        now,
        ids=ids,
        prob=aggregate(prob[1:]) if new else prob,  # as STCN does on the frame where objects begin
        full=aggregate(full[1:]) if new and not edit else full,
        given=tuple(dict.fromkeys(now.given + given)),
        remembered=now.remembered.difference(given),
        hidden=now.hidden.difference(given),
    )


def without_objects(now: CurrentFrame, gone: Collection[int]) -> CurrentFrame:
    """The frame without the objects in `gone`; their pixels become background."""
    staying = [place for place, id in enumerate(now.ids) if id not in gone]
    return replace(
        now,
        ids=tuple(now.ids[place] for place in staying),
        prob=_only(now.prob, staying),
        full=_only(now.full, staying),
        given=tuple(id for id in now.given if id not in gone),
        before=now.before.with_new(len(now.ids)).only(staying),
        hidden=now.hidden.difference(gone),
    )


def overwrite(prob: Tensor, ids: tuple[int, ...], given: tuple[int, ...], planes: Tensor) -> Tensor:
    """prob (1 + O, H, W) with these masks. The pixels of the masks are taken from the other objects.

    prob: (1 + F, H, W), background first. F of the O objects are tracked already.
    ids: of all objects, in order. New objects are last and have no plane in prob.
    given: ids of the objects with a mask.
    planes: (G, H, W) of 0 and 1, the masks of `given`.
    """
    tracked = ids[: len(prob) - 1]
    if corrected := [1 + tracked.index(id) for id in given if id in tracked]:
        prob = _divided_among_the_rest(prob, corrected)
    free = 1 - planes.sum(dim=0)
    objects = dict(zip(ids, prob[1:] * free, strict=False)) | dict(zip(given, planes, strict=True))
    stacked = torch.stack([objects[id] for id in ids])
    return torch.cat([prob[:1] * free, stacked])  # outside the planes, only the `given` objects change


def _only(prob: Tensor, places: list[int]) -> Tensor:
    """prob (1 + O, H, W) of only the objects at these positions. The others become background."""
    objects = prob[1:][places]
    background = (1 - objects.sum(dim=0, keepdim=True)).clamp(min=0)  # rounding can make the sum exceed one
    return torch.cat([background, objects])


def _divided_among_the_rest(prob: Tensor, planes: list[int]) -> Tensor:
    """prob (1 + O, H, W) with zeros in these planes, renormalised at every pixel."""
    prob = prob.clone()
    prob[planes] = 0
    prob[0] += prob.sum(dim=0) < 1e-6
    return prob / prob.sum(dim=0)


def signs_of(prob: Tensor) -> Tensor:
    """Four signs of each object's mask, (O, 4): area, agreement, share at the border, highest probability.

    The agreement is the intersection over union of the mask and the probability. The union counts the mask in
    full, plus the probability outside the mask. The share is that of the outline.

    prob: (1 + O, H, W), background first.
    """
    winner = prob.max(dim=0).indices  # argmax takes twenty times as long
    signs = [_signs_of(own, (winner == place).to(own.dtype)) for place, own in enumerate(prob[1:], 1)]
    return torch.stack(signs) if signs else prob.new_empty(0, 4)


def _signs_of(prob: Tensor, mask: Tensor) -> Tensor:
    """The signs (4,) of one object. prob, mask: (H, W) float, as summing bool takes ten times as long."""
    area = mask.sum()
    inside = torch.dot(prob.flatten(), mask.flatten())
    agreement = inside / (area + prob.sum() - inside).clamp(min=1e-6)
    inner = mask.diff(dim=0).abs().sum() + mask.diff(dim=1).abs().sum()
    border = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    edge = border / (inner + border).clamp(min=1)
    return torch.stack([area, agreement, edge, prob.max()])
