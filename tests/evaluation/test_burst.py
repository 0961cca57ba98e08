"""BURST: its file of annotations, HOTA, and results for its program."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image

from emavos.annotations.rle import decode_rle, encode_rle
from emavos.bridges import read_layout
from emavos.cli import main
from emavos.demo import synthetic_clip
from emavos.evaluation import PROTOCOLS, find_videos, score_folder
from emavos.evaluation.burst import DISTRACTORS, read_burst, write_burst_results
from emavos.evaluation.hota import FrameMatch, count_hota
from emavos.io import read_mask, write_mask

SIZE = (48, 64)
VAL = PROTOCOLS["burst-val"]
CLASSES = {1: 4, 2: 4, 3: 900}  # objects 1 and 2 are of a common class


def sequence(dataset, name, masks, begins, number):
    """A sequence of nine frames, every fourth annotated, as BURST's JSON has it."""
    shown = [*range(0, 9, 4)]
    return {
        "width": SIZE[1],
        "height": SIZE[0],
        "id": number,
        "seq_name": name,
        "dataset": dataset,
        "fps": 30,
        "all_image_paths": [f"frame{i:04d}.jpg" for i in range(9)],
        "annotated_image_paths": [f"frame{i:04d}.jpg" for i in shown],
        "neg_category_ids": [],
        "not_exhaustive_category_ids": [],
        "track_category_ids": {str(id): CLASSES[id] for id in begins},
        "segmentations": [
            {
                str(id): {"rle": encode_rle(masks[i] == id)["counts"], "is_gt": True}
                for id, begin in begins.items()
                if begin <= i
            }
            for i in shown
        ],
    }


def only(content, keep):
    """The same file with only some masks: keep(sequence, index of an annotated frame, track)."""
    content = json.loads(json.dumps(content))
    for one in content["sequences"]:
        one["segmentations"] = [
            {id: mask for id, mask in masks.items() if keep(one, at, id)}
            for at, masks in enumerate(one["segmentations"])
        ]
        left = {id for masks in one["segmentations"] for id in masks}
        one["track_category_ids"] = {id: c for id, c in one["track_category_ids"].items() if id in left}
    return content


@pytest.fixture
def burst(tmp_path):
    """Two sequences with objects, and one without."""
    root = tmp_path / "BURST"
    content = {"sequences": [], "categories": [], "split": "val"}
    for number, (name, begins) in enumerate({"a": {1: 0, 2: 0, 3: 4}, "b": {1: 4, 2: 4}, "c": {}}.items()):
        frames, masks = synthetic_clip(frames=9, size=SIZE, seed=number)
        folder = root / "frames" / "val" / "YFCC100M" / name
        folder.mkdir(parents=True)
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"frame{index:04d}.jpg", quality=95)
        content["sequences"].append(sequence("YFCC100M", name, masks, begins, number + 5))
    place = root / "annotations" / "val"
    place.mkdir(parents=True)

    def first(one, at, id):
        return not any(id in masks for masks in one["segmentations"][:at])

    files = {
        "all_classes": content,
        "common_classes": only(content, lambda one, at, id: one["track_category_ids"][id] == 4),
        "first_frame_annotations": only(content, first),
    }
    for name, some in files.items():
        (place / f"{name}.json").write_text(json.dumps(some))
    return root


def results_of(root, folder, shift=0):
    """The truth, moved by some pixels, as PNGs of a method."""
    for one in read_burst(root / "annotations/val/all_classes.json"):
        (folder / one.name).mkdir(parents=True)
        for frame in one.frames:
            write_mask(folder / one.name / frame.name, np.roll(frame.mask(), shift, 1))
    return folder


def test_the_objects_of_burst_begin_on_their_first_annotated_frame(burst):
    videos = find_videos(burst, VAL)
    assert [video.name for video in videos] == ["YFCC100M/a", "YFCC100M/b"]
    assert [len(video.images) for video in videos] == [9, 9]
    assert videos[0].wanted == ("frame0000", "frame0004", "frame0008")
    clips = list(read_layout(burst, "burst-val"))
    shown = [{at: np.unique(m).tolist() for at, m in clip.masks.items()} for clip in clips]
    assert shown == [{0: [0, 1, 2], 4: [0, 3]}, {4: [0, 1, 2]}]
    assert [video.name for video in find_videos(burst, VAL, ["YFCC100M/b"])] == ["YFCC100M/b"]
    with pytest.raises(ValueError, match="has no sequence b; it has YFCC100M/a, YFCC100M/b"):
        find_videos(burst, VAL, ["b"])


