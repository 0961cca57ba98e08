"""emavos as a tracking function of CVAT, for masks, polygons and boxes.

Register it with CVAT's own command line (`pip install cvat-cli "numpy>=2"`):

    cvat-cli --server-host https://cvat.example function create-native emavos \\
        --function-file examples/plugs/cvat_tracking.py -p model=str:tiny -p size=int:480
    cvat-cli --server-host https://cvat.example function run-agent ID \\
        --function-file examples/plugs/cvat_tracking.py -p model=str:tiny -p size=int:480

In CVAT, choose "emavos" among the trackers, and draw a mask, a polygon or a box.
"""

from __future__ import annotations

from typing import NamedTuple

import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk.masks import decode_mask, encode_mask
from numpy.typing import NDArray
from PIL import Image

from emavos import Predictor, Session
from emavos.bridges import box_of, first_mask, outlines

Plane = NDArray[np.bool_]  # (H, W)


class State(NamedTuple):  # no dataclass, as cvat-cli runs this file without registering a module
    """A tracked shape: its type, and the session that remembers the object."""

    kind: str
    session: Session


class Tracking:
    """A tracking function as CVAT defines it: a state for each shape, and the shape on the next image."""

    spec = cvataa.TrackingFunctionSpec(supported_shape_types=["mask", "polygon", "rectangle"])

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def init_tracking_state(
        self,
        context: cvataa.TrackingFunctionShapeContext,
        pp_image: Image.Image,
        shape: cvataa.TrackableShape,
    ) -> State:
        frame = np.asarray(pp_image.convert("RGB"))
        state = State(shape.type, self._predictor.session())
        state.session.step(frame, self._plane(frame, shape).astype(np.int32))
        return state

    def track(
        self, context: cvataa.TrackingFunctionShapeContext, pp_image: Image.Image, state: State
    ) -> cvataa.TrackableShape | None:
        result = state.session.step(np.asarray(pp_image.convert("RGB")))
        plane = result.mask == 1
        return (
            cvataa.TrackableShape(type=state.kind, points=_points(plane, state.kind)) if plane.any() else None
        )

    def _plane(self, frame: NDArray[np.uint8], shape: cvataa.TrackableShape) -> Plane:
        """The pixels of a shape; of a box, those of the object inside."""
        height, width = frame.shape[:2]
        plane: Plane
        if shape.type == "mask":
            plane = decode_mask(shape.points, image_width=width, image_height=height)
        elif shape.type == "polygon":
            plane = first_mask([shape.points], size=(height, width)) == 1
        else:
            plane = self._predictor.click(frame, box=shape.points).mask
            if not plane.any():  # nothing stands out: track all of the box
                left, top, right, bottom = np.rint(shape.points).astype(int)
                plane[top:bottom, left:right] = True
        return plane


def _points(plane: Plane, kind: str) -> list[float]:
    """The points of a shape that covers a plane: of several parts, a polygon has the largest."""
    if kind == "mask":
        return list(encode_mask(plane))
    if kind == "rectangle":
        return [float(side) for side in box_of(plane)]
    parts = [np.asarray(polygon, dtype=float) for polygon in outlines(plane, tolerance=1)]
    return [float(x) for x in max(parts, key=_area).ravel()]


def _area(points: NDArray[np.float64]) -> float:
    x, y = points.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def create(model: str = "tiny", size: int = 480, device: str = "auto") -> Tracking:
    """The function that `cvat-cli` makes, from its -p options."""
    return Tracking(Predictor.from_pretrained(model, size=size, device=device))
