"""A project of the page: one video with its given masks and tracked masks, in a folder."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emavos.io import IdMask, Pixels
from emavos.io.ids import ids_of_picture
from emavos.io.images import decode_image, encode_mask, pixels_of
from emavos.predictor import Predictor
from emavos.settings import differences
from emavos.ui.facts import (
    FILE,
    LARGEST_ID,
    LONGEST_LABEL,
    MOST_EDITS,
    Facts,
    fit_name,
    read_facts,
    whole_in,
    write_facts,
)
from emavos.ui.folder import Folder
from emavos.ui.history import MOST, History, Snapshot, Tracked, tracked_of
from emavos.ui.importing import UNFINISHED
from emavos.ui.states import States


class Project:
    """A video with its given and tracked masks, all stored in a folder.

    The tracked masks equal `Predictor.propagate` over the frames and given masks of the folder: a mask given
    for frame k changes nothing before k, and frames from k on are tracked again. Memory holds only numbers.
    The folder can be opened again after a kill at any moment.

        project.json     facts about the video, and the objects given on each frame
        frames/          00000.jpg, ...: the frames, as shown and as seen by the network
        given/           the given masks, as painted
        drafts/          strokes that were not kept yet
        masks/           the masks of all frames, palette PNGs; 00000-3.png was tracked after further edits
        soft/            the opacity of all objects on tracked frames, gray PNGs, named as in masks/
        track.jsonl      one line per tracked frame: the confidence of its objects
        states/          the session before some frames
        history/         earlier states, to undo edits; the masks they name stay in given/ and masks/

    name: name of the video.
    fps: frames per second, or None.
    size: (H, W) of the frames.
    labels: {id: name of the object}, as far as the user gave names.
    given: {frame: ids given on the frame}.
    confidence: {frame: {id: confidence in [0, 1]}}.
    """

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.folder = folder
        self._files = Folder(folder)
        self.name, self.fps, self.size, self.count = facts.name, facts.fps, facts.size, facts.count
        self.names, self.settings, self.origin = facts.names, facts.settings, facts.origin
        self.labels = facts.labels
        self.given, self.revisions = facts.given, facts.revisions
        self.hidden, self.generation, self.step = facts.hidden, facts.generation, facts.step
        self.confidence: dict[int, dict[int, float]] = {}
        self._versions: dict[int, int] = {}  # of the tracked frames: which of their files is meant
        self._back: set[int] = set()  # tracked frames whose masks also depend on masks of later frames
        self._areas: dict[tuple[int, int], dict[int, int]] = {}  # {(frame, version): {id: pixels}}
        self._cut = False  # whether the last line of track.jsonl has no end, since a process was killed
        self._files_of = _numbers(self._files / "masks", facts.count)
        self._history = History(self._files / "history", facts.count)
        self.drafts = {*_numbers(self._files / "drafts", facts.count)}
        self.edits = 0  # counts edits that make frames outdated, so that a page notices old numbers
        self.states = States(self._files / "states")

    @classmethod
    def open(cls, folder: Path) -> Project:
        """Open the project of a folder; writes nothing, so you may read a folder that another process holds.

        Raises ValueError if the folder has no project or a damaged one.
        """
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
        return project

    def sweep(self) -> None:
        """Remove files left by killed processes, if the disk lets us. Call only while you hold the folder."""
        with suppress(OSError):
            self._sweep()

    def _sweep(self) -> None:
        self._files.remove(UNFINISHED)  # left if the import was killed just after its end
        for name in ("", "masks", "soft", "given", "states", "drafts", "history"):
            (self._files / name if name else self._files).sweep()
        self._history.keep(self.step - MOST, self.step + MOST)
        self._tidy()

    def _tidy(self) -> None:
        """Remove the masks that no state of the history needs, nor the present one."""
        states = [self._snapshot(), *self._history.all()]
        given = {_named(i, one.revisions.get(i, 0)) for one in states for i in one.given}
        masks = {_named(i, tracked.version) for one in states for i, tracked in one.track.items()}
        masks |= {_named(i, version) for i in self._files_of if (version := self._outdated(i)) is not None}
        for folder, known in (("given", given), ("masks", masks), ("soft", masks)):
            for name in (self._files / folder).names():
                if re.fullmatch(r"\d+(-\d+)?\.png", name, re.ASCII) and name not in known:
                    (self._files / folder).remove(name)
        files = self._files_of = _numbers(self._files / "masks", self.count)
        areas = [*self._areas.items()]  # a copy, as other threads may add some
        self._areas = {key: area for key, area in areas if key[1] in files.get(key[0], ())}

    @property
    def first(self) -> int | None:
        """The first frame with a given mask, or None; earlier frames have no masks."""
        return min(self.given, default=None)

    @property
    def reached(self) -> int:
        """The next frame to track forward; frames from the first given mask to it are tracked. 0 at first."""
        index = begin = self.first or 0
        while index in self.confidence:
            index += 1
        return index if index > begin else 0

    @property
    def made(self) -> int:
        """One past the last frame with any mask; masks from `reached` on may be outdated."""
        shown = (index for index in [*self._files_of] if self._outdated(index) is not None)
        made = max([*shown, *self.confidence], default=-1) + 1
        return min(max(made, max(self.given, default=-1) + 1), self.count)

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of all objects given on any frame, sorted."""
        # a copy, as other threads may change `given`
        return tuple(sorted({id for ids in [*self.given.values()] for id in ids}))

    def frame_name(self, index: int) -> str:
        """The stem of files about a frame."""
        return self.names[index] if self.names else f"{index:05d}"

    def frame_bytes(self, index: int) -> bytes:
        """A frame as JPEG bytes."""
        self._check(index)
        return (self._files / "frames").read(f"{index:05d}.jpg")

    def frame(self, index: int) -> Pixels:
        """A frame, (H, W, 3) uint8."""
        name = f"{self.folder / 'frames' / f'{index:05d}.jpg'}"
        pixels = pixels_of(decode_image(io.BytesIO(self.frame_bytes(index)), name), name)
        self._check_size(pixels.shape[:2], name)
        return pixels

    def kind(self, index: int) -> str:
        """The kind of a frame's mask: "given", "tracked", "outdated" (by an earlier edit) or "none"."""
        self._check(index)
        if index in self.given:
            return "given"
        if index in self.confidence:
            return "tracked"
        return "none" if self._outdated(index) is None or not self._begun(index) else "outdated"

    def _outdated(self, index: int) -> int | None:
        """The version of the mask that is shown for a frame that is not tracked; None if there is none."""
        versions = [v for v in self._files_of.get(index, ()) if v > self.hidden.get(index, -1)]
        return max(versions, default=None)

    def is_current(self, index: int) -> bool:
        """Whether a frame's mask is up to date for all objects: tracked, or given for each of them."""
        if self.kind(index) != "given" or index in self.confidence:
            return index in self.confidence
        return self._begun(index) <= {*self.given[index]}

    def mask(self, index: int) -> IdMask:
        """The ids of a frame, (H, W) int32, from a mask of any kind; all 0 if there is none.

        Outdated masks omit objects that were removed since, or that begin later.
        """
        self._check(index)
        if index in self.confidence:
            return self._read_mask("masks", _named(index, self._versions.get(index, 0)), self.size)
        kind = self.kind(index)
        if kind == "given":
            mask = self.given_mask(index)
        elif kind == "outdated":
            mask = self._read_mask("masks", _named(index, self._outdated(index) or 0), self.size)
        else:
            return np.zeros(self.size, np.int32)
        return np.where(np.isin(mask, [*self._begun(index)]), mask, 0).astype(np.int32)

    def matte(self, index: int) -> NDArray[np.float32]:
        """The opacity of all objects of a frame, (H, W) in [0, 1], with soft edges if it was tracked."""
        self._check(index)
        name = _named(index, self._versions.get(index, 0))
        if index not in self.confidence or not (self._files / "soft").has(name):
            return (self.mask(index) > 0).astype(np.float32)
        path = os.fspath(self.folder / "soft" / name)
        picture = decode_image(io.BytesIO((self._files / "soft").read(name)), path)
        self._check_size((picture.height, picture.width), path)
        if picture.mode != "L":
            raise ValueError(f"{path} is damaged: it is no gray picture")
        return np.asarray(picture, np.float32) / np.float32(255)

    def areas(self, index: int) -> dict[int, int]:
        """{id: number of pixels} of the mask of a tracked frame."""
        key = index, self._versions.get(index, 0)
        if key not in self._areas:
            self._areas[key] = _areas_of(self.mask(index))
        return self._areas[key]

    def _begun(self, index: int) -> set[int]:
        """The ids of all objects given on a frame or earlier."""
        return {id for frame, ids in [*self.given.items()] if frame <= index for id in ids}

    def _given_name(self, index: int) -> str:
        return _named(index, self.revisions.get(index, 0))

    def given_mask(self, index: int) -> IdMask:
        """The mask painted for a frame, (H, W), with the tracked objects around those that were given."""
        return self._read_mask("given", self._given_name(index), self.size)

    def given_objects(self, index: int) -> IdMask:
        """The mask given for a frame, (H, W): only the ids given there, not those that were tracked."""
        mask = self.given_mask(index)
        return np.where(np.isin(mask, self.given[index]), mask, 0).astype(np.int32)

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
        """Give a mask for a frame; returns the ids given on the frame from now on.

        The given ids are those whose pixels changed, plus those already given on the frame; other objects
        stay tracked. An erased object counts as absent on the frame. Frames from `index` on become outdated.

        index: number of the frame.
        mask: (H, W) of ids, 0 to 255.

        Raises ValueError if the mask has another size or other ids.
        """
        self._check(index)
        self._check_painted(mask)
        before = self.mask(index)
        differ = mask != before
        changed = {*np.unique(mask[differ]).tolist(), *np.unique(before[differ]).tolist()} - {0}
        ids = tuple(sorted({*changed, *self.given.get(index, ())}))
        if ids and (changed or index not in self.given):
            self._commit("mask given", index, self.given | {index: ids}, {index: mask})
        self.save_draft(index, None)
        return ids

    def _check_painted(self, mask: IdMask) -> None:
        if mask.shape != self.size:
            have, want = ("x".join(map(str, s)) for s in (mask.shape, self.size))
            raise ValueError(f"mask is {have} but frame is {want} (height x width); resize one of them")
        if mask.size and not (mask.min() >= 0 and mask.max() <= LARGEST_ID):
            wrong = int(mask.min() if mask.min() < 0 else mask.max())
            raise ValueError(f"the page takes ids from 1 to {LARGEST_ID}, not {wrong}")

    def take_back(self, index: int) -> None:
        """Remove the mask given for a frame. Raises ValueError if none was given."""
        self._check(index)
        if index not in self.given:
            raise ValueError(f"no mask was given for frame {index}")
        self._commit("mask taken back", index, {i: ids for i, ids in self.given.items() if i != index}, {})

    def remove(self, id: int) -> None:
        """Remove an object and its name from all frames. Raises ValueError if it was never given."""
        named = [index for index, ids in self.given.items() if id in ids]
        if not named:
            raise ValueError(f"object {id} was given on no frame")
        left = {index: tuple(i for i in ids if i != id) for index, ids in self.given.items()}
        given = {index: ids for index, ids in left.items() if ids}
        self._commit(
            f"object {id} removed", min(named), given, {}, {id: self.labels[id]} if id in self.labels else {}
        )

    def rename(self, id: int, label: str) -> None:
        """Name an object, for the page and for downloads; an empty label removes the name.

        Raises ValueError for an id beyond 1 to 255, or a label that is too long.
        """
        if not 1 <= id <= LARGEST_ID:
            raise ValueError(f"the page has objects 1 to {LARGEST_ID}, not {id}")
        label = fit_name(" ".join(label.split()))
        if len(label) > LONGEST_LABEL:
            raise ValueError(f"the name of an object has at most {LONGEST_LABEL} letters, not {len(label)}")
        others = {one: name for one, name in self.labels.items() if one != id}
        self._write(labels=others | ({id: label} if label else {}))

    def _commit(
        self,
        what: str,
        since: int,
        given: dict[int, tuple[int, ...]],
        masks: Mapping[int, IdMask],
        labels: Mapping[int, str] | None = None,
    ) -> None:
        """Replace the given objects; frames from `since` on become outdated. Can be undone.

        what: the edit, in words for the page.
        since: first frame to track again.
        given: {frame: ids}. Objects absent from `given` are erased from all given masks.
        masks: {frame: newly painted mask}.
        labels: {id: name} of names to remove.

        If the process is killed, the project is left either unchanged or fully changed.
        """
        self._check_edits()
        painted = dict(masks)
        if gone := {*self.ids} - {id for ids in given.values() for id in ids}:
            for index in given.keys() - masks.keys():
                mask = self.given_mask(index)
                if np.isin(mask, [*gone]).any():
                    painted[index] = np.where(np.isin(mask, [*gone]), 0, mask)
        revisions = {index: self.revisions.get(index, 0) for index in given}
        stored = _numbers(self._files / "given", self.count)
        for index, mask in painted.items():  # the earlier masks stay, for the history
            revisions[index] = max(stored.get(index, ()), default=-1) + 1
            (self._files / "given").write(_named(index, revisions[index]), encode_mask(mask))
        # masks of frames that are no longer given show what was painted, so they are not shown
        hidden = self.hidden | {
            index: max(self._files_of[index])
            for index in self.given.keys() - given.keys()
            if self._files_of.get(index)
        }
        removed = dict(labels or {})
        self._history.write(self.step, self._snapshot(what, since, removed))
        self._forget(since, withdrawn=since in self.given)
        self._write(
            given=given,
            revisions=revisions,
            hidden=hidden,
            generation=self._next_generation(),
            step=self.step + 1,
            labels={id: name for id, name in self.labels.items() if id not in removed},
        )
        if self._history.keep(self.step - MOST, self.step - 1):
            self._tidy()

    def _check_edits(self) -> None:
        if self.step >= MOST_EDITS:
            raise ValueError(f"this project has had {MOST_EDITS:,} edits, which is the limit; start another")

    def _snapshot(self, what: str = "", frame: int = 0, labels: Mapping[int, str] | None = None) -> Snapshot:
        track = {
            i: Tracked(sure, self._versions.get(i, 0), i in self._back) for i, sure in self.confidence.items()
        }
        return Snapshot(
            self.given, self.revisions, self.hidden, track, self.settings, what, frame, dict(labels or {})
        )

    def _next_generation(self) -> int:
        """A version that no mask of the history has."""
        return max((v for versions in self._files_of.values() for v in versions), default=-1) + 1

    @property
    def can_undo(self) -> bool:
        return self._history.has(self.step - 1)

    @property
    def can_redo(self) -> bool:
        return self._history.has(self.step + 1)

    def undo(self) -> tuple[str, int]:
        """Undo the last edit: masks given, masks taken back, objects removed, and the tracking they dropped.

        Returns what the edit was, and its frame. Raises ValueError if there is nothing to undo.
        """
        if not self.can_undo:
            raise ValueError("there is nothing to undo")
        return self._travel(self.step - 1)

    def redo(self) -> tuple[str, int]:
        """Make the edit again that was undone last. Raises ValueError if there is nothing to redo."""
        if not self.can_redo:
            raise ValueError("there is nothing to redo")
        return self._travel(self.step + 1)

    def _travel(self, step: int) -> tuple[str, int]:
        """Replace the present state by that of another step."""
        there = self._history.read(step)
        said = self._history.read(self.step) if self._history.has(self.step) else Snapshot({}, {}, {})
        edit = there if step < self.step else said
        for index in there.given:
            name = _named(index, there.revisions.get(index, 0))
            if not (self._files / "given").has(name):
                raise ValueError(f"{self.folder / 'given' / name} is missing, so this is not possible")
        removed = {id: self.labels.get(id, name) for id, name in said.labels.items()}
        here = self._snapshot(said.what, said.frame, removed)
        labels = {id: name for id, name in self.labels.items() if id not in removed}
        labels = there.labels | self.labels if step < self.step else labels
        since = here.first_difference(there)
        track = {i: one for i, one in here.track.items() if i < since and not one.back}
        if there.settings == self.settings:
            track |= there.track
        self._history.write(self.step, here)
        self._forget(min(since, self.count), withdrawn=True)
        self._write(
            given=there.given,
            revisions=there.revisions,
            hidden=there.hidden,
            generation=self._next_generation(),
            step=step,
            labels=labels,
        )
        self._restore(track)
        return edit.what, edit.frame

    def _restore(self, track: Mapping[int, Tracked]) -> None:
        """Count frames as tracked again, up to the first whose mask is missing."""
        for index in sorted(track):
            if track[index].version not in self._files_of.get(index, ()):
                break
            self._remember(index, track[index])
        self._write_track()

    def _remember(self, index: int, tracked: Tracked) -> None:
        self.confidence[index], self._versions[index] = tracked.sure, tracked.version
        (self._back.add if tracked.back else self._back.discard)(index)

    def begin_ways(self, what: str, frame: int) -> None:
        """Begin tracking that replaces masks of tracked frames. Can be undone.

        what: the edit, in words for the page.
        frame: the first frame that is replaced.
        """
        self._check_edits()
        self._history.write(self.step, self._snapshot(what, frame))
        self.edits += 1
        self._write(generation=self._next_generation(), step=self.step + 1)
        if self._history.keep(self.step - MOST, self.step - 1):
            self._tidy()

    def store(
        self,
        index: int,
        mask: IdMask,
        matte: NDArray[np.float32],
        sure: dict[int, float],
        back: bool = False,
    ) -> None:
        """Write the tracked mask of a frame.

        index: number of the frame.
        mask: (H, W) of ids.
        matte: (H, W) in [0, 1], the opacity of all objects.
        sure: {id: confidence}.
        back: whether the mask also depends on masks of later frames.
        """
        name, version = _named(index, self.generation), self.generation
        (self._files / "soft").write(name, _encode_matte(matte))
        (self._files / "masks").write(name, encode_mask(mask))
        self._files_of.setdefault(index, set()).add(version)
        tracked = Tracked(sure, version, back)
        if self._cut:
            self._write_track()
        self._files.append("track.jsonl", _line(index, tracked).encode())
        self._areas[index, version] = _areas_of(mask)
        self._remember(index, tracked)

    def draft(self, index: int) -> IdMask | None:
        """The mask of a frame with the strokes that were not kept yet; None if there are none."""
        self._check(index)
        if index not in self.drafts:
            return None
        name = os.fspath(self.folder / "drafts" / f"{index:05d}.png")
        picture = decode_image(io.BytesIO((self._files / "drafts").read(f"{index:05d}.png")), name)
        self._check_size((picture.height, picture.width), name)
        if picture.mode != "LA":
            raise ValueError(f"{name} is damaged: it is no picture of strokes")
        ids, painted = np.moveaxis(np.asarray(picture), 2, 0)
        return np.where(painted > 0, ids, self.mask(index)).astype(np.int32)

    def save_draft(self, index: int, mask: IdMask | None) -> None:
        """Store strokes that were not kept yet. Only painted pixels are stored, so the mask below may change.

        index: number of the frame.
        mask: (H, W) of ids, the frame's mask with the strokes; None forgets the strokes.

        Raises ValueError if the mask has another size or other ids.
        """
        self._check(index)
        if mask is not None:
            self._check_painted(mask)
        painted = None if mask is None else mask != self.mask(index)
        if mask is None or painted is None or not painted.any():
            if index in self.drafts:
                (self._files / "drafts").remove(f"{index:05d}.png")
                self.drafts.discard(index)
            return
        picture = io.BytesIO()
        planes = np.stack([np.where(painted, mask, 0), painted * 255], axis=2).astype(np.uint8)
        Image.fromarray(planes, "LA").save(picture, "PNG", compress_level=1)
        (self._files / "drafts").write(f"{index:05d}.png", picture.getvalue())
        self.drafts.add(index)

    def _forget(self, index: int, withdrawn: bool = False) -> None:
        """Mark frames from `index` on as not tracked, in an order of writes safe against kills.

        withdrawn: whether a mask was changed or taken back on which earlier frames may depend, those that
            were tracked backward; they count as not tracked as well.
        """
        self.edits += 1
        self.states.forget(index)
        lost = self._back if withdrawn else set()
        kept = {i: sure for i, sure in self.confidence.items() if i < index and i not in lost}
        self._back = {i for i in self._back if i in kept}
        changed = kept != self.confidence
        self.confidence = kept
        if changed or self._files.has("track.jsonl"):
            self._write_track()

    def _write_track(self) -> None:
        track = self._snapshot().track
        lines = [_line(i, track[i]) for i in sorted(track)]
        self._files.write("track.jsonl", "".join(lines).encode())
        self._cut = False

    def _read_track(self) -> None:
        if "track.jsonl" not in self._files.names():
            return
        lines = self._files.read("track.jsonl").decode("utf-8").splitlines(keepends=True)
        for line in lines:
            if line.endswith("\n"):  # ignore a line cut off by a kill; the frame is tracked again
                fact = json.loads(line)
                index, tracked = whole_in(fact["frame"], 0, self.count - 1), tracked_of(fact)
                self._remember(index, tracked)
        self._cut = bool(lines) and not lines[-1].endswith("\n")

    def _check(self, index: int) -> None:
        if not 0 <= index < self.count:
            raise ValueError(f"there is no frame {index}: the video has {self.count}")

    def check_settings(self, predictor: Predictor) -> None:
        """Store the predictor's settings. Raises ValueError if frames were tracked with other settings."""
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
        """Write project.json with changed attributes, then set the attributes."""
        now = {one.name: getattr(self, one.name) for one in fields(Facts)}
        write_facts(self._files, Facts(**(now | changes)))
        for name, value in changes.items():
            setattr(self, name, value)


def _line(index: int, tracked: Tracked) -> str:
    fact: dict[str, Any] = {"frame": index, "sure": tracked.sure}
    fact |= {"version": tracked.version} if tracked.version else {}
    fact |= {"back": True} if tracked.back else {}
    return json.dumps(fact) + "\n"


def _areas_of(mask: IdMask) -> dict[int, int]:
    """{id: number of pixels} of a mask."""
    counts = np.bincount(mask.ravel())
    return {int(id): int(counts[id]) for id in np.flatnonzero(counts) if id}


def _encode_matte(matte: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.rint(matte * 255).astype(np.uint8)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _named(index: int, number: int) -> str:
    """The file name of a mask: the number tells the masks of one frame apart."""
    return f"{index:05d}-{number}.png" if number else f"{index:05d}.png"


def _numbers(files: Folder, count: int) -> dict[int, set[int]]:
    """{frame: numbers in the names of its files}."""
    numbers: dict[int, set[int]] = {}
    for name in files.names():
        match = re.fullmatch(r"(\d{5,7})(?:-(\d{1,15}))?\.png", name, re.ASCII)
        if match and int(match[1]) < count:
            numbers.setdefault(int(match[1]), set()).add(int(match[2] or 0))
    return numbers
