"""emavos as a machine learning backend of Label Studio, for boxes in videos.

    pip install ".[video]"  # in a clone of emavos
    pip install label-studio-ml
    label-studio-ml init emavos_backend --script examples/plugs/label_studio_backend.py
    label-studio-ml start emavos_backend

The labelling interface has a `<VideoRectangle name="box" toName="video">`. Draw a box around each object on
its first frame; the backend returns the boxes of the frames after it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from label_studio_ml.model import LabelStudioMLBase
from numpy.typing import NDArray

from emavos import Predictor
from emavos.bridges import box_of, first_mask
from emavos.io import open_frames

Box = dict[str, Any]  # of a frame, counted from 1, with sides in percent


class EmavosBackend(LabelStudioMLBase):  # type: ignore[misc]
    """Tracks the boxes that were drawn in a video.

    MODEL, SIZE and FRAMES in the environment choose the model, the short side of its frames, and how many
    frames are tracked after a box (all).
    """

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """The tracked boxes of each task, in Label Studio's format.

        context: what is drawn so far, as Label Studio sends it; None: there is nothing to track.
        """
        drawn = [region for region in (context or {}).get("result", ()) if region["type"] == "videorectangle"]
        model = os.environ.get("MODEL", "tiny")
        predictor = Predictor.from_pretrained(model, size=int(os.environ.get("SIZE", "480")))
        predictions = []
        for task in tasks:
            path = self.get_local_path(_video_of(task))
            regions = [_continued(predictor, path, region) for region in drawn]
            predictions.append(
                {"model_version": f"emavos {model}", "score": _score(regions), "result": regions}
            )
        return predictions


def _video_of(task: Mapping[str, Any]) -> str:
    """The address of the video: the first text among the data of a task."""
    return next(value for value in task["data"].values() if isinstance(value, str))


def _continued(predictor: Predictor, path: str, region: Mapping[str, Any]) -> dict[str, Any]:
    """A region with the boxes of the frames after its last drawn one."""
    value = region["value"]
    drawn = sorted(
        (box for box in value["sequence"] if box.get("enabled", True)), key=lambda box: box["frame"]
    )
    tracked = [*_boxes(predictor, path, drawn[-1])] if drawn else []
    return {**region, "value": {**value, "sequence": [*drawn, *tracked]}, "origin": "prediction"}


def _boxes(predictor: Predictor, path: str, drawn: Box) -> Iterator[Box]:
    """The boxes of the frames after a drawn one."""
    most = int(os.environ["FRAMES"]) if "FRAMES" in os.environ else None
    source = open_frames(path)
    session = predictor.session()
    begin = drawn["frame"] - 1  # Label Studio counts from 1
    for index, frame in enumerate(
        islice(iter(source), begin, None if most is None else begin + 1 + most), begin
    ):
        height, width = frame.shape[:2]
        scale = np.array([width, height, width, height]) / 100
        if index == begin:
            inside = _drawn_plane(drawn, (height, width))
            plane = predictor.click(frame, box=box_of(inside)).mask
            if drawn.get("rotation"):
                plane &= inside  # the upright box around a turned one shows more than the object
            # if nothing stands out, track all of the box
            session.step(frame, (plane if plane.any() else inside).astype(np.int32))
            continue
        plane = session.step(frame).mask == 1
        time = (index / source.fps) if source.fps else None
        found = {"frame": index + 1, "rotation": 0, **({} if time is None else {"time": time})}
        if not plane.any():
            yield {**drawn, **found, "enabled": False}
            continue
        left, top, right, bottom = (float(side) for side in np.array(box_of(plane)) / scale)
        yield {**found, "enabled": True, "x": left, "y": top, "width": right - left, "height": bottom - top}


def _drawn_plane(drawn: Box, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The inside of a drawn box, (H, W), which may be turned clockwise around its upper left corner."""
    height, width = size
    angle = np.deg2rad(drawn.get("rotation", 0))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    begin = np.array([drawn["x"] * width, drawn["y"] * height]) / 100
    sides = np.array([drawn["width"] * width, drawn["height"] * height]) / 100 - 1  # to the last pixel
    corners = begin + np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * sides.clip(0) @ turn
    try:
        return first_mask([corners], size=size) == 1
    except ValueError as error:
        raise ValueError(
            f"the box of frame {drawn['frame']} lies outside of its frame; draw it again"
        ) from error


def _score(regions: Sequence[Mapping[str, Any]]) -> float:
    """The share of boxes that show an object."""
    boxes = [box for region in regions for box in region["value"]["sequence"]]
    return sum(box["enabled"] for box in boxes) / len(boxes) if boxes else 0.0
