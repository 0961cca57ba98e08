"""Predict the masks of a data set: track each video, write the wanted frames and record the time."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emavos.evaluation.burst import FrameRuns
from emavos.evaluation.layouts import Video, some
from emavos.io import IdMask, Pixels, ahead, behind, davis_palette, read_frame, write_mask
from emavos.io.fingerprint import fingerprint
from emavos.io.images import check_file
from emavos.io.text import read_json
from emavos.io.whole import partial_folder, replacing, sweep
from emavos.settings import differences

RUN_NAME = "run.json"


class Answer(Protocol):
    """The result of one step: at least a mask (H, W) of ids. A `Result` is one."""

    @property
    def mask(self) -> IdMask: ...


class Stepper(Protocol):
    """Anything that tracks the objects of one video frame by frame. A `Session` is one."""

    def step(self, frame: Any, mask: Any = None) -> Answer: ...


@dataclass(frozen=True)
class Timing:
    """The time spent on a video: `seconds` in `step` and its mask, without reading and writing files."""

    frames: int
    seconds: float
    data: str = ""  # hash of the inputs, see `data_sha256`


@dataclass
class Run:
    """The masks of a data set by one method, with the settings and the time used."""

    settings: Mapping[str, Any]  # all settings that change the masks; a run resumes only with equal settings
    timings: dict[str, Timing] = field(default_factory=dict)  # of the finished videos
    parameters: int | None = None  # of the network
    peak_mb: float | None = None  # peak memory of the process, or of the accelerator's allocator
    machine: str = ""
    version: str = ""  # emavos version of the last masks written

    @property
    def fps(self) -> float:
        """Frames per second: all frames, memory and given frames too, over all seconds in `step`."""
        seconds = sum(timing.seconds for timing in self.timings.values())
        return sum(timing.frames for timing in self.timings.values()) / seconds if seconds else float("nan")

    @classmethod
    def read(cls, folder: str | PathLike[str]) -> Run | None:
        """Returns the recorded run of a folder of masks, or None if there is no record."""
        path = Path(folder) / RUN_NAME
        if not path.is_file():
            return None
        try:
            fields = read_json(path, "a record of a run")
            fields["timings"] = {name: Timing(**timing) for name, timing in fields["timings"].items()}
            return cls(**fields)._checked()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path} is not a record of a run ({error}); delete it with its masks"
            ) from error

    def _checked(self) -> Run:
        """Returns this run; raises ValueError if a value has the wrong type, as in a foreign file."""
        wrong = [
            name
            for name, value in (("parameters", self.parameters), ("peak_mb", self.peak_mb))
            if not (value is None or _is_number(value))
        ]
        wrong += [name for name in ("machine", "version") if not isinstance(getattr(self, name), str)]
        if not isinstance(self.settings, dict):
            wrong.append("settings")
        else:
            trunk, attention = self.settings.get("trunk", ""), self.settings.get("attention", ["", ""])
            pair = isinstance(attention, list) and len(attention) == 2
            if not (isinstance(trunk, str) and pair and all(isinstance(part, str) for part in attention)):
                wrong.append("settings")
            if ("trunk" in self.settings) != ("attention" in self.settings):
                wrong.append("settings")
        for timing in self.timings.values():
            if not (
                _is_number(timing.frames) and _is_number(timing.seconds) and isinstance(timing.data, str)
            ):
                wrong.append("timings")
        if wrong:
            raise ValueError(f"{wrong[0]} have the wrong type")
        return self

    def write(self, folder: str | PathLike[str]) -> None:
        """Write the run beside its masks, atomically."""
        with replacing(Path(folder) / RUN_NAME) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**53


def predict(
    videos: Sequence[Video],
    begin: Callable[[], Stepper],
    out: str | PathLike[str],
    settings: Mapping[str, Any],
    *,
    any_backend: bool = False,
    each_frame: Callable[[Video, int], None] = lambda video, done: None,
) -> Run:
    """Write `out/<sequence>/<frame>.png` for the wanted frames of each video.

    videos: sequences from `find_videos`.
    begin: returns a new object with `step` for each video, for example `predictor.session`.
    out: folder for the masks. The masks of a video appear together once the video is finished, so you can
        stop a run at any time.
    settings: plain values for JSON that decide the masks. Videos finished by an earlier run with equal
        settings and unchanged inputs are skipped.
    any_backend: whether masks of an earlier run may be of another `backend` of the readout.
    each_frame: called with the video and the number of frames done.

    Raises ValueError if `out` holds a run with other settings.
    """
    from emavos import __version__

    out = Path(out)
    settings = json.loads(json.dumps(settings))
    run = Run.read(out) or Run(settings)
    if differ := differences(run.settings, settings, any_backend):
        raise ValueError(
            f"{out} holds masks made with other settings ({some(differ)} differ); choose another folder, "
            "or delete it"
        )
    for folder in {out, *((out / video.name).parent for video in videos)}:
        sweep(folder)
    for video in videos:
        files = [out / video.name / f"{name}.png" for name in video.wanted]
        digest, before = data_sha256(video), run.timings.get(video.name)
        if before is not None and before.data == digest and all(file.is_file() for file in files):
            continue
        with _appearing(out / video.name) as stage:
            try:
                timing = track_video(video, begin(), stage, each_frame)
            except FloatingPointError as error:
                raise FloatingPointError(f"{video.name}, {error}") from error
        run.timings[video.name] = replace(timing, data=digest)
        run.version = __version__
        run.write(out)
    return run


def data_sha256(video: Video) -> str:
    """Hash of a video's inputs: given masks by content, frames as `fingerprint` does."""
    digest = hashlib.sha256()
    for index, one in video.given().items():
        if isinstance(one, FrameRuns):
            digest.update(f"{index} {one.name} {one.size} {sorted(one.runs.items())}".encode())
            continue
        check_file(one, "a mask")
        digest.update(os.fsencode(f"{index} {one.name} ") + one.read_bytes())
    for path in video.images:
        digest.update(fingerprint(path))
    return digest.hexdigest()


def track_video(
    video: Video,
    stepper: Stepper,
    folder: Path,
    each_frame: Callable[[Video, int], None] = lambda video, done: None,
) -> Timing:
    """Write the wanted masks of a video into a folder, at the size of its frames."""
    wanted, count, seconds = {*video.wanted}, 0, 0.0
    with behind() as later:
        for path, given, frame in ahead(_read(video)):
            if given is not None and given.shape != frame.shape[:2]:
                have, want = ("{}x{}".format(*x.shape[:2]) for x in (given, frame))
                raise ValueError(f"the mask of {path} is {have} but the frame is {want} (height x width)")
            start = time.perf_counter()
            mask = stepper.step(frame, given).mask  # `mask` is on the CPU, so an accelerator has finished
            seconds += time.perf_counter() - start
            count += 1
            if path.stem in wanted:
                later(write_mask, folder / f"{path.stem}.png", np.asarray(mask), davis_palette())
            each_frame(video, count)
    return Timing(count, seconds)


def _read(video: Video) -> Iterator[tuple[Path, IdMask | None, Pixels]]:
    for path, given in video.introductions():
        yield path, given, read_frame(path)


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A hidden folder to fill. On success the folder moves to `target`; on an error it is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        partial_folder(target.parent, target.name) as stage,
        partial_folder(target.parent, target.name) as old,
    ):
        yield stage
        if target.exists():  # left by an earlier run
            os.rename(target, old / target.name)
        os.rename(stage, target)
