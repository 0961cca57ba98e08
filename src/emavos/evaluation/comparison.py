"""Compare methods on a data set: predict masks, score them and write a report in one call."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emavos.evaluation.baseline import CopyFirstMask
from emavos.evaluation.gallery import sections
from emavos.evaluation.html import Section, html_report
from emavos.evaluation.layouts import Video, find_videos, seen_categories
from emavos.evaluation.prediction import Run, Stepper, predict
from emavos.evaluation.protocol import Protocol
from emavos.evaluation.published import Measured
from emavos.evaluation.report import (
    Method,
    by_sequence,
    objects_table,
    overview,
    unit_note,
    write_overview,
    write_scores,
)
from emavos.evaluation.scoring import further_scores, score_videos
from emavos.evaluation.views import Views
from emavos.io.whole import replacing, sweep
from emavos.machine import PeakMemory, describe, is_out_of_memory

if TYPE_CHECKING:
    from emavos.predictor import Predictor

COPY = "copy-first-mask"  # the baseline, which has no network
# called with (method, frames done, all frames); the context has update()
Progress = Callable[[str, int, int], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Model:
    """A method whose masks are predicted in this run.

    load: called when needed; returns the predictor. None copies the first mask to every frame.
    name: name of the model, recorded beside the masks.
    scales, flip: views to average the probabilities over, see `emavos.evaluation.views.Views`.
    """

    load: Callable[[], Predictor] | None
    name: str
    scales: Sequence[float] = (1.0,)
    flip: bool = False


@dataclass(frozen=True)
class Comparison:
    """The methods compared on a data set, with their scores."""

    data: Path
    protocol: Protocol
    videos: Sequence[Video]
    methods: Sequence[Method]

    @property
    def scored(self) -> list[Method]:
        """The methods with a score."""
        return [method for method in self.methods if method.score is not None]

    def measured(self) -> list[Measured]:
        """The methods to list beside the published results of the paper's tables."""
        return [
            Measured(
                name=method.name,
                trunk=method.run.settings["trunk"],
                attention=tuple(method.run.settings["attention"]),
                JF=method.score.JF,
                J=method.score.J.mean,
                F=method.score.F.mean,
                fps=method.run.fps,
            )
            for method in self.scored
            if method.score is not None and method.run is not None and "attention" in method.run.settings
        ]

    def write(self, out: Path, pictures: int = 8, paper: str = "") -> None:
        """Write scores/, overview.csv, overview.json and report.html into a folder.

        out: folder to write to.
        pictures: number of sequences shown in the report, worst first.
        paper: text about the paper's tables, shown in the report unless empty.
        """
        for method in self.scored:
            if method.score is not None:
                write_scores(method.score, out / "scores" / file_name(method.name))
        facts = {"protocol": self.protocol.name, "sequences": len(self.videos)}
        write_overview(list(self.methods), facts, out)
        with replacing(out / "report.html") as partial:
            partial.write_text(self._report(pictures, paper), encoding="utf-8", errors="replace")

    def _report(self, pictures: int, paper: str) -> str:
        from emavos import __version__

        methods, count = list(self.methods), len(self.videos)
        facts = {
            "protocol": f"{self.protocol.name}: {self.protocol.about}",
            "data": f"{self.data.resolve().name}, {count} sequence{'' if count == 1 else 's'}",
            "machine": "; ".join(dict.fromkeys(m.run.machine for m in methods if m.run and m.run.machine)),
            "made by": f"emavos {__version__}",
        }
        parts = [Section("Overview", [(unit_note(methods), overview(methods))])]
        if paper:
            parts.append(Section("The paper", text=paper))
        if self.scored:
            parts.append(Section("J&F of each sequence", [("", by_sequence(methods))]))
        parts += sections(list(self.videos), methods, pictures)
        parts += [
            Section(f"Objects: {m.name}", [("", objects_table(m.score))]) for m in self.scored if m.score
        ]
        filled = {key: value for key, value in facts.items() if value}
        return html_report(f"Evaluation on {self.protocol.name}", filled, parts)


