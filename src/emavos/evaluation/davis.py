"""The semi-supervised score of DAVIS 2016 and 2017: folders of masks against a DAVIS tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import zip_longest
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from emavos.evaluation.metrics import Statistics, boundary_accuracy, region_similarity, statistics
from emavos.io import list_images, read_mask

IdMask: TypeAlias = NDArray[np.integer[Any]] | NDArray[np.bool_]  # (H, W), 0 is background

VOID = 255  # in a ground truth: no object, so DAVIS counts it as background


@dataclass(frozen=True)
class ObjectScore:
    """J and F of one object in every frame that counts: all but the first, which was given, and the last."""

    J_frames: tuple[float, ...]
    F_frames: tuple[float, ...]

    @property
    def J(self) -> Statistics:
        return statistics(self.J_frames)

    @property
    def F(self) -> Statistics:
        return statistics(self.F_frames)


@dataclass(frozen=True)
class DavisScore:
    """The scores of a split. Its J and F are means over all objects, whatever sequence they are in."""

    sequences: Mapping[str, Mapping[int, ObjectScore]]  # sequences["judo"][1] is object 1 of judo
    extra: tuple[str, ...]  # results of these sequences that no ground truth asks for: not scored

    @property
    def objects(self) -> tuple[ObjectScore, ...]:
        return tuple(score for objects in self.sequences.values() for score in objects.values())

    @property
    def J(self) -> Statistics:
        return _mean([score.J for score in self.objects])

    @property
    def F(self) -> Statistics:
        return _mean([score.F for score in self.objects])

    @property
    def JF(self) -> float:
        """J&F, by which DAVIS ranks: halfway between mean J and mean F."""
        return (self.J.mean + self.F.mean) / 2


def evaluate_davis(
    data: str | PathLike[str],
    results: str | PathLike[str],
    split: str | None = "2017/val",
    *,
    resolution: str = "480p",
    binary: bool = False,
) -> DavisScore:
    """The score of `results/<sequence>/<frame>.png`, masks of object ids, on a split of a DAVIS tree.

    data: the tree, with its ground truth in `data/Annotations/<resolution>/<sequence>/<frame>.png`.
    split: names the list of sequences `data/ImageSets/<split>.txt`; DAVIS 2016 has "480p/val". None: all that
        have a ground truth.
    binary: as for `score_sequence`; DAVIS 2016 needs it where its masks are 0 and 255.

    Every frame of the ground truth but the first, which was given, needs a mask of its size. One that lacks
    raises ValueError before anything is scored. Masks that no ground truth asks for are named in
    `DavisScore.extra`; sequences that the split does not name are not looked at.

        score = evaluate_davis("DAVIS", "results")
        print(score.JF, score.J.mean, score.sequences["judo"][1].F.decay)
    """
    annotations, results = Path(data) / "Annotations" / resolution, Path(results)
    frames = {name: _frames(annotations / name) for name in list_sequences(data, split, resolution)}
    if empty := [sequence for sequence, names in frames.items() if not names]:
        raise ValueError(f"{annotations} has no *.png of {_some(empty)}; complete it or take another split")

    given = {f"{sequence}/{names[0]}" for sequence, names in frames.items()}
    truths = {f"{sequence}/{name}" for sequence, names in frames.items() for name in names}
    found = {f"{sequence}/{name}" for sequence in frames for name in _frames(results / sequence)}
    if missing := sorted(truths - given - found):
        raise ValueError(f"{results} lacks {_some(missing)}; every frame but the first needs a mask")

    scores = {}
    for sequence, names in frames.items():
        files = [f"{sequence}/{name}" for name in names]
        truth = (read_mask(annotations / file) for file in files)
        pred = (read_mask((annotations if file in given else results) / file) for file in files)
        scores[sequence] = score_sequence(truth, pred, binary=binary, names=files)
    return DavisScore(scores, extra=tuple(sorted(found - truths)))


def score_sequence(
    truth: Iterable[IdMask],
    pred: Iterable[IdMask],
    *,
    binary: bool = False,
    names: Sequence[str] | None = None,
) -> dict[int, ObjectScore]:
    """The score of each object of one video, by id.

    truth, pred: all frames in order, masks (H, W) of object ids; taken one at a time, so generators will do.
    binary: everything that is not 0, with 255, is one object (DAVIS 2016).
    names: what errors call the frames, one for each.

    The objects are 1 to the largest id of the first ground truth; 255 there, and whatever appears later, is
    background. A result with any other id raises ValueError. The first and the last frame do not count; of
    the first of `pred` only the size is looked at.
    """
    count, rows = 0, []  # of objects; for each frame after the first, (J, F) of each object
    for index, (true_ids, pred_ids) in enumerate(zip_longest(truth, pred)):
        name = names[index] if names else f"frame {index}"
        _check_masks(name, true_ids, pred_ids)
        if binary:
            true_ids, pred_ids = true_ids != 0, pred_ids != 0
        if index == 0:
            count = _count_objects(name, true_ids)
            continue
        _check_ids(name, pred_ids, count)
        pairs = [(pred_ids == i, true_ids == i) for i in range(1, count + 1)]
        rows.append([(region_similarity(*pair), boundary_accuracy(*pair)) for pair in pairs])
    if len(rows) < 2:
        raise ValueError("a score needs three frames or more, as the first and the last do not count")
    series = zip(*rows[:-1], strict=True)  # for each object, (J, F) of each frame
    return {i: ObjectScore(*zip(*each, strict=True)) for i, each in enumerate(series, start=1)}


def list_sequences(data: str | PathLike[str], split: str | None, resolution: str = "480p") -> list[str]:
    """The names of a split's sequences, as `evaluate_davis` reads them."""
    lists, annotations = Path(data) / "ImageSets", Path(data) / "Annotations" / resolution
    if split is None:
        names = sorted(path.name for path in annotations.glob("*") if path.is_dir())
        if not names:
            raise ValueError(
                f"{annotations} holds no sequences; a DAVIS tree has Annotations/{resolution}/NAME/"
            )
        return names
    path = lists / f"{split}.txt"
    if not path.is_file():
        known = sorted(file.relative_to(lists).with_suffix("").as_posix() for file in lists.rglob("*.txt"))
        raise ValueError(f"{path} is not a file; the splits there: {_some(known) or 'none'}")
    words = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not words:
        raise ValueError(f"{path} is empty; write the name of a sequence on each line")
    # DAVIS 2017 lists names, DAVIS 2016 every frame: /JPEGImages/480p/bear/00000.jpg /Annotations/...
    return list(dict.fromkeys(PurePosixPath(word).parent.name or word for word in words))


