"""One video of the page: its frames, what was said of them, and the masks that came of it, in one folder."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Generator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from emavos.io import IdMask, Pixels
from emavos.io.ids import ids_of_picture
from emavos.io.images import decode_image, encode_mask, pixels_of
from emavos.predictor import Predictor
from emavos.session import Result, Session
from emavos.settings import differences
from emavos.ui.facts import FILE, LARGEST_ID, Facts, number_in, number_of, read_facts, whole_in, write_facts
from emavos.ui.folder import Folder
from emavos.ui.importing import UNFINISHED
from emavos.ui.states import States

_STATE_EVERY = 20  # frames between two states of the session on disk


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

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.folder = folder
        self._files = Folder(folder)
        self.name, self.fps, self.size, self.count = facts.name, facts.fps, facts.size, facts.count
        self.names, self.settings = facts.names, facts.settings
        self.given, self.revisions = facts.given, facts.revisions
        self.confidence: dict[int, dict[int, float]] = {}
        self.edits = 0  # how often frames were to be tracked anew: a page knows that its numbers are old
        self.states = States(self._files / "states")

    @classmethod
    def open(cls, folder: Path) -> Project:
        """The project of a folder, as it was left. Raises ValueError where none is, or it is damaged."""
        file, files = folder / FILE, Folder(folder)
        if not file.is_file():
            raise ValueError(f"{folder} holds no project: there is no {FILE} in it")
        try:
            project = cls(folder, read_facts(files))
            frames = {*(files / "frames").names()}
            if missing := [i for i in range(project.count) if f"{i:05d}.jpg" not in frames]:
                raise ValueError(f"it has {project.count} frames, and frames/{missing[0]:05d}.jpg is missing")
            project._read_track()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise ValueError(f"{file} is damaged, or of another version: {error}") from error
        files.remove(UNFINISHED)  # if the kill came just after the end
        return project

    def sweep(self) -> None:
        """Remove what edits that were killed left: only for the one process that holds the folder."""
        for name in ("", "masks", "given", "states"):
            (self._files / name if name else self._files).sweep()
        known = {self._given_name(index) for index in self.given}
        for name in (self._files / "given").names():
            if re.fullmatch(r"\d+(-\d+)?\.png", name, re.ASCII) and name not in known:
                (self._files / "given").remove(name)

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
        named = re.compile(r"(\d{5,7})\.png", re.ASCII)
        found = (named.fullmatch(name) for name in (self._files / "masks").names())
        made = max((int(match[1]) + 1 for match in found if match), default=0)
        return min(max(made, max(self.given, default=-1) + 1), self.count)

    @property
    def ids(self) -> tuple[int, ...]:
        """All objects that were given on any frame, sorted."""
        return tuple(sorted({id for ids in [*self.given.values()] for id in ids}))  # others may add to it

    def frame_name(self, index: int) -> str:
        """What files about a frame are called."""
        return self.names[index] if self.names else f"{index:05d}"

    def frame_bytes(self, index: int) -> bytes:
        """A frame as its JPEG."""
        self._check(index)
        return (self._files / "frames").read(f"{index:05d}.jpg")

    def frame(self, index: int) -> Pixels:
        """A frame, (H, W, 3) of uint8."""
        name = f"{self.folder / 'frames' / f'{index:05d}.jpg'}"
        pixels = pixels_of(decode_image(io.BytesIO(self.frame_bytes(index)), name), name)
        self._check_size(pixels.shape[:2], name)
        return pixels

    def kind(self, index: int) -> str:
        """What the mask of a frame is: "given", "tracked", "outdated" by an edit before it, or "none"."""
        self._check(index)
        if index in self.given:
            return "given"
        if index in self.confidence:
            return "tracked"
        return "outdated" if (self._files / "masks").has(f"{index:05d}.png") else "none"

    def is_current(self, index: int) -> bool:
        """Whether the mask of a frame is up to date for all objects: tracked, or given for each of them."""
        if self.kind(index) != "given" or index in self.confidence:
            return index in self.confidence
        return self._begun(index) <= {*self.given[index]}

    def mask(self, index: int) -> IdMask:
        """The ids of a frame, (H, W) int32, whatever kind its mask is of; all 0 where it has none.

        Masks that are not up to date show no object that was removed since, or begins later.
        """
        self._check(index)
        if index in self.confidence:
            return self._read_mask("masks", f"{index:05d}.png", self.size)
        kind = self.kind(index)
        if kind == "given":
            mask = self._given_mask(index)
        elif kind == "outdated":
            mask = self._read_mask("masks", f"{index:05d}.png", self.size)
        else:
            return np.zeros(self.size, np.int32)
        return np.where(np.isin(mask, [*self._begun(index)]), mask, 0).astype(np.int32)

    def _begun(self, index: int) -> set[int]:
        """The objects that were given on a frame or before it."""
        return {id for frame, ids in [*self.given.items()] if frame <= index for id in ids}

    def _given_name(self, index: int) -> str:
        revision = self.revisions.get(index, 0)
        return f"{index:05d}-{revision}.png" if revision else f"{index:05d}.png"

    def _given_mask(self, index: int) -> IdMask:
        return self._read_mask("given", self._given_name(index), self.size)

    def _read_mask(self, folder: str, name: str, size: tuple[int, int]) -> IdMask:
        path = os.fspath(self.folder / folder / name)
        mask = ids_of_picture(decode_image(io.BytesIO((self._files / folder).read(name)), path), path)
        self._check_size(mask.shape, path)
        if mask.min() < 0 or mask.max() > LARGEST_ID:
            raise ValueError(f"{path} is damaged: it has id {mask.max()}, beyond {LARGEST_ID}")
        return mask

    def _check_size(self, size: tuple[int, ...], path: str) -> None:
        if size != self.size:
            now, wanted = ("x".join(map(str, s)) for s in (size, self.size))
            raise ValueError(f"{path} is damaged: it is {now}, and the video {wanted} (height x width)")

    def give(self, index: int, mask: IdMask) -> tuple[int, ...]:
        """Say what a frame's mask is; returns the ids that are known on it from now on.

        These are the objects that differ from the mask that the frame had, and those given on it before; of
        the others nothing is said. An object that was there and is not any more is known to be absent. The
        frames from `index` on are to be tracked anew.

        mask: (H, W) of ids, 0 to 255. Raises ValueError where it is of another size or has other ids.
        """
        self._check(index)
        if mask.shape != self.size:
            have, want = ("x".join(map(str, s)) for s in (mask.shape, self.size))
            raise ValueError(f"mask is {have} but frame is {want} (height x width); resize one of them")
        if mask.size and not (mask.min() >= 0 and mask.max() <= LARGEST_ID):
            wrong = int(mask.min() if mask.min() < 0 else mask.max())
            raise ValueError(f"the page takes ids from 1 to {LARGEST_ID}, not {wrong}")
        before = self.mask(index)
        differ = mask != before
        changed = {*np.unique(mask[differ]).tolist(), *np.unique(before[differ]).tolist()} - {0}
        ids = tuple(sorted({*changed, *self.given.get(index, ())}))
        if ids and (changed or index not in self.given):
            self._commit(self.given | {index: ids}, {index: mask}, since=index)
        return ids

    def take_back(self, index: int) -> None:
        """Unsay what was given for a frame. Raises ValueError where nothing was."""
        self._check(index)
        if index not in self.given:
            raise ValueError(f"no mask was given for frame {index}")
        self._commit({i: ids for i, ids in self.given.items() if i != index}, {}, since=index)
        (self._files / "masks").remove(f"{index:05d}.png")

    def remove(self, id: int) -> None:
        """Follow an object no longer, on no frame. Raises ValueError where it was never given."""
        named = [index for index, ids in self.given.items() if id in ids]
        if not named:
            raise ValueError(f"object {id} was given on no frame")
        left = {index: tuple(i for i in ids if i != id) for index, ids in self.given.items()}
        given = {index: ids for index, ids in left.items() if ids}
        self._commit(given, {}, since=min(named))
        for index in {*named} - {*given}:
            (self._files / "masks").remove(f"{index:05d}.png")

    def _commit(self, given: dict[int, tuple[int, ...]], masks: Mapping[int, IdMask], since: int) -> None:
        """Say which objects are given on which frames; those from frame `since` on are to be tracked anew.

        masks: those that were painted. Objects that are given on no frame any more are taken off all others.
        A process that is killed on the way leaves all of it as it was, or as it is afterwards.
        """
        painted = dict(masks)
        if gone := {*self.ids} - {id for ids in given.values() for id in ids}:
            for index in given.keys() - masks.keys():
                mask = self._given_mask(index)
                if np.isin(mask, [*gone]).any():
                    painted[index] = np.where(np.isin(mask, [*gone]), 0, mask)
        before = {self._given_name(index) for index in self.given}
        revisions = {index: self.revisions.get(index, 0) for index in given}
        for index, mask in painted.items():
            revisions[index] += index in self.given
            name = f"{index:05d}-{revisions[index]}.png" if revisions[index] else f"{index:05d}.png"
            (self._files / "given").write(name, encode_mask(mask))
        self._forget(since)
        self._write(given=given, revisions=revisions)
        for name in before - {self._given_name(index) for index in self.given}:
            (self._files / "given").remove(name)

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
            session = predictor.session(start=self.first)  # before it there is nothing to follow
        try:
            for index in range(session.index, end):
                result = self._step(session, index)
                if index >= begin:
                    sure = {id: round(state.confidence, 4) for id, state in result.objects.items()}
                    (self._files / "masks").write(f"{index:05d}.png", encode_mask(result.mask))
                    self._files.append("track.jsonl", _line(index, sure).encode())
                    self.confidence[index] = sure
                    if session.index % _STATE_EVERY == 0 and session.index < end:
                        self.states.save(session)
                    yield index
        except GeneratorExit:  # stopped by a person, who will go on from here
            self.states.save(session)
            raise
        self.states.save(session)

    def _step(self, session: Session, index: int) -> Result:
        """The next frame, and what is known of it."""
        result = session.step(self.frame(index))
        if index not in self.given:
            return result
        mask = self._given_mask(index)
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
        confidence = {i: sure for i, sure in self.confidence.items() if i < index}
        if confidence != self.confidence or self._files.has("track.jsonl"):
            lines = "".join(_line(i, sure) for i, sure in confidence.items())
            self._files.write("track.jsonl", lines.encode())
        self.confidence = confidence

    def _read_track(self) -> None:
        if "track.jsonl" not in self._files.names():
            return
        lines = self._files.read("track.jsonl").decode("utf-8").splitlines(keepends=True)
        for line in lines:
            if line.endswith("\n"):  # a last one that was cut off by a kill is a frame to track again
                fact = json.loads(line)
                sure = {number_of(id, LARGEST_ID + 1): number_in(x, 0, 1) for id, x in fact["sure"].items()}
                self.confidence[whole_in(fact["frame"], 0, self.count - 1)] = sure
        if lines and not lines[-1].endswith("\n"):
            self._forget(self.reached)

    def _check(self, index: int) -> None:
        if not 0 <= index < self.count:
            raise ValueError(f"there is no frame {index}: the video has {self.count}")

    def _check_settings(self, predictor: Predictor) -> None:
        """Tracking goes on with the network and the settings that it began with, or begins with these."""
        now = predictor.facts()
        if self.settings is not None and self.confidence and now != self.settings:
            names = {"weights": "other weights"}
            began = [
                names.get(key, f"{key} {self.settings.get(key)}") for key in differences(self.settings, now)
            ]
            raise ValueError(f"this project was begun with {', '.join(began)}; start the page with these")
        if now != self.settings:
            self.states.forget(-1)
            self._write(settings=now)

    def _write(self, **changes: Any) -> None:
        """Write project.json with these attributes, and then set them."""
        now = {one.name: getattr(self, one.name) for one in fields(Facts)}
        write_facts(self._files, Facts(**(now | changes)))
        for name, value in changes.items():
            setattr(self, name, value)


def _line(index: int, sure: dict[int, float]) -> str:
    return json.dumps({"frame": index, "sure": sure}) + "\n"
