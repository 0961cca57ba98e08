"""Masks for a data set: each video followed, its wanted frames written, and the time taken."""

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

from emavos.evaluation.layouts import Video, some
from emavos.io import IdMask, Pixels, ahead, behind, read_frame, write_mask
from emavos.io.text import read_json
from emavos.io.whole import partial_folder, replacing, sweep

RUN_NAME = "run.json"


class Answer(Protocol):
    """What a follower says of a frame: at least its mask (H, W) of ids. A `Result` is one."""

    @property
    def mask(self) -> IdMask: ...


class Follower(Protocol):
    """Whatever follows the objects of one video, frame by frame. A `Session` is one."""

    def step(self, frame: Any, mask: Any = None) -> Answer: ...


@dataclass(frozen=True)
class Timing:
    """How long a video took: `seconds` in `step` and its mask alone, reading and writing left out."""

    frames: int
    seconds: float
    data: str = ""  # sha256 of what was followed: `data_sha256`


@dataclass
class Run:
    """Masks of a data set by one method: what made them, and how long it took."""

    settings: Mapping[str, Any]  # that decide the masks; a run goes on only under the same
    timings: dict[str, Timing] = field(default_factory=dict)  # of the videos that are done
    parameters: int | None = None  # of the network
    peak_mb: float | None = None  # memory at most: of the process, or of the accelerator's allocator
    machine: str = ""
    version: str = ""  # of emavos, the last that wrote masks

    @property
    def fps(self) -> float:
        """Frames per second: all frames over all seconds in `step`, memory frames and given ones included."""
        seconds = sum(timing.seconds for timing in self.timings.values())
        return sum(timing.frames for timing in self.timings.values()) / seconds if seconds else float("nan")

    @classmethod
    def read(cls, folder: str | PathLike[str]) -> Run | None:
        """The run that wrote a folder of masks; None where none says so."""
        path = Path(folder) / RUN_NAME
        if not path.is_file():
            return None
        try:
            fields = read_json(path, "a record of a run")
            fields["timings"] = {name: Timing(**timing) for name, timing in fields["timings"].items()}
            return cls(**fields)._checked()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is no record of a run ({error}); delete it with its masks") from error

    def _checked(self) -> Run:
        """This run, if its values are of their kinds, for it may be somebody else's; otherwise ValueError."""
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
            raise ValueError(f"{wrong[0]} are of another kind")
        return self

    def write(self, folder: str | PathLike[str]) -> None:
        """Write it beside its masks, whole or not at all."""
        with replacing(Path(folder) / RUN_NAME) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**53


def predict(
    videos: Sequence[Video],
    begin: Callable[[], Follower],
    out: str | PathLike[str],
    settings: Mapping[str, Any],
    *,
    each_frame: Callable[[Video, int], None] = lambda video, done: None,
) -> Run:
    """Write `out/<sequence>/<frame>.png` for the wanted frames of each video.

    begin: makes a follower for a video, such as `predictor.session`.
    settings: plain values for JSON that decide the masks. Videos that a run of the same settings has
        finished, with the frames and masks that they have now, are not followed again; ValueError where
        `out` holds a run of other settings.
    each_frame: told of each frame that is done.

    The masks of a video appear together, when it is finished; so a run can be stopped at any time.
    """
    from emavos import __version__

    out = Path(out)
    settings = json.loads(json.dumps(settings))
    run = Run.read(out) or Run(settings)
    if run.settings != settings:
        differ = sorted(k for k in {*run.settings, *settings} if run.settings.get(k) != settings.get(k))
        raise ValueError(
            f"{out} holds masks made otherwise ({some(differ)} differ); choose another folder, or delete it"
        )
    sweep(out)
    for video in videos:
        files = [out / video.name / f"{name}.png" for name in video.wanted]
        data, known = data_sha256(video), run.timings.get(video.name)
        if known is not None and known.data == data and all(file.is_file() for file in files):
            continue
        with _appearing(out / video.name) as stage:
            try:
                timing = follow_video(video, begin(), stage, each_frame)
            except FloatingPointError as error:
                raise FloatingPointError(f"{video.name}, {error}") from error
        run.timings[video.name] = replace(timing, data=data)
        run.version = __version__
        run.write(out)
    return run


def data_sha256(video: Video) -> str:
    """Of what masks depend on beside the model: what is given to the bit, frames by name and bytes."""
    digest = hashlib.sha256()
    for index, path in video.given().items():
        digest.update(f"{index} {path.name} ".encode() + path.read_bytes())
    for path in video.images:
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
    return digest.hexdigest()


def follow_video(
    video: Video,
    follower: Follower,
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
            mask = follower.step(frame, given).mask  # on a CPU at the end, so an accelerator has finished
            seconds += time.perf_counter() - start
            count += 1
            if path.stem in wanted:
                later(write_mask, folder / f"{path.stem}.png", np.asarray(mask))
            each_frame(video, count)
    return Timing(count, seconds)


def _read(video: Video) -> Iterator[tuple[Path, IdMask | None, Pixels]]:
    for path, given in video.introductions():
        yield path, given, read_frame(path)


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A hidden folder to fill, whose files take their place if the block ends well, and vanish otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        partial_folder(target.parent, target.name) as stage,
        partial_folder(target.parent, target.name) as old,
    ):
        yield stage
        if target.exists():  # of an earlier run
            os.rename(target, old / target.name)
        os.rename(stage, target)
