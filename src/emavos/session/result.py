"""What is found in one frame."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from emavos.confidence.expected import ObjectState
from emavos.io.ids import mask_png


@dataclass(frozen=True, eq=False)  # tensors do not compare as one
class Result:
    """The masks of one frame, at the size of the frame.

    index: of the frame, from 0.
    ids: the objects followed so far, in the order they were introduced.
    prob: (1 + O, H, W) float32, background first, then in the order of ids; sums to one over its first axis.
        It is yours: writing to it changes no later frame.
    confidences: how sure the mask of each object is, in the order of ids.
    """

    index: int
    ids: tuple[int, ...]
    prob: Tensor = field(repr=False)
    confidences: tuple[float, ...]

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) int32: the id of the most probable object at each pixel, 0 for background."""
        table = np.array((0, *self.ids), dtype=np.int32)
        best = self.prob.max(dim=0).indices  # the first of equals; argmax takes twenty times as long
        small = best.to(torch.uint8 if len(table) <= 256 else torch.int32)  # of which a GPU sends fewer bytes
        mask: np.ndarray = table[small.cpu().numpy()]
        return mask

    @cached_property
    def objects(self) -> dict[int, ObjectState]:
        """Of each object whether it is present, how sure its mask is, and its area in pixels."""
        areas = dict(zip(*(x.tolist() for x in np.unique(self.mask, return_counts=True)), strict=True))
        return {
            id: ObjectState(id in areas, confidence, areas.get(id, 0))
            for id, confidence in zip(self.ids, self.confidences, strict=True)
        }

    def _repr_png_(self) -> bytes:
        """The mask in colours: what a notebook shows of a result."""
        return mask_png(self.mask)

    def _repr_html_(self) -> str:
        seen = [id for id in self.ids if (self.mask == id).any()]
        objects = ", ".join(map(str, seen)) or "none"
        picture = b64encode(self._repr_png_()).decode()
        return f'<p>frame {self.index}: objects {objects}</p><img src="data:image/png;base64,{picture}">'
