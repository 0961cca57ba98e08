"""The frame of the last step, and what the network makes of it: functions that remember nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from emavos.frames.preprocess import Crop, pad_to_stride, resize
from emavos.models import STCN, Features, aggregate
from emavos.session.shortcuts import cells_near, coverage, encode_near
from emavos.settings import Shortcuts

OBJECTS_AT_ONCE = 8  # through the network: its memory stays bounded, and what they share is computed once


@dataclass(frozen=True, eq=False)
class CurrentFrame:
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

    @property
    def key(self) -> Tensor:
        """(Ck, h, w) float32, as the key encoder projects it whatever the dtype of the network."""
        return self.features.key[0].float()


def decode(network: STCN, readout: Tensor, features: Features, shortcuts: Shortcuts) -> Tensor:
    """Logits (O, H', W') of each object by itself, from what the memory says of it (O, Cv, h, w).

    With `decode_near`, the last channel of the readout is coverage, and logits far from it are -infinity.
    """
    cells: Sequence[Tensor | None] = [None] * len(readout)
    if shortcuts.decode_near:
        readout, covered = readout[:, :-1], readout[:, -1]
        cells = cells_near(covered)[None].split(OBJECTS_AT_ONCE, dim=1)
    some = zip(readout[None].split(OBJECTS_AT_ONCE, dim=1), cells, strict=False)
    return torch.cat([network.decode(part, features, near)[0] for part, near in some]).float()


def encode_values(network: STCN, now: CurrentFrame, shortcuts: Shortcuts) -> Tensor:
    """What the memory is to hold of each object of the frame: (O, Cv, h, w).

    With `decode_near`, coverage is one more channel.
    """
    prob = now.prob[None, 1:].to(now.frame.dtype)  # (1, O, H', W')
    total = prob.sum(dim=1, keepdim=True)
    near = shortcuts.encode_near and not now.given
    encode = partial(encode_near, network) if near else network.encode_value
    some = prob.split(OBJECTS_AT_ONCE, dim=1)
    values = torch.cat([encode(now.frame, now.features, part, total)[0] for part in some])
    if not shortcuts.decode_near:
        return values
    return torch.cat([values, coverage(prob[0]).to(values.dtype)], dim=1)  # (O, Cv + 1, h, w)


def distance(now: CurrentFrame, key: Tensor) -> Tensor:
    """Mean squared distance of the frame's keys from those of another, (h * w, Ck), over sqrt(Ck)."""
    own = now.key.flatten(1).T  # (h * w, Ck)
    return (own - key).square().sum(dim=1).mean() / own.shape[1] ** 0.5


def with_masks(
    now: CurrentFrame, ids: tuple[int, ...], known: tuple[int, ...], planes: Tensor, *, new: bool, edit: bool
) -> CurrentFrame:
    """The frame with the masks of known objects, (G, H, W) of 0 and 1.

    ids: of all objects, in order, those that are new last. new: whether some are.
    edit: others keep what they got but for the pixels they cede, be they as improbable as the background.
    """
    height, width = now.prob[now.crop].shape[1:]
    working = pad_to_stride(resize(planes, (height, width)))[0]
    prob = overwrite(now.prob, ids, known, working)
    full = overwrite(now.full, ids, known, planes)
    return replace(
        now,
        prob=aggregate(prob[1:]) if new else prob,  # as STCN introduces objects
        full=aggregate(full[1:]) if new and not edit else full,
        given=tuple(dict.fromkeys(now.given + known)),
        remembered=now.remembered.difference(known),
    )


def without_objects(now: CurrentFrame, ids: tuple[int, ...], gone: Collection[int]) -> CurrentFrame:
    """The frame without some of its objects `ids`; their pixels become background."""
    left = [place for place, id in enumerate(ids) if id not in gone]
    given = tuple(id for id in now.given if id not in gone)
    return replace(now, prob=_without(now.prob, left), full=_without(now.full, left), given=given)


def overwrite(prob: Tensor, ids: tuple[int, ...], known: tuple[int, ...], planes: Tensor) -> Tensor:
    """prob (1 + O, H, W) with the known objects as their planes (G, H, W), taken from the others.

    ids: of all objects, in order. Those that are new come last and have no plane in prob.
    """
    followed = ids[: len(prob) - 1]
    if corrected := [1 + followed.index(id) for id in known if id in followed]:
        prob = _divided_among_the_rest(prob, corrected)
    free = 1 - planes.sum(dim=0)
    objects = dict(zip(ids, prob[1:] * free, strict=False)) | dict(zip(known, planes, strict=True))
    stacked = torch.stack([objects[id] for id in ids])
    return torch.cat([prob[:1] * free, stacked])  # nobody but the known changes outside their planes


def _without(prob: Tensor, left: list[int]) -> Tensor:
    """prob (1 + O, H, W) of the objects that are left, by their places; what the others had is background."""
    objects = prob[1:][left]
    background = (1 - objects.sum(dim=0, keepdim=True)).clamp(min=0)  # sums are rounded
    return torch.cat([background, objects])


def _divided_among_the_rest(prob: Tensor, planes: list[int]) -> Tensor:
    """prob (1 + O, H, W) with nothing in these planes; the others keep their proportion at every pixel."""
    prob = prob.clone()
    prob[planes] = 0
    prob[0] += prob.sum(dim=0) < 1e-6
    return prob / prob.sum(dim=0)
