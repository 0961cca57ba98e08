"""BURST: its annotations, and results as its evaluation program reads them.

Athar et al., "BURST: A Benchmark for Unifying Object Recognition, Segmentation and Tracking in Video",
WACV 2023.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emavos.annotations.outlines import box_of
from emavos.annotations.rle import check_size, decode_rle, encode_rle
from emavos.evaluation.assignment import iou_of_boxes
from emavos.evaluation.hota import FrameMatch, HotaCounts, count_hota
from emavos.evaluation.metrics import BoolMask, region_similarity
from emavos.io import IdMask, read_mask
from emavos.io.text import read_json
from emavos.io.whole import replacing

FIRST = "first_frame_annotations.json"  # each object on its first annotated frame only
COMMON = "common_classes.json"  # the tracks of the 78 common classes
_WHAT = "a file of annotations of BURST"
_BEGINS = (
    '{"sequences": [{"dataset": "YFCC100M", "seq_name": "v_f69ebe5b731d3e87c1a3992ee39c3b7e", "width": 640, '
    '"height": 480, "annotated_image_paths": ["frame0000.jpg", ...], "track_category_ids": {"1": 805, ...}, '
    '"segmentations": [{"1": {"rle": "..."}}, ...], ...'
)

# Classes that the benchmark's program counts as another, and those that it never scores, by category.
MERGED = {153: 943, 201: 1175, 207: 554, 967: 529}
DISTRACTORS = frozenset(
    (
        *(20, 63, 108, 180, 188, 204, 212, 247, 303, 403, 407, 415, 490, 504, 507, 513, 529, 567, 569, 588),
        *(672, 691, 702, 708, 711, 720, 736, 737, 798, 813, 815, 827, 831, 851, 877, 883, 912, 971, 976),
        *(1130, 1133, 1134, 1169, 1184, 1220),
    )
)


@dataclass(frozen=True)
class FrameRuns:
    """The annotation of one frame: run-length encodings of its objects, which may overlap.

    path: the file of annotations, for errors.
    name: of a PNG of this frame, `00042.png`.
    size: (H, W) of the frame.
    runs: counts of COCO, by object.
    """

    path: Path
    name: str
    size: tuple[int, int]
    runs: Mapping[int, str]

    @property
    def stem(self) -> str:
        return self.name.removesuffix(".png")

    def __str__(self) -> str:
        return f"{self.path}: {self.stem}"

    def planes(self) -> dict[int, BoolMask]:
        """bool (H, W) of each object."""
        try:
            return {id: decode_rle({"size": [*self.size], "counts": runs}) for id, runs in self.runs.items()}
        except ValueError as error:
            raise ValueError(f"{self} is not an annotation of BURST: {error}") from error

    def mask(self) -> IdMask:
        """The ids (H, W). If objects overlap, the pixel is of the smaller one."""
        mask = np.zeros(self.size, np.int32)
        for id, plane in sorted(self.planes().items(), key=lambda one: -np.count_nonzero(one[1])):
            mask[plane] = id
        return mask


@dataclass(frozen=True)
class BurstSequence:
    """One sequence of a file of annotations.

    name: `DATASET/SEQUENCE`, which is also the folder of its frames.
    images: file names of all frames in order.
    frames: the annotated frames in order.
    classes: the category of each object.
    """

    name: str
    images: tuple[str, ...]
    frames: tuple[FrameRuns, ...]
    classes: Mapping[int, int]


def read_burst(path: Path) -> list[BurstSequence]:
    """The sequences of a file of annotations. Raises ValueError with its name if it is something else."""
    content = read_json(path, _WHAT)
    try:
        return [_sequence(path, one) for one in content["sequences"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not {_WHAT}: {reason}; it begins like {_BEGINS}") from error


def common_classes(path: Path) -> frozenset[int] | None:
    """The categories of the common classes, from the list beside a file of annotations; None without one."""
    beside = path.with_name(COMMON)
    if not beside.is_file():
        return None
    return frozenset(one for sequence in read_burst(beside) for one in sequence.classes.values())


def score_burst(
    sequences: Sequence[BurstSequence], results: str | PathLike[str], common: frozenset[int] | None
) -> dict[str, float]:
    """HOTA of the mask-guided task: means over all classes, over the common ones, and over the others.

    sequences: with the ground truth of every annotated frame.
    results: folder with masks at `<sequence>/<frame>.png`.
    common: the common classes; None: only the mean over all classes.

    The benchmark's program compares the boxes around masks, and so do these scores, except "HOTA of masks".
    Every annotated frame with a scored object counts, including the first. Distractors do not.
    """
    boxes, masks = dict[int, HotaCounts](), dict[int, HotaCounts]()
    for sequence in sequences:
        for category, frames in _matches(sequence, Path(results)).items():
            for counts, side in zip((boxes, masks), zip(*frames, strict=True), strict=True):
                added = count_hota(side)
                counts[category] = counts[category] + added if category in counts else added
    scores = {"HOTA": _mean(boxes, {*boxes})}
    if common is not None:
        common = frozenset(MERGED.get(one, one) for one in common)
        scores["HOTA common"] = _mean(boxes, {*boxes} & common)
        scores["HOTA uncommon"] = _mean(boxes, {*boxes} - common)
    return {**scores, "HOTA of masks": _mean(masks, {*masks})}


def _mean(counts: Mapping[int, HotaCounts], categories: Collection[int]) -> float:
    return float(np.mean([counts[one].value for one in categories])) if categories else math.nan


def _matches(sequence: BurstSequence, results: Path) -> dict[int, list[tuple[FrameMatch, FrameMatch]]]:
    """The frames of each class: true and predicted objects, compared by their boxes and by their masks."""
    kept = {id: one for id, one in sequence.classes.items() if one not in DISTRACTORS}
    merged = {id: MERGED.get(one, one) for id, one in kept.items()}
    classes = {id: one for id, one in merged.items() if one not in DISTRACTORS}
    matches: dict[int, list[tuple[FrameMatch, FrameMatch]]] = {}
    for frame in sequence.frames:
        planes = {id: plane for id, plane in frame.planes().items() if id in kept and plane.any()}
        if not planes:
            continue
        mask = _read_result(sequence, frame, results)
        shown = {int(id): mask == id for id in np.unique(mask) if int(id) in classes}
        for category in {classes[id] for id in (*planes, *shown) if id in classes}:
            true = [id for id in planes if classes.get(id) == category]
            pred = [id for id in shown if classes[id] == category]
            both = tuple(
                FrameMatch(np.array(true, np.int64), np.array(pred, np.int64), iou)
                for iou in _ious([planes[id] for id in true], [shown[id] for id in pred])
            )
            matches.setdefault(category, []).append((both[0], both[1]))
    return matches


def _ious(
    true: Sequence[BoolMask], pred: Sequence[BoolMask]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intersection over union (N, M) of the boxes around masks, and of the masks."""
    boxes = [np.array([box_of(plane) for plane in planes]).reshape(-1, 4) for planes in (true, pred)]
    masks = np.zeros((len(true), len(pred)))
    for place, (one, other) in zip(np.ndindex(*masks.shape), product(true, pred), strict=True):
        masks[place] = region_similarity(other, one)
    return iou_of_boxes(boxes[0], boxes[1]), masks


