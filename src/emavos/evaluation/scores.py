"""Scores of objects and of data sets, and the measures that benchmarks make of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from itertools import groupby

import numpy as np

from emavos.evaluation.metrics import Statistics, statistics


@dataclass(frozen=True)
class ObjectScore:
    """J and F of one object in all counted frames: after its first and before the video's last."""

    J_frames: tuple[float, ...]
    F_frames: tuple[float, ...]
    begin: int = 0  # index of the object's first frame; counting starts at the next
    absent: tuple[bool, ...] = ()  # whether the ground truth lacks the object, by counted frame

    @property
    def J(self) -> Statistics:
        return statistics(self.J_frames)

    @property
    def F(self) -> Statistics:
        return statistics(self.F_frames)

    @property
    def JF(self) -> float:
        return (self.J.mean + self.F.mean) / 2

    @property
    def stability(self) -> float:
        """V of LVOS: the standard deviation of J&F over the counted frames. Smaller is more stable."""
        return float(np.std(np.add(self.J_frames, self.F_frames) / 2)) if self.J_frames else math.nan

    @property
    def disappeared(self) -> float:
        """J&F of MOSEv2 while the object is gone, averaged over its absences; NaN if it never disappears."""
        return self._of_spans(absent=True)

    @property
    def reappeared(self) -> float:
        """J&F of MOSEv2 while the object is back, averaged over its returns; NaN if it never returns."""
        return self._of_spans(absent=False)

    def _of_spans(self, absent: bool) -> float:
        """The mean J&F over spans of frames without (or with) the object, except the first span."""
        both, at, spans = np.add(self.J_frames, self.F_frames) / 2, 0, list[float]()
        for gone, span in groupby(self.absent):
            end = at + len([*span])
            if gone == absent and at:
                spans.append(float(both[at:end].mean()))
            at = end
        return float(np.mean(spans)) if spans else math.nan


@dataclass(frozen=True)
class Score:
    """The scores of a data set. J and F are means over all objects of all sequences."""

    sequences: Mapping[str, Mapping[int, ObjectScore]]  # sequences["judo"][1] is object 1 of judo
    extra: tuple[str, ...] = ()  # result files without a ground truth, not scored
    untold: tuple[str, ...] = ()  # frames without ground truth in sequences that have some
    seen: Mapping[str, frozenset[int]] | None = None  # objects of seen classes; None if classes are not known
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of the frames, including the first
    later: tuple[str, ...] = ()  # objects that begin after the first frame, if the protocol ignores them
    scoring: str = "davis"  # the measures: see `Protocol.scoring`
    # measures of the whole data: see `emavos.evaluation.scoring.further_scores`
    further: Mapping[str, float] = field(default_factory=dict)

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
        """J&F, the ranking score of DAVIS: the mean of mean J and mean F."""
        return (self.J.mean + self.F.mean) / 2

    @property
    def more(self) -> Mapping[str, float]:
        """Further measures of the benchmark, by name. Measures of objects are averaged over the objects."""
        measures = {
            "lvos": {"V": "stability"},
            "mosev2": {"J&F gone": "disappeared", "J&F back": "reappeared"},
        }
        measured = dict(self.further)
        for name, attribute in measures.get(self.scoring, {}).items():
            values = [value for one in self.objects if not math.isnan(value := getattr(one, attribute))]
            measured[name] = sum(values) / len(values) if values else math.nan
        return measured

    def over_time(self, sequence: str) -> dict[str, float]:
        """J&F of each frame of a sequence by frame name, averaged over the objects counted in the frame."""
        frames: dict[int, list[float]] = {}
        for one in self.sequences[sequence].values():
            for i, (j, f) in enumerate(zip(one.J_frames, one.F_frames, strict=True), start=one.begin + 1):
                frames.setdefault(i, []).append((j + f) / 2)
        return {self.names[sequence][i]: sum(values) / len(values) for i, values in sorted(frames.items())}

    @property
    def classes(self) -> Mapping[str, Score]:
        """The scores of seen and of unseen classes; empty if classes are not known."""
        if self.seen is None:
            return {}
        seen = self.seen
        parts = {
            kind: {
                name: {i: one for i, one in objects.items() if (i in seen.get(name, ())) == (kind == "seen")}
                for name, objects in self.sequences.items()
            }
            for kind in ("seen", "unseen")
        }
        return {
            kind: Score({name: objects for name, objects in part.items() if objects})
            for kind, part in parts.items()
        }

    @property
    def overall(self) -> float:
        """The ranking score: J&F, or G of YouTube-VOS (the mean of J and F over seen and unseen classes)."""
        if classes := self.classes:
            return float(np.mean([part.JF for part in classes.values()]))
        return self.JF


def _mean(each: Sequence[Statistics]) -> Statistics:
    if not each:
        return Statistics(float("nan"), float("nan"), float("nan"))
    return Statistics(*np.mean([astuple(one) for one in each], axis=0).tolist())
