"""SA-V, LVOS and MOSEv2: what they measure beside J and F, and objects that overlap."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image

from emavos.cli import main
from emavos.demo import synthetic_clip
from emavos.evaluation import PROTOCOLS, ObjectScore, find_videos, region_similarity, score_folder
from emavos.evaluation.metrics import adaptive_tolerance, boundary_accuracy, smoothed_similarity
from emavos.io import read_mask, write_mask


@pytest.fixture
def sav(tmp_path):
    """A video of SA-V at 24 frames a second, with two objects at 6, one upon the other."""
    frames, masks = synthetic_clip(frames=13, size=(64, 96))
    (tmp_path / "sav_val.txt").write_text("v1\n")
    folder = tmp_path / "JPEGImages_24fps" / "v1"
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:05d}.jpg")
    for name, ids, begin in (("000", (1, 2), 0), ("003", (2,), 4)):
        place = tmp_path / "Annotations_6fps" / "v1" / name
        place.mkdir(parents=True)
        for index in range(begin, 13, 4):
            plane = np.isin(masks[index], ids)
            Image.fromarray((255 * plane).astype(np.uint8)).save(place / f"{index:05d}.png")
    return tmp_path


def test_each_object_of_sav_is_a_sequence_of_its_own(sav):
    videos = find_videos(sav, PROTOCOLS["sa-v"])
    assert [(video.name, len(video.images), video.wanted) for video in videos] == [
        ("v1/000", 13, ("00000", "00004", "00008", "00012")),
        ("v1/003", 13, ("00004", "00008", "00012")),
    ]
    assert [video.name for video in find_videos(sav, PROTOCOLS["sa-v"], ["v1/003"])] == ["v1/003"]
    assert len(find_videos(sav, PROTOCOLS["sa-v"], ["v1"])) == 2
    with pytest.raises(ValueError, match="has no sequence v2"):
        find_videos(sav, PROTOCOLS["sa-v"], ["v2"])


def test_overlapping_objects_are_tracked_alone_and_scored_between_their_first_and_last_mask(sav, tmp_path):
    out = tmp_path / "out"
    truth = f"truth={sav / 'Annotations_6fps'}"
    argv = ["evaluate", "--data", str(sav), "--protocol", "sa-v", "--out", str(out), "--quiet", "--zip"]
    argv += ["--processes", "1", "--pictures", "1", "--model", "copy-first-mask"]
    assert main(argv) == 0
    first = [read_mask(out / f"masks/copy-first-mask/v1/{name}.png") for name in ("000/00000", "003/00004")]
    assert (first[0][first[1] != 0] != 0).any()  # a pixel of both
    score = score_folder(sav, out / "masks/copy-first-mask", PROTOCOLS["sa-v"])
    planes = [np.asarray(Image.open(sav / f"Annotations_6fps/v1/003/{i:05d}.png")) > 0 for i in (4, 8)]
    assert score.sequences["v1/003"][1].J_frames == (region_similarity(*planes),)
    assert len(score.sequences["v1/000"][1].J_frames) == 2
    argv = [*argv[:-2], "--results", truth]
    argv.remove("--zip")
    assert main(argv) == 0
    (line,) = json.loads((out / "overview.json").read_text())["methods"]
    assert line["J&F"] == 1


def test_stability_of_lvos_is_the_deviation_over_the_frames(tmp_path):
    J, F = (0.5, 1.0, 0.75), (0.7, 0.8, 0.85)
    both = [0.6, 0.9, 0.8]
    expected = math.sqrt(sum((x - sum(both) / 3) ** 2 for x in both) / 3)
    assert ObjectScore(J, F).stability == pytest.approx(expected)
    assert math.isnan(ObjectScore((), ()).stability)
    for index in range(5):
        mask = np.zeros((40, 60), np.uint8)
        mask[4 + index : 24 + index, 8:30] = 1
        for folder, shift in (("Annotations", 0), ("results", index)):
            (tmp_path / folder / "a").mkdir(parents=True, exist_ok=True)
            write_mask(tmp_path / folder / "a" / f"{index:05d}.png", np.roll(mask, shift, 1))
    score = score_folder(tmp_path, tmp_path / "results", PROTOCOLS["lvos"])
    assert score.more == {"V": score.sequences["a"][1].stability}
    assert score.more["V"] > 0.05
    assert score_folder(tmp_path, tmp_path / "results", PROTOCOLS["mose"]).more == {}


def official_spans(both, empty):
    """Frames where the object is gone, and where it is back, by the indices of MOSEv2's published program."""
    gone = [i for i in range(1, len(empty)) if empty[i] and not empty[i - 1]]
    back = [i for i in range(1, len(empty)) if empty[i - 1] and not empty[i]]
    gone = [0, *gone] if empty[0] else gone
    of_gone = [
        np.mean(both[start : back[i] if i < len(back) else len(empty)])
        for i, start in enumerate(gone)
        if start
    ]
    of_back = [
        np.mean(both[start : gone[i + 1] if i + 1 < len(gone) else len(empty)])
        for i, start in enumerate(back)
    ]
    return of_gone, of_back


def test_objects_that_vanish_and_return_are_scored_as_in_mosev2():
    generator = np.random.default_rng(0)
    for _ in range(200):
        count = int(generator.integers(1, 12))
        empty = (generator.random(count) < 0.4).tolist()
        J, F = generator.random(count), generator.random(count)
        one = ObjectScore(tuple(J), tuple(F), absent=tuple(empty))
        for value, spans in zip(
            (one.disappeared, one.reappeared), official_spans((J + F) / 2, empty), strict=True
        ):
            assert value == pytest.approx(np.mean(spans)) if spans else math.isnan(value)


def test_the_tolerance_of_mosev2_grows_with_the_object_up_to_that_of_davis():
    truth = np.zeros((480, 854), bool)
    assert adaptive_tolerance(truth) == pytest.approx(0.008 * math.hypot(480, 854))
    for side, tolerance in ((1, 1), (10, 1), (11, 2), (45, 5), (300, 0.008 * math.hypot(480, 854))):
        truth[:side, :side] = True
        assert adaptive_tolerance(truth) == pytest.approx(tolerance)
    assert adaptive_tolerance(np.zeros((4, 4), bool)) == 1.0


def test_masks_are_scored_by_the_measures_of_mosev2(tmp_path):
    for index in range(6):
        mask = np.zeros((480, 640), np.uint8)
        if index not in (2, 3):
            mask[40:52, 60 + index : 72 + index] = 1
        for folder, shift in (("Annotations", 0), ("results", 2)):
            (tmp_path / folder / "a").mkdir(parents=True, exist_ok=True)
            write_mask(tmp_path / folder / "a" / f"{index:05d}.png", np.roll(mask, shift, 1))
    score = score_folder(tmp_path, tmp_path / "results", PROTOCOLS["mosev2"])
    one = score.sequences["a"][1]
    planes = [np.roll(mask, shift, 1) == 1 for shift in (2, 0)]
    assert one.J_frames == (smoothed_similarity(*planes), 1.0, 1.0, smoothed_similarity(*planes))
    assert smoothed_similarity(*planes) == (10 * 12 + 1) / (14 * 12 + 1)
    assert one.F_frames[0] == boundary_accuracy(*planes, tolerance=2)
    assert one.F_frames[0] < boundary_accuracy(*planes) or boundary_accuracy(*planes, tolerance=2) == 1
    assert score.more == {"J&F gone": 1.0, "J&F back": (one.J_frames[3] + one.F_frames[3]) / 2}
