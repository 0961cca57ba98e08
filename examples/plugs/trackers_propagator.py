"""emavos as the mask propagator of McByte, a tracker of boxes in Roboflow's `trackers`.

pip install ".[supervision]"  # in a clone of emavos
pip install trackers

from trackers.core.mcbyte.mask_manager import MaskManager

manager = MaskManager(your_mask_generator, EmavosPropagator(Predictor.from_pretrained()))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from trackers.core.mcbyte.masks.base import MaskOutput, MaskPropagator

from emavos import Predictor, Result, Session
from emavos.bridges import first_mask


class EmavosPropagator(MaskPropagator):  # type: ignore[misc]
    """Follows the masks of tracklets from frame to frame. Of two objects on one pixel the smaller has it."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.reset()

    def reset(self) -> None:
        self._session: Session | None = None
        self._ids: dict[int, int] = {}  # of the session, by tracklet: those of tracklets may be 0
        self._last = 0

    def initialize(self, frame: NDArray[np.uint8], mask_output: MaskOutput) -> None:
        self.reset()
        planes = self._named(mask_output)
        if planes:
            self._session = self._predictor.session()
            self._session.step(frame, _mask_of(planes))

    def propagate(self, frame: NDArray[np.uint8]) -> MaskOutput | None:
        if self._session is None:
            return None
        result = self._session.step(frame)
        seen = {tracklet: id for tracklet, id in self._ids.items() if (result.mask == id).any()}
        if not seen:
            return MaskOutput(None, {}, None)
        planes = np.stack([result.mask == id for id in seen.values()])
        probs = {
            tracklet: _mean_prob(result, id, plane)
            for (tracklet, id), plane in zip(seen.items(), planes, strict=True)
        }
        return MaskOutput(planes, {tracklet: place for place, tracklet in enumerate(seen)}, probs)

    def add_masks(self, frame: NDArray[np.uint8], mask_output: MaskOutput) -> None:
        """Add tracklets on the frame of the last call."""
        if self._session is None:
            self.initialize(frame, mask_output)
            return
        if planes := self._named(mask_output):
            mask = _mask_of(planes)
            self._session.add({id: mask == id for id in planes})

    def remove_masks(self, tracklet_ids: Sequence[int]) -> None:
        known = [self._ids.pop(tracklet) for tracklet in tracklet_ids if tracklet in self._ids]
        if self._session is not None and known:
            self._session.remove(known)

    def _named(self, output: MaskOutput) -> dict[int, NDArray[np.bool_]]:
        """The masks of new tracklets by their id in the session, without empty ones."""
        planes: dict[int, NDArray[np.bool_]] = {}
        if output.masks is None:
            return planes
        for tracklet, place in output.tracklet_mask_dict.items():
            plane = np.asarray(output.masks[place]) > 0
            if plane.any() and tracklet not in self._ids:
                self._last += 1
                self._ids[tracklet] = self._last
                planes[self._last] = plane
        return planes


def _mask_of(planes: Mapping[int, NDArray[np.bool_]]) -> NDArray[np.int32]:
    return first_mask([*planes.values()], ids=[*planes])


def _mean_prob(result: Result, id: int, plane: NDArray[np.bool_]) -> float:
    return float(result.prob[1 + result.ids.index(id)].cpu().numpy()[plane].mean())