def test_the_command_scores_burst_and_writes_results_for_its_program(burst, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["evaluate", "--data", str(burst), "--protocol", "burst-val", "--out", str(out), "--quiet"]
    argv += ["--zip", "--processes", "1", "--pictures", "1", "--model", "copy-first-mask"]
    truth = results_of(burst, tmp_path / "truth")
    assert main([*argv, "--results", str(truth)]) == 0
    perfect, copied = json.loads((out / "overview.json").read_text())["methods"]
    names = ["J&F", "HOTA", "HOTA common", "HOTA uncommon", "HOTA of masks"]
    assert [perfect[name] for name in names] == [1] * 5
    assert 0 < copied["HOTA"] < 1
    written = json.loads((out / "copy-first-mask.json").read_text())
    given = json.loads((burst / "annotations/val/all_classes.json").read_text())
    assert written["split"] == "val"
    for one, theirs in zip(written["sequences"], given["sequences"], strict=False):
        assert {**one, "segmentations": 0} == {**theirs, "segmentations": 0}
        for name, masks in zip(one["annotated_image_paths"], one["segmentations"], strict=True):
            file = out / "masks/copy-first-mask/YFCC100M" / one["seq_name"] / name.replace("jpg", "png")
            for id, mask in masks.items():
                plane = decode_rle({"size": [*SIZE], "counts": mask["rle"]})
                np.testing.assert_array_equal(plane, read_mask(file) == int(id))
    assert not (out / "copy-first-mask.zip").exists()


def test_given_masks_alone_are_tracked_and_not_scored(burst, tmp_path, capsys):
    for name in ("all_classes", "common_classes"):
        (burst / f"annotations/val/{name}.json").unlink()
    argv = ["evaluate", "--data", str(burst), "--protocol", "burst-val", "--out", str(tmp_path / "out")]
    assert main([*argv, "--zip", "--pictures", "1", "--model", "copy-first-mask"]) == 0
    assert "not scored" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "copy-first-mask.json").read_text())
    assert [[sorted(masks) for masks in one["segmentations"]] for one in written["sequences"]] == [
        [["1", "2"], ["1", "2", "3"], ["1", "2", "3"]],
        [[], ["1", "2"], ["1", "2"]],
    ]


def test_distractors_and_frames_without_a_scored_object_do_not_count(burst, tmp_path):
    path = burst / "annotations/val/all_classes.json"
    content = json.loads(path.read_text())
    content["sequences"][0]["track_category_ids"]["3"] = min(DISTRACTORS)
    del content["sequences"][1]["segmentations"][2]["1"], content["sequences"][1]["segmentations"][2]["2"]
    path.write_text(json.dumps(content))
    results = results_of(burst, tmp_path / "truth")
    write_mask(results / "YFCC100M/a/frame0004.png", (read_mask(results / "YFCC100M/a/frame0004.png") % 3))
    write_mask(results / "YFCC100M/b/frame0008.png", np.ones(SIZE, np.uint8))
    further = score_folder(burst, results, VAL).more
    assert further["HOTA"] == further["HOTA common"] == 1
    assert np.isnan(further["HOTA uncommon"])


