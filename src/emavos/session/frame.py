"""The frame of a step: preparation, decoding and masks, in functions without state."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from emavos.frames.preprocess import IMAGENET_MEAN, Crop, WorkingFrame, pad_to_stride, resize, to_working
from emavos.models import STCN, Features, aggregate
from emavos.session.shortcuts import cells_near, coverage, encode_near
from emavos.settings import Shortcuts

OBJECTS_AT_ONCE = 8  # objects per pass of the network: bounds its memory, and shared work is computed once


@dataclass(frozen=True, eq=False)
class CurrentFrame:
    """The frame of the last step. You can edit it until the next step."""

    index: int
    frame: Tensor  # (1, 3, H', W'), normalised and padded, at the working size
    features: Features
    crop: Crop  # undoes the padding
    prob: Tensor  # (1 + O, H', W')
    full: Tensor  # (1 + O, H, W), at the size of the frame
    given: tuple[int, ...] = ()  # ids of the objects with a user's mask on this frame
    remembered: frozenset[int] = frozenset()  # ids of the objects with a mask of this frame already in memory
    edges: Mapping[int, float] = field(default_factory=dict)  # from the previous frame, see `observe`
    unmatched: float | None = None  # share of the frame that resembles nothing in the memory
    without_masks: bool = False  # after a scene cut, if such frames get no masks

    @property
    def key(self) -> Tensor:
        """(Ck, h, w) float32, whatever the dtype of the network."""
        return self.features.key[0].float()


def prepared(frame: object, short_side: int | None, device: torch.device, name: int) -> WorkingFrame:
    """A frame in the form that the network takes.

    frame: as for `to_working`.
    short_side: of the working frame, in pixels; None keeps the size of the frame.
    device: of the result.
    name: index of the frame, for errors.

    Raises ValueError as `to_working` does, with the name of the frame.
    """
    try:
        return to_working(frame, short_side, device)
    except ValueError as error:
        raise ValueError(f"frame {name}: {error}") from error


def only_background(objects: int, frame: Tensor) -> Tensor:
    """Probabilities (1 + O, H, W) of a frame (1, 3, H, W) that shows no object."""
    prob = torch.zeros(1 + objects, *frame.shape[2:], dtype=torch.float32, device=frame.device)
    prob[0] = 1
    return prob


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
    whole = IMAGENET_MEAN.to(image.device).view(3, 1, 1).repeat(1, *size)
    whole[:, : shape[0], : shape[1]] = resize(image, shape).clamp(0, 1)
    ids = labels.new_zeros(size)
    ids[: shape[0], : shape[1]] = labels[rows][:, columns]
    return whole, ids


def check_fits(
    working: WorkingFrame,
    short_side: int | None,
    device: torch.device,
    frame_size: tuple[int, int] | None,
    name: int,
) -> None:
    """Raise ValueError unless a frame has this size and device, and is as large as the earlier frames.

    working: the prepared frame.
    short_side, device: of the session.
    frame_size: (H, W) of the first frame; None if `working` is the first.
    name: index of the frame, for errors.
    """
    if not working.suits(short_side, device):
        height, width = working.working_size
        raise ValueError(
            f"frame {name} was prepared at {height}x{width} (height x width) on "
            f"{working.pixels.device.type}, for a session of another size or device than this one, "
            f"whose size is {short_side} on {device.type}"
        )
    if frame_size is not None and working.size != frame_size:
        (height, width), size = frame_size, working.size
        raise ValueError(
            f"frame {name} is {size[0]}x{size[1]} but the video began with {height}x{width} "
            "(height x width); resize it, or begin a new session"
        )


def probabilities(
    network: STCN, readout: Tensor, features: Features, ids: Sequence[int], shortcuts: Shortcuts, name: int
) -> Tensor:
    """Probabilities (1 + O, H', W') of a frame, background first, decoded from the memory readout.

    readout: (O, Cv, h, w).
    features: of the frame.
    ids: of the objects.
    shortcuts: work to skip.
    name: index of the frame, for errors.

    Raises FloatingPointError with the frame and the object if the network returns NaN or infinity.
    """
    logits = decode(network, readout, features, shortcuts)  # (O, H', W')
    _check_finite(ids, name, readout, logits.clamp(min=0) if shortcuts.decode_near else logits)
    return aggregate(logits.sigmoid())


def decode(network: STCN, readout: Tensor, features: Features, shortcuts: Shortcuts) -> Tensor:
    """Logits (O, H', W') of each object by itself.

    readout: (O, Cv, h, w). With `decode_near`, the last channel is coverage, and logits far from the covered
        cells are -infinity.
    features: of the frame.
    """
    cells: Sequence[Tensor | None] = [None] * len(readout)
    if shortcuts.decode_near:
        readout, covered = readout[:, :-1], readout[:, -1]
        cells = cells_near(covered)[None].split(OBJECTS_AT_ONCE, dim=1)
    some = zip(readout[None].split(OBJECTS_AT_ONCE, dim=1), cells, strict=False)
    return torch.cat([network.decode(part, features, near)[0] for part, near in some]).float()


def encode_values(network: STCN, now: CurrentFrame, shortcuts: Shortcuts) -> Tensor:
    """Values (O, Cv, h, w) of a frame to store. With `decode_near`, coverage is one more channel."""
    prob = now.prob[None, 1:].to(now.frame.dtype)  # (1, O, H', W')
    total = prob.sum(dim=1, keepdim=True)
    near = shortcuts.encode_near and not now.given
    encode = partial(encode_near, network) if near else network.encode_value
    some = prob.split(OBJECTS_AT_ONCE, dim=1)
    values = torch.cat([encode(now.frame, now.features, part, total)[0] for part in some])
    if not shortcuts.decode_near:
        return values
    return torch.cat([values, coverage(prob[0]).to(values.dtype)], dim=1)  # (O, Cv + 1, h, w)


def _check_finite(ids: Sequence[int], name: int, *parts: Tensor) -> None:
    """Raise FloatingPointError if an object has NaN or infinity, instead of returning a black mask."""
    sums = torch.stack([part.flatten(1).sum(dim=1, dtype=torch.float32) for part in parts]).sum(dim=0)
    for id, total in zip(ids, sums.tolist(), strict=True):
        if not math.isfinite(total):
            raise FloatingPointError(
                f"frame {name}: the network gives NaN or infinity for object {id}; its weights are damaged, "
                "or its numbers too large for their dtype (float32 holds the most)"
            )


def distance(now: CurrentFrame, key: Tensor) -> Tensor:
    """Mean squared distance of the frame's keys from the keys (h * w, Ck) of another, over sqrt(Ck)."""
    own = now.key.flatten(1).T  # (h * w, Ck)
    return (own - key).square().sum(dim=1).mean() / own.shape[1] ** 0.5


