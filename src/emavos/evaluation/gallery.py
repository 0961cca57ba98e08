"""Pictures of results: methods side by side, scores over time, and the worst frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from emavos.evaluation.html import Section
from emavos.evaluation.layouts import Annotation, Video, foreground, read_annotation
from emavos.evaluation.report import Method
from emavos.evaluation.scores import Score
from emavos.io import IdMask, Pixels, read_frame, read_mask
from emavos.visualize import comparison_grid, curves, overlay

TRUTH = "truth"


def qualitative(
    video: Video,
    results: Mapping[str, str | PathLike[str]],
    frames: int | Sequence[str] = 6,
    width: int = 1600,
) -> Pixels:
    """A grid of frames with objects in colour: one row per method, ground truth first if there is any.

    video: the sequence to show.
    results: the folder of each method, with masks at `<sequence>/<frame>.png`.
    frames: names of the frames to show; or a number of frames, spread evenly from the second to the last.
    width: width of the grid in pixels.

    Returns (H, width, 3) uint8. Raises ValueError if a mask is missing or has the wrong size.
    """
    with_masks = _with_masks(video)
    if isinstance(frames, int):
        if frames < 1:
            raise ValueError(f"frames is at least 1, not {frames}")
        later = with_masks[1:] or with_masks  # every method was given the first mask
        names = [later[i] for i in _evenly(min(frames, len(later)), len(later))]
    else:
        if unknown := [name for name in frames if name not in with_masks]:
            raise ValueError(f"{video.name} has no frame {', '.join(unknown)}")
        names = list(frames)
    pictures = _pictures(video, names)
    rows, images = [], []
    if video.truths:
        truths = _truths(video)
        rows.append(TRUTH)
        images.append(
            [
                _truth_overlay(video, picture, truths.get(n))
                for n, picture in zip(names, pictures, strict=True)
            ]
        )
    for method, folder in results.items():
        files = [Path(folder) / video.name / f"{name}.png" for name in names]
        rows.append(method)
        images.append([_result(video, picture, file) for picture, file in zip(pictures, files, strict=True)])
    return comparison_grid(images, rows, names, width)


def over_time(sequence: str, scores: Mapping[str, Score], width: int = 1280, height: int = 330) -> Pixels:
    """A plot of J&F per frame of a sequence, one line per method: (height, width, 3) uint8."""
    series = {}
    for method, score in scores.items():
        names, by_frame = score.names[sequence][1:], score.over_time(sequence)
        last = max(i for i, name in enumerate(names) if name in by_frame)
        series[method] = [by_frame.get(name, float("nan")) for name in names[: last + 1]]
    return curves(series, f"{sequence}: J&F of the frames that are compared", width, height, start=1)


def worst_frames(
    video: Video, results: str | PathLike[str], score: Score, count: int = 6, width: int = 1600
) -> Pixels:
    """The worst frames of a result in video order, below the ground truth: (H, width, 3) uint8.

    video: the sequence to show.
    results: folder with masks at `<sequence>/<frame>.png`.
    score: the score of these results.
    count: number of frames. Neighbours of a chosen frame are skipped while other frames remain, so that one
        failure is not shown `count` times.
    width: width of the grid in pixels.
    """
    by_frame = score.over_time(video.name)
    names = list(by_frame)
    apart = max(len(names) // (3 * count), 1)
    chosen: list[int] = []
    order = sorted(range(len(names)), key=lambda i: by_frame[names[i]])
    for least in (apart, 1):
        for i in order:
            if len(chosen) < count and all(abs(i - other) >= least for other in chosen):
                chosen.append(i)
    worst = [names[i] for i in sorted(chosen)]
    pictures, truths = _pictures(video, worst), _truths(video)
    files = [Path(results) / video.name / f"{name}.png" for name in worst]
    grid = [
        [_truth_overlay(video, picture, truths[name]) for picture, name in zip(pictures, worst, strict=True)],
        [_result(video, picture, file) for picture, file in zip(pictures, files, strict=True)],
    ]
    labels = [f"{name}: {by_frame[name]:.2f}" for name in worst]
    return comparison_grid(grid, [TRUTH, "result"], labels, width)


def sections(videos: Sequence[Video], methods: Sequence[Method], most: int) -> list[Section]:
    """The pictures of a report: for each of `most` sequences a grid of all methods, curves and worst frames.

    Sequences are sorted by the first method's score, worst first. Without a score, the data's order is kept.
    """
    scores = {method.name: method.score for method in methods if method.score is not None}
    chosen = list(videos)
    if scores:
        first = next(iter(scores.values()))
        chosen.sort(key=lambda video: _mean([one.JF for one in first.sequences.get(video.name, {}).values()]))
    return [
        Section(video.name, pictures=[*pictures_of(video, methods).values()])
        for video in chosen[:most]
        if video.images
    ]


def pictures_of(
    video: Video, methods: Sequence[Method], frames: int | Sequence[str] = 6
) -> dict[str, tuple[str, Pixels]]:
    """All pictures of a sequence by short name, each with its caption: (caption, pixels)."""
    results = {method.name: method.folder for method in methods}
    scores = {m.name: m.score for m in methods if m.score is not None and video.name in m.score.sequences}
    pictures = {
        "grid": (f"{video.name}: the same frames by each method", qualitative(video, results, frames))
    }
    shown = {name: score for name, score in scores.items() if score.over_time(video.name)}
    if shown:
        pictures["curves"] = (f"{video.name}: J&F over time, with its mean", over_time(video.name, shown))
    for name, score in shown.items():
        pictures[f"worst-{name}"] = (
            f"{video.name}: where {name} is worst, and J&F there",
            worst_frames(video, results[name], score),
        )
    return pictures


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 1.0


def _evenly(count: int, length: int) -> list[int]:
    """`count` different indices below `length`, spread evenly and including the last index."""
    return [round((i + 1) * length / count) - 1 for i in range(count)]


def _with_masks(video: Video) -> tuple[str, ...]:
    """The names of the wanted frames, starting at the first given mask."""
    begin = next((i for i, name in enumerate(video.wanted) if name == video.masks[0].stem), 0)
    return video.wanted[begin:]


def _pictures(video: Video, names: Sequence[str]) -> list[Pixels]:
    files = {path.stem: path for path in video.images}
    if lost := [name for name in names if name not in files]:
        raise ValueError(f"there is no image of frame {lost[0]} of {video.name}")
    return [read_frame(files[name]) for name in names]


def _truths(video: Video) -> dict[str, Annotation]:
    return {path.stem: path for path in video.truths}


def _truth_overlay(video: Video, picture: Pixels, truth: Annotation | None) -> Pixels:
    return picture if truth is None else _shown(video, picture, read_annotation(truth), truth)


def _result(video: Video, picture: Pixels, path: Path) -> Pixels:
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    return _shown(video, picture, read_mask(path), path)


def _shown(video: Video, picture: Pixels, mask: IdMask, path: Annotation) -> Pixels:
    if mask.shape != picture.shape[:2]:
        have, want = ("{}x{}".format(*x.shape[:2]) for x in (mask, picture))
        raise ValueError(f"{path} is {have} but its frame is {want} (height x width)")
    return overlay(picture, foreground(mask, video.protocol.binary))