def test_a_sequence_whose_object_begins_on_its_last_annotated_frame_counts_in_hota_alone(burst, tmp_path):
    path = burst / "annotations/val/all_classes.json"
    content = json.loads(path.read_text())
    one = content["sequences"][1]
    one["segmentations"] = [{}, {}, {"1": one["segmentations"][2]["1"]}]
    one["track_category_ids"] = {"1": 4}
    path.write_text(json.dumps(content))
    score = score_folder(burst, results_of(burst, tmp_path / "truth"), VAL)
    assert [*score.sequences] == ["YFCC100M/a"]
    assert score.more["HOTA"] == score.JF == 1
    with pytest.raises(ValueError, match="the only truth of YFCC100M/b is the masks that tracking starts"):
        score_folder(burst, tmp_path / "truth", VAL, names=["YFCC100M/b"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one.update(seq_name="../a"), r"'\.\./a' is not the name of a file"),
        (lambda one: one["segmentations"].pop(), "a has 3 annotated frames and 2 masks"),
        (lambda one: one["track_category_ids"].pop("1"), "has no category of track 1"),
        (lambda one: one["track_category_ids"].update({"255": 4}), "track 255 cannot be saved as a mask"),
        (
            lambda one: one["all_image_paths"].pop(4),
            "annotates frame0004.jpg, which is not one of its frames",
        ),
        (lambda one: one.update(height=10**7), "the size of a run-length encoding"),
        (lambda one: one.pop("width"), "width"),
        (lambda one: one.update(segmentations=3), "has no len"),
        (
            lambda one: one["track_category_ids"].update({"1": math.inf}),
            "inf is not the number of a category",
        ),
        (lambda one: one["track_category_ids"].update({"1": "4"}), "'4' is not the number of a category"),
    ],
)
def test_a_damaged_file_of_burst_is_refused_by_name(burst, change, words):
    path = burst / "annotations/val/all_classes.json"
    content = json.loads(path.read_text())
    change(content["sequences"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=f"all_classes.json is not a file of annotations of BURST: .*{words}"
    ):
        find_videos(burst, VAL)


@pytest.mark.parametrize(
    ("content", "words"),
    [("{}", "it lacks 'sequences'"), ("[]", "list indices"), ('{"sequences": [{}]}', "lacks 'dataset'")],
)
def test_a_file_that_is_not_of_burst_is_answered_with_how_one_begins(tmp_path, content, words):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json is not a file") as caught:
        read_burst(tmp_path / "a.json")
    assert words in str(caught.value)
    assert 'it begins like {"sequences": [{"dataset": ' in str(caught.value)


def test_what_burst_lacks_is_told(burst, tmp_path):
    with pytest.raises(
        ValueError, match=r"has no test/all_classes\.json or .*, where burst-test keeps its masks"
    ):
        find_videos(burst, PROTOCOLS["burst-test"])
    results = results_of(burst, tmp_path / "truth")
    write_mask(results / "YFCC100M/a/frame0000.png", np.full(SIZE, 9, np.uint8))
    with pytest.raises(ValueError, match=r"frame0000\.png has id 9, which is not a track of YFCC100M/a"):
        score_folder(burst, results, VAL)
    (results / "YFCC100M/a/frame0000.png").unlink()
    with pytest.raises(ValueError, match=r"frame0000\.png is missing"):
        score_folder(burst, results, VAL)
    (burst / "frames/val/YFCC100M/a/frame0003.jpg").unlink()
    with pytest.raises(ValueError, match=r"frame0003\.jpg: missing, although all_classes\.json lists"):
        find_videos(burst, VAL)


def test_hota_is_that_of_the_boxes_around_masks_as_in_the_program_of_burst(burst, tmp_path):
    results = results_of(burst, tmp_path / "results")
    for file in results.rglob("*.png"):
        mask = read_mask(file)
        mask[::2] = np.where(np.roll(mask, 1, 0)[::2] == np.roll(mask, -1, 0)[::2], 0, mask[::2])
        write_mask(file, mask)  # every other line, without changing a box
    score = score_folder(burst, results, VAL).more
    assert score["HOTA"] > 0.9
    assert score["HOTA of masks"] < 0.7


def with_merged_classes(burst, folder):
    """The annotations with an object of a class that counts as another, and results beside the truth."""
    path = burst / "annotations/val/all_classes.json"
    content = json.loads(path.read_text())
    content["sequences"][1]["track_category_ids"]["2"] = 207  # merged with 554
    path.write_text(json.dumps(content))
    return path, content, results_of(burst, folder, shift=3)


def test_hota_is_the_number_that_the_program_of_burst_gave(burst, tmp_path):
    _, _, results = with_merged_classes(burst, tmp_path / "results")
    theirs = [0.722163697636463, 0.6842105263157895, 0.8070175438596491]  # TrackEval 1.3.0, by class
    assert score_folder(burst, results, VAL).more["HOTA"] == pytest.approx(np.mean(theirs), abs=1e-9)


def test_hota_is_that_of_the_program_of_burst(burst, tmp_path, monkeypatch):
    trackeval = pytest.importorskip("trackeval")
    monkeypatch.setattr(np, "bool", bool, raising=False)
    path, content, results = with_merged_classes(burst, tmp_path / "results")
    ours = score_folder(burst, results, VAL).more
    (tmp_path / "theirs/m/data").mkdir(parents=True)
    write_burst_results(
        tmp_path / "theirs/m/data/r.json", path, results, [v.name for v in find_videos(burst, VAL)]
    )
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth/a.json").write_text(json.dumps(content))
    quiet = {"PRINT_CONFIG": False, "OUTPUT_SUMMARY": False, "OUTPUT_DETAILED": False, "PLOT_CURVES": False}
    folders = {"GT_FOLDER": str(tmp_path / "truth"), "TRACKERS_FOLDER": str(tmp_path / "theirs")}
    data = trackeval.datasets.BURST({**folders, "EXEMPLAR_GUIDED": True, "PRINT_CONFIG": False})
    evaluator = trackeval.Evaluator({**quiet, "PRINT_RESULTS": False, "BREAK_ON_ERROR": True})
    found, _ = evaluator.evaluate([data], [trackeval.metrics.HOTA({"PRINT_CONFIG": False})])
    classes = {
        name: one for name, one in found["BURST"]["m"]["COMBINED_SEQ"].items() if "cls_comb" not in name
    }
    values = [one["HOTA"]["HOTA"].mean() for name, one in classes.items() if name != "all"]
    assert len(values) == 3
    assert ours["HOTA"] == pytest.approx(np.mean(values), abs=1e-9)
    assert 0.1 < ours["HOTA"] < 0.99


def video_of(generator, tracks, length):
    """Random tracks of a video, true and predicted."""
    frames = []
    for _ in range(length):
        true, pred = (np.flatnonzero(generator.random(tracks) < 0.7) for _ in range(2))
        iou = generator.random((len(true), len(pred))) * (generator.random((len(true), len(pred))) < 0.6)
        frames.append(FrameMatch(true, pred, iou))
    return frames


def test_hota_is_one_of_perfect_tracks_and_falls_if_two_are_swapped():
    both = np.arange(2)
    right, swapped = FrameMatch(both, both, np.eye(2)), FrameMatch(both, both, np.eye(2)[::-1].copy())
    assert count_hota([right] * 4).value == 1
    half = count_hota([right] * 2 + [swapped] * 2)
    assert half.detection == 1
    # each hit is of a pair that agrees on 2 of the 6 frames that either track has
    assert half.value == pytest.approx(np.sqrt(1 / 3))
    nothing = np.zeros(0, np.int64)
    missed = count_hota([FrameMatch(both, nothing, np.zeros((2, 0)))])
    assert missed.value == missed.detection == 0
    assert (count_hota([right]) + missed).detection == 0.5


def random_videos():
    generator = np.random.default_rng(0)
    for _ in range(40):
        yield video_of(generator, tracks=int(generator.integers(1, 6)), length=int(generator.integers(1, 9)))


def test_hota_is_the_number_that_trackeval_gave():
    ours = [count_hota(frames) for frames in random_videos()]
    theirs = [0.3271008996181485, 0.26978231061649316, 0.406270931258159, 0.24073004428809316]  # 1.3.0
    assert [one.value for one in ours[:4]] == pytest.approx(theirs, abs=1e-12)
    assert sum(ours[1:], ours[0]).value == pytest.approx(0.2880925414807997, abs=1e-12)


def test_hota_is_that_of_trackeval():
    metrics = pytest.importorskip("trackeval.metrics")
    ours, theirs = [], {}
    for number, frames in enumerate(random_videos()):
        ours.append(count_hota(frames))
        sides = [[getattr(frame, side) for frame in frames] for side in ("truth", "pred")]
        ids = [np.unique(np.concatenate(side)) for side in sides]
        data = {
            "gt_ids": [np.searchsorted(ids[0], one) for one in sides[0]],
            "tracker_ids": [np.searchsorted(ids[1], one) for one in sides[1]],
            "similarity_scores": [frame.iou for frame in frames],
            "num_gt_ids": len(ids[0]),
            "num_tracker_ids": len(ids[1]),
            "num_gt_dets": sum(map(len, sides[0])),
            "num_tracker_dets": sum(map(len, sides[1])),
        }
        theirs[str(number)] = metrics.HOTA().eval_sequence(data)
        assert ours[-1].value == pytest.approx(theirs[str(number)]["HOTA"].mean(), abs=1e-12)
    combined = metrics.HOTA().combine_sequences(theirs)
    assert sum(ours[1:], ours[0]).value == pytest.approx(combined["HOTA"].mean(), abs=1e-12)
