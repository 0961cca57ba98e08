"""Frames of another time, and pictures from elsewhere, that objects are learned from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emavos.frames.preprocess import (
    IMAGENET_MEAN,
    WorkingFrame,
    ids_of,
    moved,
    one_hot,
    resize,
    to_frame,
    to_mask,
    to_working,
)
from emavos.session.frame import CurrentFrame, Tracker, with_masks

_LACKS = "the reference cannot be remembered: its mask lacks"


@dataclass(frozen=True, eq=False)
class Reference:
    """A picture of any size that shows objects, and is no frame of the video."""

    image: Tensor  # (3, H, W) in [0, 1]
    labels: Tensor  # (H, W) of ids

    @classmethod
    def of(cls, frame: object, mask: object) -> Reference:
        """The reference, from a picture and a mask as for `Session.step`."""
        image = to_frame(frame)
        reference = cls(image, to_mask(mask, tuple(image.shape[1:])))
        if not reference.ids:
            raise ValueError("the mask of the reference is empty: every pixel is 0, the background")
        return reference

    @property
    def ids(self) -> tuple[int, ...]:
        """The objects of the mask."""
        return ids_of(self.labels)


def taught(references: Sequence[Reference]) -> tuple[int, ...]:
    """Ids of the objects that learn from the last reference, if the first step stores all of them in order.

    Raises ValueError if no object does, as `referring` would.
    """
    groups: list[tuple[int, ...]] = []
    learning: tuple[int, ...] = ()
    for reference in references:
        tracked = {id for group in groups for id in group}
        if new := tuple(id for id in reference.ids if id not in tracked):
            groups.append(new)
        learning = _shown_whole(groups, reference.ids, _LACKS)
    return learning


def remembering(
    tracker: Tracker,
    working: WorkingFrame,
    labels: Tensor,
    index: int,
    at: int,
    number: int,
) -> tuple[tuple[int, ...], Callable[[], None]]:
    """First half of remembering an annotated frame of another time.

    Returns the ids of the objects that learn, and a callable that stores the frame and cannot fail.

    labels: (H, W) of ids, the mask of the frame.
    index: of the frame.
    at: index of the next step.
    number: of the frame in errors.
    """
    problem = f"the mask of frame {number} cannot be remembered: it lacks"
    learning = _shown_whole([group.ids for group in tracker.banks], ids_of(labels), problem)
    now = tracker.see(working, index, number)
    return learning, _storing(tracker, now, labels, learning, index, at)


def referring(
    tracker: Tracker,
    reference: Reference,
    size: tuple[int, int],
    at: int,
    device: torch.device,
    introduce: bool,
) -> tuple[tuple[int, ...], Callable[[], None]]:
    """First half of storing a reference.

    Returns the ids of the objects that learn, and a callable that stores the reference and cannot fail.

    size: (H, W) of the frames.
    at: index of the next step.
    introduce: whether to introduce new objects, at once, for the first step.
    """
    banks = tracker.banks
    image, labels = fitted(reference.image, reference.labels, size)
    now = tracker.see(to_working(image, tracker.settings.size, device, at), at, at)
    # small objects may vanish from `labels`; the first step introduces all the same those that `taught` named
    shown = reference.ids if introduce else ids_of(labels)
    new = tuple(id for id in shown if introduce and id not in banks.ids)
    if new:
        banks.introduce(new)
    learning = _shown_whole([group.ids for group in banks], shown, _LACKS)
    store = _storing(tracker, now, labels, learning, banks.reference_index, at, new=bool(new))
    if introduce:  # the schedule of stored frames begins
        banks.counted_from = at
    return learning, store


def fitted(image: Tensor, labels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A picture (3, H, W) in [0, 1] and its ids (H, W) in another size, in their proportion.

    size: (H, W). The rest, at the right or below, is of the mean colour and background.
    """
    height, width = labels.shape
    scale = min(size[0] / height, size[1] / width)
    shape = max(round(height * scale), 1), max(round(width * scale), 1)
    rows, columns = (
        (torch.arange(n) * old // n).to(labels.device) for n, old in zip(shape, (height, width), strict=True)
    )
    canvas = IMAGENET_MEAN.to(image.device).view(3, 1, 1).repeat(1, *size)
    canvas[:, : shape[0], : shape[1]] = resize(image, shape).clamp(0, 1)
    ids = labels.new_zeros(size)
    ids[: shape[0], : shape[1]] = labels[rows][:, columns]
    return canvas, ids


def _shown_whole(groups: Sequence[tuple[int, ...]], shown: Collection[int], problem: str) -> tuple[int, ...]:
    """Ids of the groups that a mask shows whole.

    groups: ids of each group.
    shown: ids of the mask.

    Raises ValueError, which begins with `problem`, if there are none.
    """
    if whole := tuple(id for group in groups if {*shown}.issuperset(group) for id in group):
        return whole
    lacking = ", ".join(str(id) for group in groups for id in group if id not in shown)
    raise ValueError(
        f"{problem} {lacking:.60}, and a mask must show all objects that were introduced together"
    )


def _storing(
    tracker: Tracker,
    now: CurrentFrame,
    labels: Tensor,
    learning: tuple[int, ...],
    index: int,
    at: int,
    new: bool = False,
) -> Callable[[], None]:
    """First half of storing a frame in the banks of the objects that learn.

    labels: (H, W) of ids, the mask of the frame.
    index: to store the frame under.
    at: index of the next step.
    new: whether some of the objects are new.
    """
    planes = one_hot(moved(labels, now.prob.device), learning)  # (G, H, W)
    now = with_masks(now, tracker.banks.ids, learning, planes, new=new, edit=False)
    groups = tracker.banks.within(learning)
    return tracker.banks.adding_given(now.key, tracker.values(now), index, groups, at=at)
