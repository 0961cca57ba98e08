"""A frame that the network saw once, and the masks of clicks on the frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from emavos.clicks.model import ClickHead
from emavos.clicks.pieces import clicked_parts, near_clicks
from emavos.clicks.planes import STRIDE, Prompts
from emavos.clicks.prompt import Prompt, make_prompt, to_prompts
from emavos.frames.preprocess import WorkingFrame, denormalize, resize, to_pixels
from emavos.models import STCN, Features

# Returns the mask of an object, (H, W) of bool or of probabilities, for a frame (H, W, 3) uint8 and a prompt.
Prompter = Callable[[np.ndarray, Prompt], Any]


@dataclass(frozen=True, eq=False)
class Clicked:
    """The mask of one object.

    prob: (H, W) float32, the probability that a pixel belongs to the object.
    score: in [0, 1], the expected intersection over union with the true mask.
    """

    prob: Tensor = field(repr=False)
    score: float

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool: the pixels that probably belong to the object."""
        mask: np.ndarray = (self.prob > 0.5).cpu().numpy()
        return mask


class SeenFrame:
    """A frame to click on, as often as you like. The network encodes the frame only once.

    Make one with `Predictor.look(frame)`. A call does not know earlier calls: pass all clicks each time, and
    the last result as `mask`.

    >>> seen = predictor.look(frame)
    >>> first = seen.click([(400, 220)])
    >>> second = seen.click([(400, 220), (90, 30)], labels=[1, 0], mask=first)
    """

    def __init__(self, size: tuple[int, int], answer: Callable[[Prompt, bool], Tensor]) -> None:
        self.size = size  # (H, W) of the frame
        self._answer = answer

    @classmethod
    def by_head(cls, head: ClickHead, working: WorkingFrame, features: Features) -> SeenFrame:
        """A frame whose masks a click head predicts.

        features: of `working`, from the network of the head.
        """
        with torch.no_grad():
            seen = head.see(working.pixels.float(), Features(*(x.float() for x in features)))

        @torch.no_grad()
        def answer(prompt: Prompt, local: bool) -> Tensor:
            prompts = to_prompts(prompt, working)
            prob = head(seen, prompts).sigmoid()
            fine = functional.interpolate(prob, scale_factor=2, mode="bilinear", align_corners=False)[0]
            full = resize(fine[working.crop], working.size)[0]
            if not local:
                return full if prompt.box is not None else _without_far_parts(full, prob, prompts, working)
            assert prompt.mask is not None
            changed = near_clicks(functional.avg_pool2d(prob, 2) > 0.5, prompts)
            share = functional.interpolate(changed.float(), scale_factor=STRIDE)[0]
            share = resize(share[working.crop], working.size)[0]
            return torch.lerp(torch.from_numpy(prompt.mask).to(full.device), full, share)

        return cls(working.size, answer)

    @classmethod
    def by_prompter(cls, prompter: Prompter, frame: np.ndarray, size: tuple[int, int]) -> SeenFrame:
        """A frame whose masks another tool predicts.

        frame: (h, w, 3) uint8, possibly smaller than the frame that the user clicks on.
        size: (H, W) of the frame that the user clicks on.
        """
        scale = (frame.shape[1] / size[1], frame.shape[0] / size[0])

        def answer(prompt: Prompt, local: bool) -> Tensor:
            prob = _foreign(prompter(frame, _scaled(prompt, scale, frame.shape[:2])), frame.shape[:2])
            return resize(prob[None], size)[0]

        return cls(size, answer)

    def click(
        self,
        points: Any = None,
        labels: Any = None,
        *,
        box: Any = None,
        scribbles: Any = None,
        scribble_labels: Any = None,
        mask: Any = None,
    ) -> Clicked:
        """The mask of one object.

        points: (N, 2), the clicked pixels (x, y), counted from 0 at the left and the top.
        labels: (N,), 1 for each point on the object, 0 for each point beside the object; None: all are 1.
        box: left, top, right and bottom of a box around the object.
        scribbles: strokes, each a list of points (x, y).
        scribble_labels: 1 or 0 for each scribble, as for points; None: all are 1.
        mask: the earlier mask of the object. Pass the last result of `click` to continue. In another mask,
            (H, W) of ids, bool or probabilities, only pieces around the clicks change.

        Without a box and such a mask, parts far from all clicks on the object are left out, unless another
        tool finds the masks.

        Raises ValueError if a point or the box is outside the frame, if the mask has another size, if there
        is neither a point nor a box, and if all points are beside the object without a box or a mask.
        """
        own = isinstance(mask, Clicked)
        prompt = make_prompt(
            self.size, points, labels, box, scribbles, scribble_labels, mask.prob if own else mask
        )
        return self.answer(prompt, local=prompt.mask is not None and not own and box is None)

    def answer(self, prompt: Prompt, local: bool = False) -> Clicked:
        """The mask of a prompt that fits the frame.

        local: whether to change the prompt's mask only near the clicks.
        """
        prob = self._answer(prompt, local)
        return Clicked(prob, score_of(prob))