def compare(
    data: str | PathLike[str],
    protocol: Protocol,
    out: str | PathLike[str],
    *,
    models: Mapping[str, Model] | None = None,
    results: Mapping[str, Path] | None = None,
    sequences: Sequence[str] | None = None,
    processes: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """Predict the missing masks of each model on a data set, then score all methods.

    data: folder of the data set.
    protocol: benchmark protocol, see `PROTOCOLS`.
    out: folder for the masks, OUT/masks/<method>/<sequence>/<frame>.png.
    models: models by method name.
    results: folders of masks predicted elsewhere, by method name.
    sequences: names of the sequences to use; None uses all sequences of the protocol.
    processes: number of processes for scoring.
    progress: called for each model; returns a context manager whose value has `update()`, called once per
        frame.

    Raises ValueError if two methods share a name or a folder, if existing masks were made with other
    settings, or if `find_videos` fails.

    >>> predictor = Predictor.from_pretrained()
    >>> model = Model(lambda: predictor, "tiny")
    >>> compare("DAVIS", PROTOCOLS["davis-2016-val"], "out", models={"tiny": model}).write(Path("out"))
    """
    data, out, models = Path(data), Path(out), models or {}
    videos = find_videos(data, protocol, sequences)
    sweep(out)
    folders = dict(results or {})
    for name in models:
        if name in folders:
            raise ValueError(f"two methods are called {name}; give the results as NAME=DIR")
        folders[name] = out / "masks" / file_name(name)
    if len({file_name(name).casefold() for name in folders}) < len(folders):
        raise ValueError(f"two of {', '.join(folders)} would be written to one folder; give them as NAME=DIR")
    runs = {
        name: _run(name, model, folders[name], protocol, videos, progress or _silent)
        for name, model in models.items()
    }
    with_truth = [video for video in videos if video.truths]
    seen = seen_categories(data, protocol)
    methods = [
        Method(
            name,
            folder,
            replace(
                score_videos(with_truth, folder, seen, processes=processes),
                further=further_scores(data, protocol, videos, folder),
            )
            if with_truth
            else None,
            runs.get(name) or Run.read(folder),
        )
        for name, folder in folders.items()
    ]
    return Comparison(data, protocol, videos, methods)


def file_name(name: str) -> str:
    """Returns a method's name as a file name: slashes and other unusual characters become two dashes."""
    return re.sub(r"[^A-Za-z0-9._+=,-]+", "--", name).strip("-.") or "model"


def _run(
    name: str, model: Model, folder: Path, protocol: Protocol, videos: Sequence[Video], progress: Progress
) -> Run:
    """Predict the masks of a model, skipping finished videos."""
    settings: dict[str, Any] = {"model": model.name}
    before = Run.read(folder)
    predictor = None if model.load is None else model.load()
    begin: Callable[[], Stepper] = CopyFirstMask
    any_backend = False
    if predictor is not None:
        predictor = predictor.continuing(None if before is None else before.settings)
        any_backend = predictor.settings.auto_backend
        begin = _stepper(predictor, model)
        settings |= _settings(predictor, model)
        peak = PeakMemory(predictor.device)
    settings |= {"protocol": protocol.name, "binary": protocol.binary}
    total = sum(len(video.images) for video in videos)
    done = 0 if before is None else sum(len(v.images) for v in videos if v.name in before.timings)
    with progress(name, done, total) as bar:
        try:
            run = predict(
                videos,
                begin,
                folder,
                settings,
                any_backend=any_backend,
                each_frame=lambda video, index: bar.update(),
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(f"out of memory; try a smaller --size or --max-frames ({name})") from error
    tracked = before is None or before.timings != run.timings
    if predictor is not None and (tracked or run.parameters is None):  # None if killed after the last video
        measured = peak.mb() if tracked else None
        run.peak_mb = run.peak_mb if measured is None else max(measured, run.peak_mb or 0)
        run.parameters = sum(parameter.numel() for parameter in predictor.model.parameters())
        run.machine = describe(predictor.device)
        run.write(folder)
    return run


def _stepper(predictor: Predictor, model: Model) -> Callable[[], Stepper]:
    """Returns a function to begin a video: a plain session, or `Views` if several views are averaged."""
    if not model.flip and tuple(model.scales) == (1.0,):
        return predictor.session
    return lambda: Views(
        lambda side: predictor.with_settings(size=side).session(),
        predictor.size,
        scales=model.scales,
        flip=model.flip,
    )


def _settings(predictor: Predictor, model: Model) -> dict[str, Any]:
    """All settings of a model that change its masks, as plain values for JSON."""
    config = predictor.model.config
    return {
        **predictor.facts(),
        "trunk": config.trunk,
        "attention": [config.key_attention, config.value_attention],
        "scales": list(model.scales),
        "flip": model.flip,
    }


class _Bar:
    def update(self) -> None:
        pass


@contextmanager
def _silent(name: str, done: int, total: int) -> Iterator[_Bar]:
    yield _Bar()
