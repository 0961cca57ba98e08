"""Score masks against ground truth: one video, or a data set."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import zip_longest
from multiprocessing import get_context
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from emavos.evaluation.burst import common_classes, score_burst
from emavos.evaluation.inputs import AnyMask, check_ids, check_pair, check_results, objects_of
from emavos.evaluation.layouts import (
    Annotation,
    Video,
    annotations_of,
    find_videos,
    read_annotation,
    seen_categories,
)
from emavos.evaluation.metrics import (
    BoolMask,
    adaptive_tolerance,
    boundary_accuracy,
    region_similarity,
    smoothed_similarity,
)
from emavos.evaluation.protocol import PROTOCOLS, Protocol
from emavos.evaluation.scores import ObjectScore, Score
from emavos.io.ahead import cores

_Measures: TypeAlias = tuple[float, float, bool]  # J, F, and whether the object is absent from the truth
_OR_BINARY = "; if 255 is the object and not void, use binary=True"
_Scored: TypeAlias = tuple[dict[int, ObjectScore], tuple[int, ...]]  # by object, and the ids not counted


def score_folder(
    data: str | PathLike[str],
    results: str | PathLike[str],
    protocol: Protocol = PROTOCOLS["davis-2017-val"],
    *,
    names: Sequence[str] | None = None,
    processes: int = 1,
) -> Score:
    """Score the masks `results/<sequence>/<frame>.png` against the ground truth of a data set.

    data: folder of the data set.
    results: folder of the masks to score, PNGs of object ids.
    protocol: benchmark protocol, see `PROTOCOLS`.
    names: sequences to score; None scores all.
    processes: number of processes, each scoring one sequence at a time; 0 uses one per available core.
        Processes are spawned, so a script that asks for several must guard its own work with `if __name__ ==
        "__main__":`.

    Every compared frame except the first needs a mask of its size. Files left out of the score are listed in
    the result: masks without a ground truth in `Score.extra`, frames without a ground truth in
    `Score.untold`, and objects that begin after the first frame in `Score.later`, if the protocol has no such
    objects. Other sequences are ignored. A sequence of BURST whose objects all begin on the last annotated
    frame has no J&F, but counts in HOTA.

    Raises ValueError before scoring if a mask is missing; also if a mask has the wrong size, unknown ids,
    colours or blurred ids. The error lists the files.

        score = score_folder("DAVIS", "results")
        print(score.JF, score.J.mean, score.sequences["judo"][1].F.decay)
    """
    videos = find_videos(data, protocol, names, images=False)
    # in BURST, an object may begin on the last annotated frame; HOTA counts it
    counted = [video for video in videos if video.truths or video.burst is None or video.only_given]
    score = score_videos(counted or videos, results, seen_categories(data, protocol), processes=processes)
    return replace(score, further=further_scores(data, protocol, videos, results))


def further_scores(
    data: str | PathLike[str], protocol: Protocol, videos: Sequence[Video], results: str | PathLike[str]
) -> dict[str, float]:
    """HOTA of BURST, by name, of all sequences with a ground truth; {} for other benchmarks."""
    sequences = [video.burst for video in videos if video.burst is not None and not video.only_given]
    if not sequences:
        return {}
    return score_burst(sequences, results, common_classes(annotations_of(data, protocol)))


def score_videos(
    videos: Sequence[Video],
    results: str | PathLike[str],
    seen: frozenset[str] = frozenset(),
    *,
    processes: int = 1,
) -> Score:
    """Score results on the videos returned by `find_videos`. See `score_folder`.

    seen: categories that count as seen.
    """
    results = Path(results)
    checked = check_results(videos, results)
    each = _in_processes(processes, [(video, results / video.name) for video in videos])
    categories = {video.name: video.categories for video in videos}
    has_categories = bool(seen) and all(categories.values())
    return Score(
        {video.name: score for video, (score, _) in zip(videos, each, strict=True)},
        extra=checked.extra,
        untold=checked.untold,
        later=tuple(f"{video.name}:{i}" for video, (_, ids) in zip(videos, each, strict=True) for i in ids),
        seen={
            name: frozenset(i for i, category in each.items() if category in seen)
            for name, each in categories.items()
        }
        if has_categories
        else None,
        scoring=videos[0].protocol.scoring if videos else "davis",
        names={video.name: tuple(path.stem for path in video.truths) for video in videos},
    )


def score_sequence(
    truth: Iterable[AnyMask],
    pred: Iterable[AnyMask],
    *,
    binary: bool = False,
    late: bool = False,
    scores_last: bool = False,
    names: Sequence[str] | None = None,
) -> dict[int, ObjectScore]:
    """The score of each object of one video, by id.

    truth, pred: masks (H, W) of object ids for all frames in order. Masks are read one at a time, so you can
        pass generators.
    binary: treat all nonzero pixels, including 255, as one object (DAVIS 2016).
    late: whether objects may appear later. Each object counts from the frame after its first.
    scores_last: whether the last frame counts.
    names: names of the frames for error messages; frames without a name are numbered.

    The objects are the ids of the first ground truth. 255 is void and counts as background. Ids that first
    appear in later ground truths also count as background, with a warning. With `late`, the objects are the
    ids of all ground truths except 255, and the first ground truths may be empty; an object without a
    counted frame is left out. The first frame does not count, and only the size of its `pred` is checked.

    Raises ValueError if `pred` has any other id, or no object of `truth` has a counted frame.
    """
    scores, later = _score(truth, pred, binary=binary, late=late, scores_last=scores_last, names=names)
    if later:
        warnings.warn(
            f"truth shows {', '.join(map(str, later))} after its first frame only, which counts as "
            "background; pass late=True to score objects that begin later",
            stacklevel=2,
        )
    return scores


def _score(
    truth: Iterable[AnyMask],
    pred: Iterable[AnyMask],
    *,
    binary: bool,
    late: bool,
    scores_last: bool,
    names: Sequence[str] | None,
    scoring: str = "davis",
) -> _Scored:
    """Returns the score of each object, and the ids ignored because of a late first appearance."""
    begins: dict[int, int] = {}  # first frame of each object
    ignored: set[int] = set()  # ids that first appear later, if the protocol ignores them
    # of each object, per frame after the first
    rows: list[dict[int, _Measures]] = []
    for index, (true_ids, pred_ids) in enumerate(zip_longest(truth, pred)):
        name = names[index] if names and index < len(names) else f"frame {index}"
        check_pair(name, true_ids, pred_ids)
        if binary:
            true_ids, pred_ids = true_ids != 0, pred_ids != 0
        counting = tuple(begins)
        shown = objects_of(name, true_ids)
        if index == 0 or late:
            for i in shown:
                begins.setdefault(i, index)
        else:
            ignored.update(i for i in shown if i not in begins)
        if index == 0:
            if not begins and not late:
                raise ValueError(f"{name}: truth has no object{_OR_BINARY}")
            continue
        check_ids(name, pred_ids, begins, ignored, late)
        rows.append({i: _measure(pred_ids == i, true_ids == i, scoring) for i in counting})
    series = rows if scores_last else rows[:-1]
    if not series:
        least, left_out = ("two", "the first does") if scores_last else ("three", "the first and the last do")
        raise ValueError(f"a score needs {least} frames or more, as {left_out} not count")
    if not begins:
        raise ValueError(f"{name}: truth has no object, nor has any frame before it{_OR_BINARY}")
    if not (scores := _of_objects(series, begins)):
        raise ValueError(f"{name}: every object of truth begins so late that no frame counts")
    return scores, tuple(sorted(ignored))


def _of_objects(
    series: Sequence[Mapping[int, _Measures]], begins: Mapping[int, int]
) -> dict[int, ObjectScore]:
    """The score of each object that has a counted frame.

    series: the measures of each object, per frame after the first.
    begins: the first frame of each object.
    """
    scores = {}
    for i, begin in sorted(begins.items()):
        if counted := [row[i] for row in series[begin:]]:
            J, F, absent = zip(*counted, strict=True)
            scores[i] = ObjectScore(J, F, begin, absent)
    return scores


def _measure(pred: BoolMask, truth: BoolMask, scoring: str) -> _Measures:
    """The measures of one object on one frame."""
    absent = not truth.any()
    if scoring == "mosev2":
        F = boundary_accuracy(pred, truth, adaptive_tolerance(truth))
        return smoothed_similarity(pred, truth), F, absent
    return region_similarity(pred, truth), boundary_accuracy(pred, truth), absent


def _score_video(task: tuple[Video, Path]) -> _Scored | ValueError:
    """Returns the score of one video, or the error about its masks."""
    video, results = task
    files: list[Annotation] = [results / one.name for one in video.truths]
    files[0] = video.truths[0]  # the first mask is given, so no result is needed
    protocol = video.protocol
    try:
        return _score(
            (read_annotation(one) for one in video.truths),
            (read_annotation(one) for one in files),
            binary=protocol.binary,
            late=protocol.late,
            scores_last=protocol.scores_last,
            scoring=protocol.scoring,
            names=[f"{video.name}/{path.name}" for path in files],
        )
    except ValueError as error:
        return error


def _in_processes(processes: int, tasks: Sequence[tuple[Video, Path]]) -> list[_Scored]:
    count = min(processes or cores(), len(tasks))
    if count < 2:
        scores = [_score_video(task) for task in tasks]
    else:
        # longest first, so that no process starts a long video last
        order = sorted(range(len(tasks)), key=lambda i: -len(tasks[i][0].truths))
        with ProcessPoolExecutor(count, get_context("spawn")) as pool:
            done = dict(zip(order, pool.map(_score_video, [tasks[i] for i in order]), strict=True))
        scores = [done[i] for i in range(len(tasks))]
    if wrong := [str(score) for score in scores if isinstance(score, ValueError)]:
        raise ValueError("; ".join(wrong[:10]) + (f"; and {len(wrong) - 10} more" if len(wrong) > 10 else ""))
    return [score for score in scores if not isinstance(score, ValueError)]
