"""The life of one video: frames in, masks out, and all that changes in between."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from emavos.frames import check_short_side, normalize, resize, to_frame, working_size
from emavos.masks import aggregate, ids_of, one_hot, pad_to_stride, to_mask
from emavos.memory import MemoryBank, MemoryPolicy
from emavos.models import STCN, Features


@dataclass(frozen=True)
class Result:
    """The masks of one frame, at the size of the frame.

    index: of the frame, from 0.
    ids: the objects followed so far, in the order they were introduced.
    prob: (1 + O, H, W) float32, background first, then in the order of ids; sums to one over its first axis.
    """

    index: int
    ids: tuple[int, ...]
    prob: Tensor = field(repr=False)

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) int32: the id of the most probable object at each pixel, 0 for background."""
        table = torch.tensor((0, *self.ids), dtype=torch.int32, device=self.prob.device)
        mask: np.ndarray = table[self.prob.argmax(dim=0)].cpu().numpy()
        return mask


@dataclass
class _Group:
    """Objects that were introduced on the same frame, and their memory."""

    ids: tuple[int, ...]
    bank: MemoryBank


class Session:
    """Follows the objects of one video, a frame at a time.

    Made by `Predictor.session()`. Holds the memory banks and nothing else that grows, and those are bounded
    by the policy. Not to be shared between threads; sessions of one model may run in several.

    model: where frames are processed is where its parameters are.
    size: short side in pixels at which frames are processed; None keeps theirs.

    >>> session = predictor.session()
    >>> result = session.step(first_frame, mask)
    >>> for frame in camera:
    ...     result = session.step(frame)
    """

    def __init__(self, model: STCN, policy: MemoryPolicy | None = None, size: int | None = 480) -> None:
        check_short_side(size)
        self.model = model
        self.policy = MemoryPolicy() if policy is None else policy
        self.size = size
        self.index = 0  # of the next frame
        self._groups: list[_Group] = []
        self._memorized = 0  # the last frame that was given or kept
        self._frame_size: tuple[int, int] | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        """The objects followed, in the order they were introduced."""
        return tuple(id for group in self._groups for id in group.ids)

    @property
    def nbytes(self) -> int:
        """Bytes that the memory banks take."""
        return sum(group.bank.nbytes for group in self._groups)

    def step(self, frame: object, mask: object = None) -> Result:
        """The masks of the next frame.

        frame: a PIL image, an array (H, W, 3) of uint8, or a tensor (3, H, W), uint8 or float in [0, 1].
        mask: what is known of this frame, (H, W) of ids with 0 where nothing is: an array, a tensor, a PIL
            image of palette, gray or 1-bit kind. Ids not yet followed are introduced; ids followed already
            are corrected. Objects take their pixels from the others.

        Raises ValueError where frame or mask are of another kind or size, or the mask holds no object.
        """
        device = next(self.model.parameters()).device
        with (
            torch.inference_mode(False),  # whose tensors could not be written to outside it
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            pixels = to_frame(frame).to(device)
            self._check_size(pixels)
            given = None if mask is None else to_mask(mask, tuple(pixels.shape[1:])).to(device)
            if given is not None and not given.any():
                raise ValueError(f"the mask of frame {self.index} is empty: every pixel is 0, the background")
            groups, memorized = list(self._groups), self._memorized
            try:
                result = self._step(pixels, given)
            except BaseException:  # out of memory, or interrupted: as if the frame had not come
                self._groups, self._memorized = groups, memorized
                raise
        self._frame_size = (pixels.shape[1], pixels.shape[2])
        self.index += 1
        return result

    def _step(self, pixels: Tensor, given: Tensor | None) -> Result:
        known = () if given is None else ids_of(given)
        source = (pixels.shape[1], pixels.shape[2])
        working = working_size(*source, self.size)
        frame, crop = pad_to_stride(normalize(resize(pixels, working))[None])  # (1, 3, H', W')
        frame = frame.to(next(self.model.parameters()).dtype)
        features = self.model.encode_key(frame)
        prob = self._propagate(features, frame)  # (1 + O, H', W')
        full = resize(prob[crop], source)  # (1 + O, H, W)
        if given is not None:
            self._introduce(known)
            planes = one_hot(given, known)  # (G, H, W)
            full = self._overwrite(full, known, planes)
            prob = self._overwrite(prob, known, pad_to_stride(resize(planes, working))[0])
        if self._groups:
            self._memorize(frame, features, prob, known)
        return Result(self.index, self.ids, full)

    def _propagate(self, features: Features, frame: Tensor) -> Tensor:
        """What the memory and the frame say of the objects followed: (1 + O, H', W')."""
        if not self._groups:
            return torch.ones(1, *frame.shape[2:], dtype=torch.float32, device=frame.device)  # background
        key = features.key[0].float()  # in half precision, cells that differ would look the same
        readout = torch.cat([group.bank.read(key) for group in self._groups])  # (O, Cv, h, w)
        return aggregate(self.model.decode(readout[None], features)[0].float().sigmoid())

    def _introduce(self, known: tuple[int, ...]) -> None:
        """A bank for the objects that are new, all together."""
        if new := tuple(id for id in known if id not in self.ids):
            self._groups.append(_Group(new, MemoryBank(self.policy)))

    def _overwrite(self, prob: Tensor, known: tuple[int, ...], planes: Tensor) -> Tensor:
        """prob (1 + O, H, W) with the known objects as their planes (G, H, W), taken from the others."""
        rest = prob[1:] * (1 - planes.sum(dim=0))  # the ids that are new come last and have no plane here
        objects = dict(zip(self.ids, rest, strict=False)) | dict(zip(known, planes, strict=True))
        return aggregate(torch.stack([objects[id] for id in self.ids]))

    def _memorize(self, frame: Tensor, features: Features, prob: Tensor, known: tuple[int, ...]) -> None:
        """Store the frame in every bank where it is given or due, or as the last frame."""
        due = bool(known) or self.index - self._memorized >= self.policy.every
        if due:
            self._memorized = self.index
        elif not self.policy.include_last:
            return
        values = self.model.encode_value(frame, features, prob[None, 1:].to(frame.dtype))[0]  # (O, Cv, h, w)
        for group, part in zip(self._groups, values.split([len(g.ids) for g in self._groups]), strict=True):
            given = any(id in known for id in group.ids)
            group.bank.add(
                features.key[0].float(), part, "given" if given else "kept" if due else "temporary"
            )

    def _check_size(self, frame: Tensor) -> None:
        size = (frame.shape[1], frame.shape[2])
        if self._frame_size is not None and size != self._frame_size:
            height, width = self._frame_size
            raise ValueError(
                f"frame {self.index} is {size[0]}x{size[1]} but the video began with {height}x{width} "
                "(height x width); resize it, or begin a new session"
            )