@dataclass(frozen=True, eq=False)
class ObjectClicks:
    """All clicks on one object of a frame so far, and the resulting probability of the object."""

    prompt: Prompt
    local: bool  # whether the first mask changes only near clicks
    prob: Tensor | None = None  # (H, W)

    @classmethod
    def on(
        cls, seen: SeenFrame, before: ObjectClicks | None, tracked: Tensor | None, **prompt: Any
    ) -> ObjectClicks:
        """The clicks on an object of a frame with further clicks, and the new mask of the object.

        before: the earlier clicks; None: there are none.
        tracked: (H, W), the probability of the object before the first click; None: the object is new.
        prompt: the further clicks, as for `make_prompt`, without `mask`.
        """
        mask = tracked if before is None else before.prob
        clicks = cls.after(before, make_prompt(seen.size, **prompt, mask=mask), tracked=tracked is not None)
        return replace(clicks, prob=seen.answer(clicks.prompt, clicks.local).prob)

    @classmethod
    def after(cls, before: ObjectClicks | None, prompt: Prompt, tracked: bool) -> ObjectClicks:
        """The clicks with a further prompt, whose mask is the earlier result.

        tracked: whether the object had a mask before the first click.
        """
        if before is None:
            return cls(prompt, tracked and prompt.box is None)
        earlier = before.prompt
        points = np.concatenate([earlier.points, prompt.points])
        labels = np.concatenate([earlier.labels, prompt.labels])
        local = before.local and prompt.box is None
        return cls(Prompt(points, labels, prompt.box or earlier.box, prompt.mask), local)


class Looker:
    """Makes frames to click on, for the network that tracks.

    head: the click head for the features of `network`; a function that returns a head and the network whose
        features it reads; or None: there is no head.
    prompter: answers clicks instead of the head.
    """

    def __init__(
        self,
        network: STCN,
        head: ClickHead | Callable[[], tuple[ClickHead, STCN]] | None,
        prompter: Prompter | None,
    ) -> None:
        self.network, self.prompter = network, prompter
        self._head = head

    @property
    def shares_features(self) -> bool:
        """Whether clicks read the features that tracking reads. Raises ValueError if there is no head."""
        return self.prompter is None and self.head()[1] is self.network

    def head(self) -> tuple[ClickHead, STCN]:
        """The head, and the network whose features it reads. Raises ValueError if there is no head."""
        if self._head is None:
            raise ValueError(
                "this predictor has no click head: make it with Predictor.from_pretrained, or pass clicks or "
                "prompter"
            )
        return (self._head, self.network) if isinstance(self._head, ClickHead) else self._head()

    def look(
        self, working: WorkingFrame, features: Features | None = None, frame: object = None
    ) -> SeenFrame:
        """A frame to click on.

        features: of the frame, from `network`; None: not computed yet.
        frame: the user's frame, for the prompter; None: the prompter gets the frame at working size.
        """
        if self.prompter is not None:
            if frame is None:
                frame = denormalize(working.pixels[working.crop][0]).clamp(0, 1)
            return SeenFrame.by_prompter(self.prompter, to_pixels(frame), working.size)
        device = working.pixels.device
        head, network = self.head()
        if features is None or network is not self.network:
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                network.to(device)
                features = network.encode_key(working.pixels.to(next(network.parameters()).dtype))
        return SeenFrame.by_head(head.to(device), working, features)


# Makes a frame to click on, from a working frame and its features.
Look = Callable[[WorkingFrame, Features], SeenFrame]


def score_of(prob: Tensor) -> float:
    """The expected intersection over union of the mask of a probability (H, W).

    Only pixels in or near the mask count. Low probabilities far from the mask belong to look-alikes, and
    their sum over a frame can exceed the area of the object.
    """
    mask = (prob > 0.5).to(prob.dtype)
    near = prob * _near(mask)
    inside = torch.dot(prob.flatten(), mask.flatten())
    return float(inside / (mask.sum() + near.sum() - inside).clamp(min=1e-6))


def _near(mask: Tensor) -> Tensor:
    """1 in the blocks that touch a mask (H, W) or are next to one that does, 0 elsewhere: (H, W).

    A block is a twentieth of the short side.
    """
    height, width = mask.shape
    block = max(1, min(height, width) // 20)
    touched = functional.max_pool2d(mask[None, None], block, ceil_mode=True)
    near = functional.max_pool2d(touched, 3, stride=1, padding=1)[0, 0]
    return near.repeat_interleave(block, 0).repeat_interleave(block, 1)[:height, :width]


def _without_far_parts(full: Tensor, prob: Tensor, prompts: Prompts, working: WorkingFrame) -> Tensor:
    """A probability (H, W) without the parts in or near which is neither a click nor the earlier mask.

    Look-alikes elsewhere get the features of the object, and often the probability of the object.

    prob: (1, 1, H' / 2, W' / 2), the same at the working size.
    """
    parts = clicked_parts(functional.avg_pool2d(prob, 2) > 0.5, prompts)
    if parts is None:
        return full
    share = functional.interpolate(parts.float(), scale_factor=STRIDE)[0]
    share = resize(share[working.crop], working.size)[0]
    return full.masked_fill((full > 0.5) & (share < 0.5), 0)


def _scaled(prompt: Prompt, scale: tuple[float, float], size: tuple[int, ...]) -> Prompt:
    """The prompt in pixels of a frame that is `scale` as large, (H, W) of `size`."""
    if scale == (1.0, 1.0):
        return prompt
    box, mask = prompt.box, prompt.mask
    if box is not None:
        box = (box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1])
    if mask is not None:
        mask = resize(torch.from_numpy(mask)[None], (size[0], size[1]))[0].numpy()
    return Prompt((prompt.points * scale).astype(np.float32), prompt.labels, box, mask)


def _foreign(mask: Any, size: tuple[int, ...]) -> Tensor:
    """The mask of a prompter as probabilities (H, W). Raises ValueError if it does not fit the frame."""
    array = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if array.shape != tuple(size) or array.dtype.kind not in "buif":
        want = "x".join(map(str, size))
        raise ValueError(
            f"the prompter returned {array.shape} of {array.dtype}; the mask of a {want} frame is an array "
            "(H, W) of bool or of probabilities"
        )
    if array.dtype.kind != "f":
        return torch.from_numpy((array != 0).astype(np.float32))
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError("the prompter returned numbers that are not probabilities from 0 to 1")
    return torch.from_numpy(array.astype(np.float32))
