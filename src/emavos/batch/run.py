"""Run many videos: outputs appear whole, finished videos are skipped, and failures do not stop the run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, get_args

from emavos.annotations.labels import label_file
from emavos.batch.jobs import Job, check_names
from emavos.batch.tracking import FPS, track
from emavos.bridges import CocoWriter
from emavos.frames.mask_files import mask_files, read_masks
from emavos.io import VideoWriter, list_images, open_frames, read_frame, read_mask, write_mask
from emavos.io.addresses import absent
from emavos.io.fingerprint import fingerprint
from emavos.io.images import PathLike, check_file
from emavos.io.notices import notice, noting
from emavos.io.text import read_json
from emavos.io.video import OnDamage
from emavos.io.whole import alone_in, claim, partial_folder, release, replacing, sweep
from emavos.machine import is_out_of_memory
from emavos.memory.readout import Backend
from emavos.predictor import Predictor
from emavos.settings import differences
from emavos.visualize import overlay

_CHOSEN = ".run.json"  # in the folder of statuses; no video has such a name
_OF_BATCH = ("overlay", "rle")  # settings that a predictor does not have
_ON_DAMAGE = "on_damage"
TRIES = 2  # attempts for a video whose process is killed
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors that every further video would hit


@dataclass(frozen=True)
class Outcome:
    """The result of one video."""

    name: str
    error: str = ""  # why the video failed; empty if it succeeded
    frames: int = 0
    ids: tuple[int, ...] = ()
    made: bool = False  # whether the outputs were made in this run
    notes: tuple[str, ...] = ()  # warnings about the input: texts of each `InputWarning`


@dataclass(frozen=True)
class Batch:
    """The outputs of a run: folder, settings and options shared by all videos.

    out: folder of the outputs. A video NAME has masks/NAME/<frame>.png, status/NAME.json and, if asked for,
        overlays/NAME.mp4 (extra `video`) and rle/NAME.json (COCO runs, see `emavos.bridges`).
    settings: plain values for JSON that decide the outputs, beside the inputs.
    overlay: whether to write overlay videos.
    rle: whether to write COCO runs.
    on_damage: treatment of a damaged or truncated video, see `emavos.io.open_frames`.
    any_backend: whether finished videos may be of another backend, because "auto" is asked for.
    retries: name of the run, if its workers are killed and started again unseen, as by Ray. A video is given
        up after two kills, as it may be the cause.
    """

    out: Path
    settings: Mapping[str, Any]
    overlay: bool = False
    rle: bool = False
    retries: str = ""
    on_damage: OnDamage = "stop"
    any_backend: bool = False

    @classmethod
    def of(
        cls,
        predictor: Predictor,
        out: PathLike,
        *,
        overlay: bool = False,
        rle: bool = False,
        on_damage: OnDamage = "stop",
    ) -> Batch:
        """The batch for the masks of a predictor. A backend "auto" is that of the videos in the folder.

        Raises ValueError if these were made with the native readout, which cannot run on this CPU.
        """
        predictor = predictor.continuing(_settings_in(Path(out)))
        settings = {**predictor.facts(), "overlay": overlay, "rle": rle}
        any_backend = predictor.settings.auto_backend
        return cls(Path(out), settings, overlay, rle, on_damage=on_damage, any_backend=any_backend)

    def begin(self, jobs: Sequence[Job], force: bool = False) -> None:
        """Create the folder, or check that a run can continue there.

        jobs: all videos of the run.
        force: whether to replace videos made with other settings.

        Raises ValueError if two jobs have the same name, or the folder contains other files, inputs, or
        videos made with other settings.
        """
        check_names(jobs, "the list of jobs")
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"{self.out} is a file, not a folder")
        usable = (self.out / "status").is_dir() or not self.out.exists() or not any(self.out.iterdir())
        if not usable and not force:
            raise ValueError(f"{self.out} is not empty and not of a batch; choose another folder, or --force")
        home = os.path.realpath(self.out)
        for job in jobs:
            pairs = (path for pair in job.references for path in pair)
            for path in (job.video, *job.mask_files.values(), *pairs):
                if os.path.realpath(path).startswith(home + os.sep):
                    raise ValueError(f"{path} lies among the outputs, {self.out}; choose another folder")
        (self.out / "status").mkdir(parents=True, exist_ok=True)
        for folder in (self.out, self.out / "status"):
            sweep(folder)
        for job in jobs:
            status = self._status(job)
            if not status and self._status_path(job).exists():
                notice(f"{self._status_path(job)} is damaged; {job.name} is made again", stacklevel=3)
            differ = self._differences(job, status)
            if not force and status.get("state") == "done" and differ:
                raise ValueError(
                    f"{self.out} holds {job.name!r} made with other settings ({', '.join(differ)}); "
                    "choose another folder, or --force to make it anew"
                )

    def agreed(self, predictor: Predictor) -> Batch:
        """The batch with the backend of the process that came first, if "auto" is asked for.

        Call after `begin`: shards that start together, in an empty folder and on machines that differ, would
        each choose their own. If the file of that backend is damaged, as after a power cut, an `InputWarning`
        says so, and the run replaces the file: it continues as the finished videos began.

        Raises ValueError if that backend is native, which cannot run on this CPU.
        """
        chosen = self.out / "status" / _CHOSEN
        if not self.any_backend:
            return self
        if _settings_of(chosen) is None:
            with alone_in(chosen.parent):
                self._agree_on(chosen)
        before = {name: value for name, value in self.settings.items() if name != "library"}
        return replace(self, settings={**before, **predictor.continuing(_settings_in(self.out)).facts()})

    def _agree_on(self, chosen: Path) -> None:
        """Write the settings of this run, unless another process has written its own."""
        if _settings_of(chosen) is not None:  # written while this process waited
            return
        if chosen.exists():
            backend = self.settings["backend"]
            notice(
                f"{chosen} was damaged and is replaced; the run continues with the {backend} readout",
                stacklevel=4,
            )
            chosen.unlink()
        partial, lock = claim(chosen.parent, chosen.name)
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(json.dumps({"settings": self.settings}) + "\n")
                file.flush()
                os.fsync(file.fileno())  # a name without content would outlast a power cut
            with suppress(FileExistsError):  # another process was first
                _link(partial, chosen)
        finally:
            release(partial, lock)

    def run(self, predictor: Predictor, job: Job) -> Outcome:
        """Make the outputs of a video, unless they exist. Errors of the video are returned in the outcome.

        Raises OSError if the disk of the outputs is full or read-only, as all further videos would fail too.
        """
        try:
            inputs = inputs_sha256([job.video], {} if job.mask is None else job.mask)
            if job.references:
                inputs += inputs_sha256(
                    [], {f"{i}.{j}": p for i, x in enumerate(job.references) for j, p in enumerate(x)}
                )
            status = self._status(job)
            if self._is_done(job, status, inputs):
                return Outcome(job.name, frames=status["frames"], ids=tuple(status["ids"]))
            sweep(self.out, job.name)  # leftovers of a killed process
            if self.retries:
                tries = status["tries"] + 1 if status.get("run") == self.retries else 1
                if tries > TRIES:
                    return give_up_killed(self, job)
                self._write_status(job, state="begun", run=self.retries, tries=tries)
            with partial_folder(self.out, job.name) as stage, noting() as notes:
                frames, ids, damaged = self._track(predictor, job, stage)
                self._publish(job, stage)
            noted: dict[str, Any] = {"notes": notes} if notes else {}
            if damaged:  # the treatment of damage decides no other video
                noted[_ON_DAMAGE] = self.on_damage
            self._write_status(job, state="done", inputs=inputs, frames=frames, ids=ids, **noted)
            return Outcome(job.name, frames=frames, ids=tuple(ids), made=True, notes=tuple(notes))
        except Exception as error:  # any error concerns only this video
            if isinstance(error, OSError) and error.errno in _FULL:
                raise OSError(error.errno, os.strerror(error.errno), str(self.out)) from error
            reason = _reason(error)
        return self._give_up(job, reason)

    def _give_up(self, job: Job, error: str) -> Outcome:
        self._write_status(job, state="failed", error=error)
        return Outcome(job.name, error)

    def _track(self, predictor: Predictor, job: Job, stage: Path) -> tuple[int, list[int], bool]:
        """Track a video and fill a folder with its outputs.

        Returns the number of frames, the ids, and whether the video is damaged.
        """
        policy = _options(job)
        size = policy.pop("size", predictor.size)
        # with the backend of the run: the cache may hold another build by now, or on this machine
        predictor = predictor.continuing(self.settings)
        self._check_own(predictor)
        predictor = predictor.with_settings(
            policy=replace(predictor.policy, **policy),
            size=size,
            resize_ahead=False,  # leaves the other cores to other shards and workers
        )
        frames = open_frames(job.video, [*job.mask_files.values()], self.on_damage)
        masks = None if job.mask is None else read_masks(job.mask, frames)
        session = predictor.session() if job.references else None
        for image, mask in job.references:
            try:
                assert session is not None
                session.remember(read_frame(image), read_mask(mask))
            except ValueError as error:
                raise ValueError(f"reference {image}: {error}") from error
        count, ids = 0, set[int]()
        (stage / "masks").mkdir()
        with ExitStack() as stack:
            if self.overlay:
                video = stack.enter_context(
                    VideoWriter(
                        stage / "overlays.mp4",
                        frames.fps or FPS,
                        frames.sound,
                        pixel_aspect=frames.pixel_aspect,
                    )
                )
            if self.rle:
                coco = stack.enter_context(CocoWriter(stage / "rle.json"))
            for frame, result in track(predictor, frames, masks, quiet=True, session=session):
                name = frames.name(result.index)
                write_mask(stage / "masks" / f"{name}.png", result.mask)
                if self.overlay:
                    video.write(overlay(frame, result.mask))
                if self.rle:
                    coco.write(name, result.mask)
                count, ids = count + 1, ids.union(result.ids)
        return count, sorted(ids), frames.damaged

    def _check_own(self, predictor: Predictor) -> None:
        """Raise ValueError if a worker's predictor is not that of the run, as dtype "auto" may not be."""
        run = {name: fact for name, fact in self.settings.items() if name not in _OF_BATCH}
        if differ := differences(run, predictor.facts(), self.any_backend):
            raise ValueError(
                f"the predictor of this worker differs from that of the run in {', '.join(differ)}; load the "
                'same model with the same settings on each machine (dtype "auto" depends on the machine)'
            )

    def _places(self, job: Job) -> dict[str, Path]:
        """The final paths of the outputs, by their names in the staging folder."""
        return {
            "masks": self.out / "masks" / job.name,
            "overlays.mp4": self.out / "overlays" / f"{job.name}.mp4",
            "rle.json": self.out / "rle" / f"{job.name}.json",
        }

    def _publish(self, job: Job, stage: Path) -> None:
        """Move the outputs to their places, after removing the status of an earlier run."""
        self._status_path(job).unlink(missing_ok=True)
        for made, place in self._places(job).items():
            # outputs of an earlier run; removed with the staging folder
            if place.is_symlink() or place.exists():
                os.rename(place, stage / f"old-{made}")
            if (stage / made).exists():
                place.parent.mkdir(exist_ok=True)
                os.rename(stage / made, place)

    def _is_done(self, job: Job, status: Mapping[str, Any], inputs: str) -> bool:
        if status.get("state") != "done" or status.get("inputs") != inputs:
            return False
        if self._differences(job, status):
            return False
        places = self._places(job)
        masks = places["masks"]
        return (
            masks.is_dir()
            and sum(path.suffix == ".png" for path in masks.iterdir()) == status.get("frames")
            and (not self.overlay or places["overlays.mp4"].is_file())
            and (not self.rle or places["rle.json"].is_file())
        )

    def _differences(self, job: Job, status: Mapping[str, Any]) -> list[str]:
        """Names of the settings that differ from those of a stored status."""
        settings, any_backend = self._settings(job), self.any_backend and "backend" not in _options(job)
        other = [_ON_DAMAGE] if status.get(_ON_DAMAGE, self.on_damage) != self.on_damage else []
        return differences(status.get("settings") or {}, settings, any_backend) + other

    def _settings(self, job: Job) -> dict[str, Any]:
        return {**self.settings, **_options(job)}

    def _status_path(self, job: Job) -> Path:
        return self.out / "status" / f"{job.name}.json"

    def _status(self, job: Job) -> dict[str, Any]:
        """The stored status of a video; empty if there is none, or it cannot be read or is damaged."""
        try:
            status = read_json(self._status_path(job), "the status of a video")
        except (OSError, ValueError):
            return {}
        return status if _is_status(status) else {}

    def _write_status(self, job: Job, **status: Any) -> None:
        content = {"name": job.name, **status, "settings": self._settings(job)}
        with replacing(self._status_path(job)) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class Workers(Protocol):
    """Who tracks the videos of a batch: `emavos.batch.Processes` or `emavos.batch.RayWorkers`."""

    def outcomes(
        self, jobs: Sequence[Job], load: Callable[[], Predictor], batch: Batch, device: str
    ) -> Generator[Outcome, None, None]:
        """Yield the outcome of each video, in any order.

        load: returns a predictor; called once in each worker.
        device: type of the predictor's device.
        """


