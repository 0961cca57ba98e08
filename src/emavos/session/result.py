"""The result of one frame."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emavos.annotations.outlines import Polygon, box_of, outlines
from emavos.confidence.expected import Evidence, ObjectState
from emavos.frames.preprocess import to_pixels
from emavos.io import Pixels, write_mask
from emavos.io.ids import mask_png
from emavos.visualize import cut_out, overlay

CUT = 0.5  # share of a frame that is new after a scene cut, at least (docs/experiments.md)


@dataclass(frozen=True, eq=False, repr=False)  # comparing tensors returns no single bool
class Result:
    """The masks of one frame, at the size of the frame.

    index: of the frame, from 0.
    ids: the objects tracked so far, in the order of introduction.
    prob: (1 + O, H, W) float32, background first, then in the order of ids. Sums to one over the first axis.
        You may change the tensor; later frames do not depend on it.
    evidence: what the confidences are computed from; or, of a fused result, the confidences.
    unmatched: share of the frame that resembles nothing in the memory, in [0, 1]; None if this was not
        measured: see `Settings.cuts`.
    """

    index: int
    ids: tuple[int, ...]
    prob: Tensor = field(repr=False)
    evidence: tuple[float, ...] | Evidence = field(repr=False)
    unmatched: float | None = None

    @property
    def cut(self) -> bool:
        """Whether the frame shows another scene than the memory: `unmatched` is at least `CUT`."""
        return self.unmatched is not None and self.unmatched >= CUT

    @cached_property
    def confidences(self) -> tuple[float, ...]:
        """Expected J of each mask, in [0, 1], in the order of ids."""
        return self.evidence.confidences() if isinstance(self.evidence, Evidence) else self.evidence

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

    @cached_property
    def boxes(self) -> dict[int, tuple[int, int, int, int]]:
        """{id: (x, y, x, y)} of visible objects: the first pixel, and the pixel after the last."""
        return {id: box_of(self.mask == id) for id, state in self.objects.items() if state.present}

    def polygons(self, tolerance: float = 0.0) -> dict[int, list[Polygon]]:
        """{id: polygons} of visible objects, one polygon (P, 2) of x and y for each connected part.

        tolerance: see `emavos.bridges.outlines`.
        """
        return {
            id: outlines(self.mask == id, tolerance) for id, state in self.objects.items() if state.present
        }

    def overlay(self, frame: object, alpha: float = 0.5, contour: bool = True) -> Pixels:
        """The frame with its objects in colour, (H, W, 3) uint8. See `emavos.visualize.overlay`.

        frame: the frame of this result, as for `Session.step`.
        """
        return overlay(to_pixels(frame), self.mask, alpha=alpha, contour=contour)

    def matte(self, ids: Collection[int] | None = None) -> NDArray[np.float32]:
        """The opacity of objects at each pixel, (H, W) float32 in [0, 1], with soft edges.

        ids: objects that are opaque; None: all.

        The opacity is the sum of the objects' probabilities, spread so that pixels below 0.05 are transparent
        and pixels above 0.95 opaque. Raises ValueError for an id that is not tracked.
        """
        opaque = self.ids if ids is None else tuple(ids)
        if unknown := [id for id in opaque if id not in self.ids]:
            tracked = ", ".join(map(str, self.ids)) or "nothing"
            raise ValueError(f"object {unknown[0]} is not tracked in frame {self.index}, but {tracked}")
        places = [1 + self.ids.index(id) for id in opaque]
        opacity: NDArray[np.float32] = ((self.prob[places].sum(dim=0) - 0.05) / 0.9).clamp(0, 1).cpu().numpy()
        return opacity

    def cutout(self, frame: object, ids: Collection[int] | None = None) -> NDArray[np.uint8]:
        """The frame with everything transparent but the objects, (H, W, 4) uint8: red, green, blue, opacity.

        frame: the frame of this result, as for `Session.step`.
        ids: objects to show; None: all.

        Colours are not multiplied by the opacity, and are black if it is 0. Raises ValueError as `matte`
        does, and if the frame has another size.
        """
        return cut_out(to_pixels(frame), self.matte(ids))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mask as a PNG of ids, in the colours of overlays. See `emavos.io.write_mask`.

        path: file to write, named .png. Its folder must exist.
        """
        if os.path.splitext(path)[1].lower() != ".png":
            raise ValueError(f"{os.fspath(path)} is not named .png; masks are saved as PNGs only")
        write_mask(path, self.mask)

    def __repr__(self) -> str:
        height, width = self.prob.shape[1:]
        sure = ", ".join(f"{confidence:.2f}" for confidence in self.confidences)
        what = f"ids={self.ids}, confidences=({sure})" if self.ids else "no objects"
        return f"Result(index={self.index}, size={height}x{width}, {what})"

    def _repr_png_(self) -> bytes:
        """The mask in colours, for notebooks."""
        return mask_png(self.mask)

    def _repr_html_(self) -> str:
        seen = [id for id, state in self.objects.items() if state.present]
        objects = ", ".join(map(str, seen)) or "none"
        picture, text = b64encode(self._repr_png_()).decode(), f"frame {self.index}: objects {objects}"
        return f'<p>{text}</p><img src="data:image/png;base64,{picture}" alt="mask of {text}">'