def with_masks(
    now: CurrentFrame, ids: tuple[int, ...], known: tuple[int, ...], planes: Tensor, *, new: bool, edit: bool
) -> CurrentFrame:
    """The frame with these masks.

    now: the frame.
    ids: of all objects, in order, the new ones last.
    known: ids of the objects with a mask.
    planes: (G, H, W) of 0 and 1, the masks of `known`.
    new: whether some of these objects are new.
    edit: whether the other objects keep their probabilities outside the masks, even if the background is as
        probable.
    """
    height, width = now.prob[now.crop].shape[1:]
    working = pad_to_stride(resize(planes, (height, width)))[0]
    prob = overwrite(now.prob, ids, known, working)
    full = overwrite(now.full, ids, known, planes)
    return replace(
        now,
        prob=aggregate(prob[1:]) if new else prob,  # the same as in STCN
        full=aggregate(full[1:]) if new and not edit else full,
        given=tuple(dict.fromkeys(now.given + known)),
        remembered=now.remembered.difference(known),
    )


def without_objects(now: CurrentFrame, ids: tuple[int, ...], gone: Collection[int]) -> CurrentFrame:
    """The frame without the objects in `gone`; their pixels become background. ids: of all objects."""
    left = [place for place, id in enumerate(ids) if id not in gone]
    given = tuple(id for id in now.given if id not in gone)
    return replace(now, prob=_without(now.prob, left), full=_without(now.full, left), given=given)


def overwrite(prob: Tensor, ids: tuple[int, ...], known: tuple[int, ...], planes: Tensor) -> Tensor:
    """prob (1 + O, H, W) with these masks. The pixels of the masks are taken from the other objects.

    prob: (1 + F, H, W), background first.
    ids: of all objects, in order. New objects are last and have no plane in prob.
    known: ids of the objects with a mask.
    planes: (G, H, W) of 0 and 1, the masks of `known`.
    """
    followed = ids[: len(prob) - 1]
    if corrected := [1 + followed.index(id) for id in known if id in followed]:
        prob = _divided_among_the_rest(prob, corrected)
    free = 1 - planes.sum(dim=0)
    objects = dict(zip(ids, prob[1:] * free, strict=False)) | dict(zip(known, planes, strict=True))
    stacked = torch.stack([objects[id] for id in ids])
    return torch.cat([prob[:1] * free, stacked])  # outside the planes, only the `known` objects change


def _without(prob: Tensor, left: list[int]) -> Tensor:
    """prob (1 + O, H, W) of the objects at positions `left`. The others become background."""
    objects = prob[1:][left]
    background = (1 - objects.sum(dim=0, keepdim=True)).clamp(min=0)  # rounding can make the sum exceed one
    return torch.cat([background, objects])


def _divided_among_the_rest(prob: Tensor, planes: list[int]) -> Tensor:
    """prob (1 + O, H, W) with zeros in these planes, renormalised at every pixel."""
    prob = prob.clone()
    prob[planes] = 0
    prob[0] += prob.sum(dim=0) < 1e-6
    return prob / prob.sum(dim=0)