def run_batch(
    jobs: Iterable[Job],
    predictor: Predictor | Callable[[], Predictor],
    out: PathLike,
    *,
    workers: Workers | None = None,
    overlay: bool = False,
    rle: bool = False,
    force: bool = False,
    on_damage: OnDamage = "stop",
    each: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Track the objects of many videos. `Batch` lists the outputs.

    jobs: videos to process.
    predictor: tracks the objects; or a function that returns one. Workers need a function, which each of them
        calls once.
    out: folder for the outputs.
    workers: `Processes(4)` or `RayWorkers(4)`; None: this process, one video after another. The masks do not
        depend on the number of workers.
    overlay: whether to write overlay videos too.
    rle: whether to write COCO runs too.
    on_damage: treatment of a damaged or truncated video, see `emavos.io.open_frames`.
    force: whether to replace videos made with other settings.
    each: called with each outcome as it arrives. Those of workers arrive in any order.

    A failed video is reported in its outcome and does not stop the run. If a worker is killed, its video is
    started again; the video is given up after the second kill. Videos finished by an earlier run with the
    same settings and unchanged inputs are skipped, so a stopped or killed run continues and ends with the
    same bytes.

    Raises ValueError like `Batch.begin`, for workers with a predictor instead of a function, and if no worker
    can start, and OSError if the disk of the outputs is full or read-only.
    """
    jobs = [*jobs]
    if workers is not None and isinstance(predictor, Predictor):
        raise ValueError(
            "each worker makes a predictor of its own; pass a function of a module that returns one, not a "
            "predictor"
        )
    here = predictor if isinstance(predictor, Predictor) else predictor()
    batch = Batch.of(here, out, overlay=overlay, rle=rle, on_damage=on_damage)
    batch.begin(jobs, force)
    batch = batch.agreed(here)
    if workers is None:
        arriving = _in_turn(jobs, here, batch)
    else:
        assert not isinstance(predictor, Predictor)
        device = here.device.type
        del here  # the workers need the memory
        arriving = workers.outcomes(jobs, predictor, batch, device)
    outcomes: dict[str, Outcome] = {}
    with closing(arriving):
        for outcome in arriving:
            outcomes[outcome.name] = outcome
            each(outcome)
    return [outcomes[job.name] for job in jobs]


def _in_turn(jobs: Sequence[Job], predictor: Predictor, batch: Batch) -> Generator[Outcome, None, None]:
    for job in jobs:
        yield batch.run(predictor, job)


def give_up_killed(batch: Batch, job: Job) -> Outcome:
    """Give up a video whose process was killed `TRIES` times."""
    return batch._give_up(
        job,
        f"the process that tracked it was killed, {TRIES} times; if memory ran out, use fewer processes or a "
        "smaller --size",
    )


def inputs_sha256(videos: Sequence[Path], masks: Path | Mapping[str, Path]) -> str:
    """Hash of the inputs of a video: masks by name and content, frames as `fingerprint` does.

    videos: a file, a folder of frames, or several images.
    masks: a file, a folder, or files by frame name.

    Raises ValueError for pipes and devices, and FileNotFoundError for what does not exist.
    """
    digest = hashlib.sha256()
    if not isinstance(masks, Mapping):
        if listed := label_file(masks):
            digest.update(hashlib.sha256(listed.read_bytes()).digest())
        masks = {path.stem: path for path in mask_files(masks)} if masks.is_dir() else {"": masks}
    for name, path in masks.items():
        check_file(path, "a file")
        digest.update(os.fsencode(f"{name} ") + hashlib.sha256(path.read_bytes()).digest())
    for video in videos:
        if not video.exists():
            raise absent(video)
        for path in list_images(video) if video.is_dir() else [video]:
            digest.update(fingerprint(path))
    return digest.hexdigest()


def _link(partial: Path, path: Path) -> None:
    """Give a file a second name. Raises FileExistsError if the name is taken."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links; the last of two processes at once is then the first
        os.replace(partial, path)


def _settings_in(out: Path) -> Mapping[str, Any] | None:
    """The settings that a run has agreed on, or else of its first video by name; None if there is none."""
    status = out / "status"
    paths = (status / _CHOSEN, *sorted(status.glob("*.json")))
    return next((settings for path in paths if (settings := _settings_of(path)) is not None), None)


def _settings_of(path: Path) -> Mapping[str, Any] | None:
    """The settings in a file of statuses; None if there is no such file, or it is damaged.

    Raises OSError if the file may be intact and cannot be read now.
    """
    with suppress(FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        settings = read_json(path, "the status of a video")["settings"]
        if isinstance(settings, dict) and settings["backend"] in get_args(Backend):
            return settings
    return None


def _is_status(status: Any) -> bool:
    """Whether a JSON value is the status of a video, as `Batch` writes it."""
    if not isinstance(status, dict) or not isinstance(status.get("settings"), dict):
        return False
    if "run" in status and type(status.get("tries")) is not int:
        return False
    ids = status.get("ids", [])
    whole = isinstance(ids, list) and all(type(id) is int for id in [status.get("frames", 0), *ids])
    return whole and (status.get("state") != "done" or {"frames", "ids"} <= status.keys())


def _options(job: Job) -> dict[str, Any]:
    """The options of a video. A backend "auto" is the run's, which is decided already."""
    return {name: value for name, value in job.options.items() if (name, value) != ("backend", "auto")}


def _reason(error: Exception) -> str:
    """An error as one line; unexpected errors include their type."""
    if is_out_of_memory(error):
        return "out of memory; try a smaller --size or --max-frames"
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    kind = "" if isinstance(error, (ValueError, ImportError, OSError)) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".removesuffix("; nothing was written").split())
