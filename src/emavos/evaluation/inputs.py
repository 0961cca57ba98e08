"""Checks of masks before scoring: whole folders before any file is read, and each frame's pair of masks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from emavos.evaluation.layouts import VOID, Video, some
from emavos.io import list_images

# (H, W), 0 is background; any dtype that users pass
AnyMask: TypeAlias = NDArray[np.integer[Any]] | NDArray[np.bool_]


@dataclass(frozen=True)
class CheckedResults:
    """Frames left out of the score, from results that are otherwise complete.

    extra: result files without a ground truth.
    untold: frames of the data without a ground truth.
    """

    extra: tuple[str, ...]
    untold: tuple[str, ...]


def check_results(videos: Sequence[Video], results: Path) -> CheckedResults:
    """Raise ValueError if a compared frame lacks its ground truth or its result. The error lists the files.

    results: folder with masks at `<sequence>/<frame>.png`.
    """
    if bare := [video.name for video in videos if not video.truths]:
        raise ValueError(
            f"the only truth of {some(bare)} is the masks that tracking starts from; to score, add the truth "
            "of other frames, or use another split"
        )
    untold = [f"{video.name}/{frame}" for video in videos for frame in video.untold]
    if incomplete := [name for video in videos if video.protocol.whole for name in video.untold]:
        raise ValueError(
            f"the truth is incomplete, and this benchmark needs all of it: it lacks {some(untold)} "
            f"({len(incomplete)} frames); complete the data, or use davis-like"
        )
    compared = {f"{video.name}/{path.name}" for video in videos for path in video.truths[1:]}
    allowed = {f"{video.name}/{name}.png" for video in videos for name in video.wanted}
    allowed |= {f"{video.name}/{video.truths[0].name}" for video in videos}
    there = {f"{video.name}/{name}" for video in videos for name in _pngs(results / video.name)}
    if missing := sorted(compared - there):
        flat = any(results.glob("*.png")) and not any((results / video.name).is_dir() for video in videos)
        advice = f"; move the masks of each sequence from {results} to a folder {results}/SEQUENCE"
        raise ValueError(
            f"{results} lacks {some(missing)}; every frame but the first needs a mask{advice if flat else ''}"
        )
    return CheckedResults(tuple(sorted(there - compared - allowed)), tuple(untold))


def check_pair(name: str, truth: AnyMask | None, pred: AnyMask | None) -> None:
    """Raise ValueError unless both masks of a frame exist, hold integer ids and have the same size."""
    if truth is None or pred is None:
        ended = "truth" if truth is None else "pred"
        raise ValueError(f"{name}: {ended} has fewer frames than the other; pass every frame of both")
    for whose, mask in (("truth", truth), ("pred", pred)):
        if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype.kind not in "biu":
            what = f"{type(mask).__name__} {np.shape(mask)} of {np.asarray(mask).dtype}"
            raise ValueError(f"{name}: {whose} is {what}; pass integer ids as a numpy array (H, W)")
    if truth.shape != pred.shape:
        have, want = ("{}x{}".format(*mask.shape) for mask in (pred, truth))
        raise ValueError(f"{name}: pred is {have} but truth is {want}; resize pred by nearest neighbour")


def objects_of(name: str, truth: AnyMask) -> list[int]:
    """The object ids of a ground truth (H, W): all ids except background and 255, which is void."""
    ids = _ids(truth)
    if ids and ids[0] < 0:
        raise ValueError(f"{name}: truth has id {ids[0]}; ids of objects are above 0, and void is 255")
    return [i for i in ids if i != VOID]


def check_ids(
    name: str, pred: AnyMask, objects: Collection[int], later: Collection[int], late: bool = False
) -> None:
    """Raise ValueError if a result contains an id that is not in `objects`.

    later: ids that the truth shows, but only after its first frame, in a protocol without such objects.
    late: whether objects may appear later, so that `objects` are those of the frames up to this one.
    """
    if not (foreign := [i for i in _ids(pred) if i not in objects]):
        return
    if ignored := [str(i) for i in foreign if i in later]:
        raise ValueError(
            f"{name}: pred has id {some(ignored)}, which truth shows only after its first frame; to score "
            "it, use late=True, or a protocol that gives each object's first mask (lvos)"
        )
    several = sorted(objects) == [*range(1, 1 + len(objects))]
    present = f"objects 1 to {len(objects)}" if several else f"objects {', '.join(map(str, sorted(objects)))}"
    present = "only object 1" if [*objects] == [1] else present if objects else "no object"
    remedy = "renumber pred, or use binary=True if 255 is the object"
    if late:
        present, remedy = f"{present} up to this frame", f"{remedy}; before an object begins, pred is 0"
    raise ValueError(f"{name}: pred has id {', '.join(map(str, foreign))} but truth has {present}; {remedy}")


def _pngs(folder: Path) -> list[str]:
    """The names of the PNG files in a folder; empty if the folder does not exist."""
    if not any(folder.glob("*.png")):
        return []
    return [path.name for path in list_images(folder) if path.suffix == ".png"]


def _ids(mask: AnyMask) -> list[int]:
    """The nonzero values of a mask, sorted."""
    if mask.size and mask.min() >= 0 and mask.max() <= 0xFFFF:
        # faster than np.unique, which sorts all pixels
        ids = np.flatnonzero(np.bincount(mask.ravel().astype(np.intp)))
    else:
        ids = np.unique(mask)
    return [i for i in ids.tolist() if i != 0]
