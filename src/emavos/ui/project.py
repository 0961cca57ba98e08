"""One video of the page: its frames, what was said of them, and the masks that came of it, in one folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emavos.io import FrameSource, IdMask, read_frame, read_mask, write_mask
from emavos.io.whole import replacing, sweep
from emavos.predictor import Predictor
from emavos.pretrained import weights_sha256
from emavos.result import Result
from emavos.session import Session
from emavos.ui.hold import HELD, Hold
from emavos.ui.states import States

_FORMAT = 1
_UNFINISHED = ".unfinished"  # lies beside the frames until all of them are there
_STATE_EVERY = 20  # frames between two states of the session on disk
LARGEST_ID = 255  # of a palette PNG, and of a byte of the page


class Project:
    """A video, the masks given for some of its frames, and the masks of the others, all of it on disk.

    What is tracked equals `Predictor.propagate` over the frames of the folder with the masks that were given:
    a mask given for frame k changes nothing before k, and the frames from k on are tracked anew. Nothing
    but numbers is held in memory, and whatever moment a process is killed at, the folder opens again.

        project.json     what the video is, and which objects were given on which frames
        frames/          00000.jpg, ...: what is shown, and what the network sees
        given/           the masks that were given, as they were painted
        masks/           the masks of all frames, palette PNGs
        track.jsonl      a line for each frame that is tracked: how sure its objects are
        states/          the session before some frames

    name: of the video. fps: its frames per second, or None. size: (H, W) of its frames.
    given: {frame: the ids whose masks are known on it}. confidence: {frame: {id: number in [0, 1]}}.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.folder = folder
        self.name: str = facts["name"]
        self.fps: float | None = facts["fps"]
        self.size: tuple[int, int] = (int(facts["size"][0]), int(facts["size"][1]))
        self.count = int(facts["count"])
        self.names: list[str] | None = facts["names"]  # of the frames, where they are not their numbers
        self.settings: dict[str, Any] | None = facts["settings"]  # of the predictor that tracked it
        self.given = {int(index): tuple(map(int, ids)) for index, ids in facts["given"].items()}
        self.confidence: dict[int, dict[int, float]] = {}
        self.edits = (
            0  # how often frames were to be tracked anew, so that a page knows that its numbers are old
        )
        self.states = States(folder / "states")

    @classmethod
    def build(cls, folder: Path, source: FrameSource, name: str) -> Iterator[int]:
        """Read a video into a new folder; gives the number of frames read so far after each.

        The folder is a project, which `open` takes, when the iterator ends; where it does not come that far,
        what was written is removed. The folder is held meanwhile. Raises ValueError where it is not free, a
        frame has another size than the first, or the video cannot be read.
        """
        cls.check_free(folder)
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        hold = Hold(folder)
        try:
            cls.check_free(folder)  # another may have been faster
            (folder / _UNFINISHED).touch()
            try:
                yield from cls._import(folder, source, name)
            except BaseException:
                _clear(folder)
                raise
            (folder / _UNFINISHED).unlink(missing_ok=True)
        finally:
            hold.release()
            if made:
                with suppress(OSError):  # it is a project, or somebody else put something into it meanwhile
                    folder.rmdir()

    @staticmethod
    def check_free(folder: Path) -> None:
        """Raise ValueError where a new project would have to share its folder with anything else.

        What an import that was killed left is nothing else; `build` removes it.
        """
        if not folder.exists():
            return
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder; a new project needs one of its own")
        names = {path.name for path in folder.iterdir()} - {HELD}
        if _UNFINISHED in names:
            names -= {_UNFINISHED, "frames"}
            names = {name for name in names if not name.startswith(".project.json.")}
        if names:
            raise ValueError(f"{folder} is not empty; a new project needs a folder of its own")

    @staticmethod
    def _import(folder: Path, source: FrameSource, name: str) -> Iterator[int]:
        shutil.rmtree(folder / "frames", ignore_errors=True)  # of an import that was killed
        sweep(folder, "project.json")
        (folder / "frames").mkdir()
        size, count, names = None, 0, []
        for count, frame in enumerate(source, start=1):
            size = size or frame.shape[:2]
            if frame.shape[:2] != size:
                began, now = ("x".join(map(str, s)) for s in (size, frame.shape[:2]))
                raise ValueError(f"frame {count - 1} is {now} but the video began with {began}; resize it")
            names.append(source.name(count - 1))
            picture = Image.fromarray(frame)
            picture.save(folder / "frames" / f"{count - 1:05d}.jpg", quality=95, subsampling=0)
            yield count
        if size is None:
            raise ValueError(f"{name} has no frames")
        plain = all(name == f"{index:05d}" for index, name in enumerate(names))
        facts = {"name": name, "fps": source.fps, "size": size, "count": count}
        facts |= {"names": None if plain else names, "settings": None, "given": {}}
        _write_json(folder / "project.json", {"format": _FORMAT, **facts})

    @classmethod
    def open(cls, folder: Path) -> Project:
        """The project of a folder, as it was left. Raises ValueError where none is, or it is damaged."""
        file = folder / "project.json"
        if not file.is_file():
            raise ValueError(f"{folder} holds no project: there is no project.json in it")
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            if facts["format"] != _FORMAT:
                raise ValueError(f"its format is {facts['format']}; this version reads {_FORMAT}")
            project = cls(folder, facts)
            project._read_track()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{file} is damaged, or of another version: {error}") from error
        (folder / _UNFINISHED).unlink(missing_ok=True)  # where the kill came just after the end
        return project

    @property
    def first(self) -> int | None:
        """The first frame that was given; those before it have no masks."""
        return min(self.given, default=None)

    @property
    def reached(self) -> int:
        """The frame that tracking goes on with: those before it that can have a mask have theirs."""
        return max(self.confidence, default=-1) + 1

    @property
    def made(self) -> int:
        """One past the last frame that has a mask of any kind; from `reached` on they may be outdated."""
        return max((int(file.stem) + 1 for file in (self.folder / "masks").glob("[0-9]*.png")), default=0)

    @property
    def ids(self) -> tuple[int, ...]:
        """All objects that were given on any frame, sorted."""
        return tuple(sorted({id for ids in [*self.given.values()] for id in ids}))  # others may add to it

    def frame_name(self, index: int) -> str:
        """What files about a frame are called."""
        return self.names[index] if self.names else f"{index:05d}"

    def frame_file(self, index: int) -> Path:
        self._check(index)
        return self.folder / "frames" / f"{index:05d}.jpg"

    def kind(self, index: int) -> str:
        """What the mask of a frame is: "given", "tracked", "outdated" by an edit before it, or "none"."""
        self._check(index)
        if index in self.given:
            return "given"
        if index in self.confidence:
            return "tracked"
        return "outdated" if self._mask_file(index).exists() else "none"

    def is_current(self, index: int) -> bool:
        """Whether the mask of a frame is up to date for all objects: tracked, or given for each of them."""
        if self.kind(index) != "given" or index in self.confidence:
            return index in self.confidence
        begun = {id for frame, ids in self.given.items() if frame <= index for id in ids}
        return begun <= {*self.given[index]}

    def mask(self, index: int) -> IdMask:
        """The ids of a frame, (H, W) int32, whatever kind its mask is of; all 0 where it has none."""
        self._check(index)
        file = self._mask_file(index)
        return read_mask(file) if file.exists() else np.zeros(self.size, np.int32)

    def give(self, index: int, mask: IdMask) -> tuple[int, ...]:
        """Say what a frame's mask is; returns the ids that are known on it from now on.

        These are the objects that differ from the mask that the frame had, and those given on it before; of
        the others nothing is said. An object that was there and is not any more is known to be absent. The
        frames from `index` on are to be tracked anew.

        mask: (H, W) of ids, 0 to 255. Raises ValueError where it is of another size or has other ids.
        """
        self._check(index)
        if mask.shape != self.size:
            given, wanted = ("x".join(map(str, s)) for s in (mask.shape, self.size))
            raise ValueError(f"mask is {given} but frame is {wanted} (height x width); resize one of them")
        if mask.size and not (mask.min() >= 0 and mask.max() <= LARGEST_ID):
            wrong = int(mask.min() if mask.min() < 0 else mask.max())
            raise ValueError(f"the page takes ids from 1 to {LARGEST_ID}, not {wrong}")
        before = self.mask(index)
        differ = mask != before
        changed = {*np.unique(mask[differ]).tolist(), *np.unique(before[differ]).tolist()} - {0}
        ids = tuple(sorted({*changed, *self.given.get(index, ())}))
        if ids and (changed or index not in self.given):
            self._forget(index)
            for folder in ("given", "masks"):
                (self.folder / folder).mkdir(exist_ok=True)
                write_mask(self.folder / folder / f"{index:05d}.png", mask)
            self.given[index] = ids
            self._write()
        return ids

    def take_back(self, index: int) -> None:
        """Unsay what was given for a frame. Raises ValueError where nothing was."""
        self._check(index)
        if index not in self.given:
            raise ValueError(f"no mask was given for frame {index}")
        self._forget(index)
        del self.given[index]
        self._wipe()
        self._write()
        self._mask_file(index).unlink(missing_ok=True)

    def remove(self, id: int) -> None:
        """Follow an object no longer, on no frame. Raises ValueError where it was never given."""
        named = [index for index, ids in self.given.items() if id in ids]
        if not named:
            raise ValueError(f"object {id} was given on no frame")
        self._forget(min(named))
        left = {index: tuple(i for i in ids if i != id) for index, ids in self.given.items()}
        self.given = {index: ids for index, ids in left.items() if ids}
        self._wipe()
        self._write()
        for index in set(named) - set(self.given):
            self._mask_file(index).unlink(missing_ok=True)

    def _wipe(self) -> None:
        """Take objects that are given on no frame any more off those that were given for others."""
        for index in self.given:
            mask = self.mask(index)
            if (gone := ~np.isin(mask, (0, *self.ids))).any():
                mask[gone] = 0
                for folder in ("given", "masks"):
                    write_mask(self.folder / folder / f"{index:05d}.png", mask)

    def track(self, predictor: Predictor, until: int | None = None) -> Generator[int, None, None]:
        """Follow the objects from where the masks end; gives the index of each frame when its mask is there.

        until: the first frame that is left as it is; None goes on to the last. Frames that are walked through
        again, from the last state on disk, are not given. Closing the iterator keeps what was tracked.

        Raises ValueError where no mask was given, nothing is left to track, or the project was begun with
        other weights or settings.
        """
        if self.first is None:
            raise ValueError("no frame has a mask yet: paint the objects of one, or load a mask")
        begin, end = max(self.reached, self.first), self.count if until is None else min(until, self.count)
        if begin >= end:
            raise ValueError("there is nothing left to track: all these frames have their masks")
        self._check_settings(predictor)
        session = self.states.latest(begin, predictor)
        if session is None:
            session = predictor.session()
            session.index = self.first  # before it there is nothing to follow
        (self.folder / "masks").mkdir(exist_ok=True)
        try:
            for index in range(session.index, end):
                result = self._step(session, index)
                if index >= begin:
                    write_mask(self._mask_file(index), result.mask)
                    self.confidence[index] = {
                        id: round(state.confidence, 4) for id, state in result.objects.items()
                    }
                    with (self.folder / "track.jsonl").open("a", encoding="utf-8") as track:
                        track.write(_line(index, self.confidence[index]))
                    if session.index % _STATE_EVERY == 0 and session.index < end:
                        self.states.save(session)
                    yield index
        except GeneratorExit:  # stopped by a person, who will go on from here
            self.states.save(session)
            raise
        self.states.save(session)

    def _step(self, session: Session, index: int) -> Result:
        """The next frame, and what is known of it."""
        result = session.step(read_frame(self.frame_file(index)))
        if index not in self.given:
            return result
        mask = read_mask(self.folder / "given" / f"{index:05d}.png")
        planes = {id: mask == id for id in self.given[index]}
        if new := {id: plane for id, plane in planes.items() if id not in session.ids and plane.any()}:
            result = session.add(new)
        if known := {id: plane for id, plane in planes.items() if id in session.ids and id not in new}:
            result = session.correct(known)
        return result

    def _forget(self, index: int) -> None:
        """Frames from `index` on count as not tracked. In this order: what is left is right at any moment."""
        self.edits += 1
        self.states.forget(index)
        self.confidence = {i: sure for i, sure in self.confidence.items() if i < index}
        with replacing(self.folder / "track.jsonl") as partial:
            partial.write_text(
                "".join(_line(i, sure) for i, sure in self.confidence.items()), encoding="utf-8"
            )

    def _read_track(self) -> None:
        file = self.folder / "track.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
        for line in lines:
            if line.endswith("\n"):  # a last one that was cut off by a kill is a frame to track again
                fact = json.loads(line)
                self.confidence[int(fact["frame"])] = {int(id): float(x) for id, x in fact["sure"].items()}
        if lines and not lines[-1].endswith("\n"):
            self._forget(self.reached)

    def _check(self, index: int) -> None:
        if not 0 <= index < self.count:
            raise ValueError(f"there is no frame {index}: the video has {self.count}")

    def _check_settings(self, predictor: Predictor) -> None:
        """Tracking goes on with the network and the settings that it began with, or begins with these."""
        now = {
            "weights": weights_sha256(predictor.model),
            "size": predictor.size,
            "policy": dataclasses.asdict(predictor.policy),
            "shortcuts": dataclasses.asdict(predictor.shortcuts),
        }
        if self.settings is not None and self.confidence and now != self.settings:
            names = {"weights": "other weights, or another dtype"}
            told = [
                names.get(key, f"{key} {self.settings.get(key)}")
                for key in now
                if now[key] != self.settings.get(key)
            ]
            raise ValueError(f"this project was begun with {', '.join(told)}; start the page with these")
        if now != self.settings:
            self.states.forget(-1)
            self.settings = now
            self._write()

    def _write(self) -> None:
        names = ("name", "fps", "size", "count", "names", "settings", "given")
        _write_json(
            self.folder / "project.json", {"format": _FORMAT} | {name: getattr(self, name) for name in names}
        )

    def _mask_file(self, index: int) -> Path:
        return self.folder / "masks" / f"{index:05d}.png"


def _line(index: int, sure: dict[int, float]) -> str:
    return json.dumps({"frame": index, "sure": sure}) + "\n"


def _clear(folder: Path) -> None:
    """Remove what an import wrote, the mark that it is ours last."""
    shutil.rmtree(folder / "frames", ignore_errors=True)
    (folder / _UNFINISHED).unlink(missing_ok=True)


def _write_json(path: Path, facts: dict[str, Any]) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(facts), encoding="utf-8")