def write_burst_results(
    path: Path, annotations: Path, results: str | PathLike[str], names: Sequence[str]
) -> None:
    """Write the masks `results/<sequence>/<frame>.png` of the annotated frames as a file of BURST's format.

    annotations: the benchmark's file of annotations. Everything but the masks is taken from it.
    names: sequences to write.

    Raises ValueError if a mask is missing, has another size than its frame, or an id that is no track.
    """
    content = read_json(annotations, _WHAT)
    chosen = {*names}
    pairs = [
        (one, sequence)
        for one, sequence in zip(content["sequences"], read_burst(annotations), strict=True)
        if sequence.name in chosen
    ]
    for one, sequence in pairs:
        begin = next((place for place, frame in enumerate(sequence.frames) if frame.runs), 0)
        one["segmentations"] = [{} for _ in sequence.frames[:begin]]
        for frame in sequence.frames[begin:]:
            mask = _read_result(sequence, frame, Path(results))
            ids = [id for id in np.unique(mask).tolist() if id]
            one["segmentations"].append({str(id): {"rle": encode_rle(mask == id)["counts"]} for id in ids})
    content["sequences"] = [one for one, _ in pairs]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(content), encoding="utf-8")


def _read_result(sequence: BurstSequence, frame: FrameRuns, results: Path) -> IdMask:
    """The predicted mask of an annotated frame, checked."""
    file = results / sequence.name / frame.name
    if not file.is_file():
        raise ValueError(f"{file} is missing; every annotated frame from the first object on needs a mask")
    mask = read_mask(file)
    if mask.shape != frame.size:
        have, want = ("x".join(map(str, size)) for size in (mask.shape, frame.size))
        raise ValueError(f"{file} is {have} but its frame is {want} (height x width)")
    if foreign := sorted({*np.unique(mask).tolist()} - {0, *sequence.classes}):
        raise ValueError(f"{file} has id {foreign[0]}, which is not a track of {sequence.name}")
    return mask


def _sequence(path: Path, one: Mapping[str, Any]) -> BurstSequence:
    name = f"{_part(one['dataset'])}/{_part(one['seq_name'])}"
    size = check_size([one["height"], one["width"]])
    annotated = [_part(image) for image in one["annotated_image_paths"]]
    if len(annotated) != len(one["segmentations"]):
        raise ValueError(
            f"{name} has {len(annotated)} annotated frames and {len(one['segmentations'])} masks"
        )
    classes = {_id(track): _category(category) for track, category in one["track_category_ids"].items()}
    frames = []
    for image, masks in zip(annotated, one["segmentations"], strict=True):
        runs = {_id(track): str(mask["rle"]) for track, mask in masks.items()}
        if unknown := {*runs} - {*classes}:
            raise ValueError(f"{name} has no category of track {min(unknown)}")
        frames.append(FrameRuns(path, f"{Path(image).stem}.png", size, runs))
    images = tuple(_part(image) for image in one.get("all_image_paths") or annotated)
    if lost := {*annotated} - {*images}:
        raise ValueError(f"{name} annotates {min(lost)}, which is not one of its frames")
    return BurstSequence(name, images, tuple(frames), classes)


def _part(name: Any) -> str:
    """A name without a path to another folder."""
    if not isinstance(name, str) or name in ("", ".", "..") or not {"/", "\\", "\0"}.isdisjoint(name):
        raise ValueError(f"{name!r:.60} is not the name of a file or a folder")
    return name


def _category(number: Any) -> int:
    if type(number) is not int:
        raise ValueError(f"{number!r:.60} is not the number of a category")
    return number


def _id(track: Any) -> int:
    id = int(track)
    if not 0 < id <= 0xFFFF or id == 255:
        raise ValueError(
            f"track {id} cannot be saved as a mask; ids are 1 to 65535 without 255, which is void"
        )
    return id
