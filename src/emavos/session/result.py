"""The result of one frame."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from emavos.confidence.expected import ObjectState
from emavos.io.ids import mask_png


@dataclass(frozen=True, eq=False)  # comparing tensors returns no single bool
class Result:
    """The masks of one frame, at the size of the frame.

    index: of the frame, from 0.
    ids: the objects tracked so far, in the order of introduction.
    prob: (1 + O, H, W) float32, background first, then in the order of ids. Sums to one over the first axis.
        You may change the tensor; later frames do not depend on it.
    confidences: expected J of each mask, in [0, 1], in the order of ids.
    """

    index: int
    ids: tuple[int, ...]
    prob: Tensor = field(repr=False)
    confidences: tuple[float, ...]

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) int32: the id of the most probable object at each pixel, 0 for background."""
        table = np.array((0, *self.ids), dtype=np.int32)
        best = self.prob.max(dim=0).indices  # returns the first of equals; argmax takes twenty times as long
        small = best.to(torch.uint8 if len(table) <= 256 else torch.int32)  # fewer bytes to copy from a GPU
        mask: np.ndarray = table[small.cpu().numpy()]
        return mask

    @cached_property
    def objects(self) -> dict[int, ObjectState]:
        """{id: state}: whether the object is present, the confidence of its mask, and its area in pixels."""
        areas = dict(zip(*(x.tolist() for x in np.unique(self.mask, return_counts=True)), strict=True))
        return {
            id: ObjectState(id in areas, confidence, areas.get(id, 0))
            for id, confidence in zip(self.ids, self.confidences, strict=True)
        }

    def _repr_png_(self) -> bytes:
        """The mask in colours, for notebooks."""
        return mask_png(self.mask)

    def _repr_html_(self) -> str:
        seen = [id for id in self.ids if (self.mask == id).any()]
        objects = ", ".join(map(str, seen)) or "none"
        picture = b64encode(self._repr_png_()).decode()
        return f'<p>frame {self.index}: objects {objects}</p><img src="data:image/png;base64,{picture}">'
