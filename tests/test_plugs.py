"""The plugs of examples/plugs, with the real classes of the tools that they plug into, if installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from emavos import Predictor
from emavos.bridges import box_of
from emavos.demo import synthetic_clip
from emavos.evaluation import region_similarity
from emavos.io import write_video

PLUGS = Path(__file__).parents[1] / "examples" / "plugs"
FRAMES, MASKS = synthetic_clip(frames=5, size=(96, 160))


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained(device="cpu", size=96)


def plug(name, *packages):
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed", exc_type=ImportError)
    spec = importlib.util.spec_from_file_location(name, PLUGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["mask", "polygon", "rectangle"])
def test_cvat_tracks_a_shape_from_image_to_image(predictor, kind):
    module = plug("cvat_tracking", "cvat_sdk.auto_annotation", "cvat_sdk.masks")
    from cvat_sdk import auto_annotation as cvataa
    from cvat_sdk.masks import decode_mask

    function = module.Tracking(predictor)
    assert isinstance(function.spec, cvataa.TrackingFunctionSpec)
    images = [Image.fromarray(frame) for frame in FRAMES]
    plane = MASKS[0] == 1
    shape = cvataa.TrackableShape(type=kind, points=module._points(plane, kind))
    state = function.init_tracking_state(None, images[0], shape)
    for image, truth in zip(images[1:], MASKS[1:], strict=True):
        found = function.track(None, image, state)
        assert isinstance(found, cvataa.TrackableShape)
        assert found.type == kind
        if kind == "mask":
            plane = decode_mask(found.points, image_width=160, image_height=96)
            assert region_similarity(plane, truth == 1) > 0.5
        elif kind == "rectangle":
            assert _overlap(found.points, box_of(truth == 1)) > 0.4
        else:
            assert len(found.points) % 2 == 0


def test_cvat_is_told_that_an_object_is_gone(predictor, monkeypatch):
    module = plug("cvat_tracking", "cvat_sdk.auto_annotation", "cvat_sdk.masks")
    function = module.Tracking(predictor)
    mask = module._points(MASKS[0] == 1, "mask")
    state = function.init_tracking_state(
        None, Image.fromarray(FRAMES[0]), module.cvataa.TrackableShape(type="mask", points=mask)
    )
    state.session.correct({1: np.zeros((96, 160), bool)})
    state.session.remove([1])
    assert function.track(None, Image.fromarray(FRAMES[1]), state) is None


def _overlap(one, other):
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    both = np.prod((high - low).clip(min=0))
    return both / (np.prod(np.subtract(one[2:], one[:2])) + np.prod(np.subtract(other[2:], other[:2])) - both)


def test_label_studio_gets_the_boxes_after_the_drawn_one(tmp_path, monkeypatch):
    pytest.importorskip("av")
    module = plug("label_studio_backend", "label_studio_ml.model")
    write_video(tmp_path / "v.mp4", FRAMES, fps=5)
    monkeypatch.setenv("SIZE", "96")
    monkeypatch.setenv("FRAMES", "2")
    backend = module.EmavosBackend.__new__(module.EmavosBackend)  # its __init__ asks for a running project
    monkeypatch.setattr(backend, "get_local_path", lambda url, **_: str(tmp_path / url), raising=False)
    left, top, right, bottom = np.array(box_of(MASKS[1] == 1)) / [1.6, 0.96, 1.6, 0.96]
    drawn = {"frame": 2, "enabled": True, "rotation": 0, "time": 0.2, "x": left, "y": top}
    drawn |= {"width": right - left, "height": bottom - top}
    region = {"id": "r1", "type": "videorectangle", "from_name": "box", "to_name": "video"}
    region["value"] = {"sequence": [drawn], "framesCount": 5, "duration": 1, "labels": ["Ball"]}
    task = {"id": 1, "data": {"video": "v.mp4"}}
    (prediction,) = backend.predict([task], {"result": [region, {"type": "choices"}]})
    (found,) = prediction["result"]
    assert {key: found[key] for key in ("id", "type", "from_name", "to_name")} == {
        key: region[key] for key in ("id", "type", "from_name", "to_name")
    }
    sequence = found["value"]["sequence"]
    assert sequence[0] == drawn
    assert [box["frame"] for box in sequence] == [2, 3, 4]
    for box in sequence[1:]:
        sides = np.array([box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]])
        assert _overlap(sides * [1.6, 0.96, 1.6, 0.96], box_of(MASKS[box["frame"] - 1] == 1)) > 0.4
    (nothing,) = backend.predict([task])
    assert nothing["result"] == []


def test_a_turned_box_of_label_studio_is_turned_around_its_upper_left_corner(monkeypatch):
    for name, content in (("label_studio_ml", {}), ("label_studio_ml.model", {"LabelStudioMLBase": object})):
        stand_in = ModuleType(name)
        vars(stand_in).update(content)
        monkeypatch.setitem(sys.modules, name, stand_in)
    module = plug("label_studio_backend")
    drawn = {"frame": 1, "x": 50, "y": 25, "width": 20, "height": 10}  # percent of 80x200: 40 x 8 pixels
    upright = module._drawn_plane(drawn, (80, 200))
    assert box_of(upright) == (100, 20, 140, 28)
    assert upright.sum() == 40 * 8
    turned = module._drawn_plane(drawn | {"rotation": 90}, (80, 200))  # clockwise: it hangs down
    assert box_of(turned) == (93, 20, 101, 60)
    tilted = module._drawn_plane(drawn | {"rotation": 45}, (80, 200))
    assert 0.8 < tilted.sum() / upright.sum() < 1.2
    assert tilted[30, 110]
    assert not tilted[20, 130]
    with pytest.raises(ValueError, match="outside of its frame"):
        module._drawn_plane(drawn | {"x": 120}, (80, 200))


def test_trackers_follow_masks_of_tracklets_that_come_and_go(predictor):
    module = plug("trackers_propagator", "trackers.core.mcbyte.masks.base")
    from trackers.core.mcbyte.mask_manager import MaskManager
    from trackers.core.mcbyte.masks.base import MaskOutput, TrackletSnapshot

    class Truth:
        """A mask generator that knows the masks: of tracklets 0, 1, ... they are objects 1, 2, ..."""

        def generate(self, frame, tracklets):
            index = next(i for i, one in enumerate(FRAMES) if np.array_equal(one, frame))
            planes = np.stack([MASKS[index] == t.tracker_id + 1 for t in tracklets])
            return MaskOutput(planes, {t.tracker_id: n for n, t in enumerate(tracklets)})

    def snapshots(index, *ids):
        return [TrackletSnapshot(id, np.array(box_of(MASKS[index] == id + 1), float)) for id in ids]

    manager = MaskManager(
        Truth(), module.EmavosPropagator(predictor), mask_creation_bbox_overlap_threshold=1.0
    )
    assert manager.get_updated_masks(FRAMES[0], None, []) is None
    found = manager.get_updated_masks(FRAMES[1], FRAMES[0], snapshots(0, 0))
    assert _same(found, 1, {0})
    found = manager.get_updated_masks(FRAMES[2], FRAMES[1], snapshots(1, 0, 1), snapshots(1, 1))
    assert _same(found, 2, {0, 1})
    found = manager.get_updated_masks(FRAMES[3], FRAMES[2], snapshots(2, 1), [], [0])
    assert _same(found, 3, {1})
    manager.reset()
    assert manager.get_updated_masks(FRAMES[4], FRAMES[3], []) is None


def _same(output, index, tracklets):
    assert {*output.tracklet_mask_dict} == {*output.mask_avg_prob_dict} == tracklets
    assert all(0.5 < prob <= 1 for prob in output.mask_avg_prob_dict.values())
    return all(
        region_similarity(output.masks[place], MASKS[index] == tracklet + 1) > 0.5
        for tracklet, place in output.tracklet_mask_dict.items()
    )