def _frames(folder: Path) -> list[str]:
    """The PNG files in a folder, in the order of the video; none where there is no folder."""
    if not any(folder.glob("*.png")):
        return []
    return [path.name for path in list_images(folder) if path.suffix == ".png"]


def _some(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _check_masks(name: str, truth: IdMask | None, pred: IdMask | None) -> None:
    if truth is None or pred is None:
        ended = "truth" if truth is None else "pred"
        raise ValueError(f"{name}: {ended} has ended, the other has not; give every frame of both")
    for whose, mask in (("truth", truth), ("pred", pred)):
        if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype.kind not in "biu":
            given = f"{type(mask).__name__} {np.shape(mask)} of {np.asarray(mask).dtype}"
            raise ValueError(f"{name}: {whose} is {given}; give integer ids as a numpy array (H, W)")
    if truth.shape != pred.shape:
        have, want = ("{}x{}".format(*mask.shape) for mask in (pred, truth))
        raise ValueError(f"{name}: pred is {have} but truth is {want}; resize pred by nearest neighbour")


def _count_objects(name: str, first: IdMask) -> int:
    count = int(first[first != VOID].max(initial=0))
    if count == 0:
        raise ValueError(
            f"{name}: truth has no object; where 255 is not void but the object, use binary=True"
        )
    return count


def _check_ids(name: str, pred: IdMask, count: int) -> None:
    if pred.max(initial=0) > count or pred.min(initial=0) < 0:
        foreign = ", ".join(str(i) for i in np.unique(pred).tolist() if not 0 <= i <= count)
        wanted = "only object 1" if count == 1 else f"objects 1 to {count}"
        raise ValueError(
            f"{name}: pred has id {foreign} but truth has {wanted}; "
            "renumber pred, or use binary=True where 255 is the object"
        )


def _mean(each: Sequence[Statistics]) -> Statistics:
    return Statistics(*np.mean([astuple(one) for one in each], axis=0).tolist())
