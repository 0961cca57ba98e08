"""The stored state of a project: objects given, tracked frames, and the history of all edits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from emavos.io import IdMask
from emavos.predictor import Predictor
from emavos.settings import comparable, differences
from emavos.ui.facts import FILE, MOST_EDITS, MOST_VERSIONS, Facts, read_facts, write_facts
from emavos.ui.folder import Folder
from emavos.ui.history import MOST, History, Snapshot, Tracked
from emavos.ui.image_files import ImageFiles, mask_name
from emavos.ui.importing import UNFINISHED
from emavos.ui.states import States
from emavos.ui.track import Track

_Opened = TypeVar("_Opened", bound="Record")


class Record:
    """The state of a project, in a folder that can be opened again after a kill at any moment.

    Every edit is written whole or not at all, and can be undone: earlier masks stay in the folder as long as
    a state of the history names them. Attributes as for `Project`.
    """

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.folder = folder
        self._files = Folder(folder)
        self.name, self.fps, self.size, self.count = facts.name, facts.fps, facts.size, facts.count
        self.names, self.settings, self.origin = facts.names, facts.settings, facts.origin
        self.labels = facts.labels
        self.given, self.revisions = facts.given, facts.revisions
        self.hidden, self.generation, self.step = facts.hidden, facts.generation, facts.step
        self.edits = 0  # counts edits that make frames outdated, so that a page notices old numbers
        self.states = States(self._files / "states")
        self._images = ImageFiles(self._files, facts.size, facts.count)
        self._masks = self._images.versions("masks")  # {frame: versions of its tracked mask}
        self._track = Track(self._files)
        self._areas: dict[tuple[int, int], dict[int, int]] = {}  # {(frame, version): {id: pixels}}
        self._history = History(self._files / "history", facts.count)

    @classmethod
    def open(cls: type[_Opened], folder: Path) -> _Opened:
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
            project._track.read(project.count)
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
        given = {(i, one.revisions.get(i, 0)) for one in states for i in one.given}
        masks = {(i, tracked.version) for one in states for i, tracked in one.track.items()}
        masks |= {(i, version) for i in self._masks if (version := self._outdated(i)) is not None}
        for folder, kept in (("given", given), ("masks", masks), ("soft", masks)):
            self._images.keep(folder, kept)
        files = self._masks = self._images.versions("masks")
        areas = [*self._areas.items()]  # a copy, as other threads may add some
        self._areas = {key: area for key, area in areas if key[1] in files.get(key[0], ())}

    @property
    def confidence(self) -> dict[int, dict[int, float]]:
        """{frame: {id: confidence in [0, 1]}} of the tracked frames."""
        return self._track.confidence

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

    def next_to_track(self, index: int) -> range:
        """The first two frames that tracking steps to if a person gives a mask for a frame, or none."""
        begins = self.first is None or index < self.first
        start = index if begins else min(index, self.reached)
        return range(start, min(start + 2, self.count))

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of all objects given on any frame, sorted."""
        # a copy, as other threads may change `given`
        return tuple(sorted({id for ids in [*self.given.values()] for id in ids}))

    def _begun(self, index: int) -> set[int]:
        """The ids of all objects given on a frame or earlier."""
        return {id for frame, ids in [*self.given.items()] if frame <= index for id in ids}

    def _outdated(self, index: int) -> int | None:
        """The version of the mask that is shown for a frame that is not tracked; None if there is none."""
        versions = [v for v in self._masks.get(index, ()) if v > self.hidden.get(index, -1)]
        return max(versions, default=None)

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
        generation = self._next_generation()
        painted = dict(masks)
        if gone := {*self.ids} - {id for ids in given.values() for id in ids}:
            for index in given.keys() - masks.keys():
                mask = self._images.mask("given", index, self.revisions.get(index, 0))
                if np.isin(mask, [*gone]).any():
                    painted[index] = np.where(np.isin(mask, [*gone]), 0, mask)
        revisions = {index: self.revisions.get(index, 0) for index in given}
        stored = self._images.versions("given")
        for index, mask in painted.items():  # the earlier masks stay, for the history
            revisions[index] = self._next(stored.get(index, ()))
            self._images.write_mask("given", index, revisions[index], mask)
        # masks of frames that are no longer given show what was painted, so they are not shown
        hidden = self.hidden | {
            index: max(self._masks[index])
            for index in self.given.keys() - given.keys()
            if self._masks.get(index)
        }
        removed = dict(labels or {})
        self._history.write(self.step, self._snapshot(what, since, removed))
        self._forget(since, withdrawn=since in self.given)
        self._write(
            given=given,
            revisions=revisions,
            hidden=hidden,
            generation=generation,
            step=self.step + 1,
            labels={id: name for id, name in self.labels.items() if id not in removed},
        )
        if self._history.keep(self.step - MOST, self.step - 1):
            self._tidy()

    def _check_edits(self) -> None:
        if self.step >= MOST_EDITS:
            raise ValueError(f"this project has had {MOST_EDITS:,} edits, which is the limit; start another")

    def _snapshot(self, what: str = "", frame: int = 0, labels: Mapping[int, str] | None = None) -> Snapshot:
        return Snapshot(
            self.given,
            self.revisions,
            self.hidden,
            self._track.snapshot(),
            self.settings,
            what,
            frame,
            dict(labels or {}),
        )

    def _next_generation(self) -> int:
        """A version that no mask of the history has."""
        return self._next(v for versions in [*self._masks.values()] for v in versions)

    def _next(self, versions: Iterable[int]) -> int:
        """The version after these. Raises ValueError if that is too large, as a stranger may have made it."""
        after = max(versions, default=-1) + 1
        if after > MOST_VERSIONS:
            raise ValueError(
                f"{self.folder} has a mask with number {after - 1:,} in its name, which is the largest; "
                "start another project"
            )
        return after

    @property
    def can_undo(self) -> bool:
        return self._history.has(self.step - 1)

    @property
    def can_redo(self) -> bool:
        return self.step < MOST_EDITS and self._history.has(self.step + 1)

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
        generation = self._next_generation()
        there = self._history.read(step)
        said = self._history.read(self.step) if self._history.has(self.step) else Snapshot({}, {}, {})
        edit = there if step < self.step else said
        for index in there.given:
            version = there.revisions.get(index, 0)
            if not self._images.has("given", index, version):
                path = self.folder / "given" / mask_name(index, version)
                raise ValueError(f"{path} is missing, so this is not possible")
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
            generation=generation,
            step=step,
            labels=labels,
        )
        self._track.restore(track, self._masks)
        return edit.what, edit.frame

    def begin_ways(self, what: str, frame: int) -> None:
        """Begin tracking that replaces masks of tracked frames. Can be undone.

        what: the edit, in words for the page.
        frame: the first frame that is replaced.
        """
        self._check_edits()
        generation = self._next_generation()
        self._history.write(self.step, self._snapshot(what, frame))
        self.edits += 1
        self._write(generation=generation, step=self.step + 1)
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
        version = self.generation
        self._images.write_matte(index, version, matte)
        self._images.write_mask("masks", index, version, mask)
        self._masks.setdefault(index, set()).add(version)
        self._areas[index, version] = areas_of(mask)
        self._track.add(index, Tracked(sure, version, back))

    def _forget(self, index: int, withdrawn: bool = False) -> None:
        """Mark frames from `index` on as not tracked, in an order of writes safe against kills.

        withdrawn: whether a mask was changed or taken back on which earlier frames may depend, those that
            were tracked backward; they count as not tracked as well.
        """
        self.edits += 1
        self.states.forget(index)
        self._track.forget(index, withdrawn)

    def continuing(self, predictor: Predictor) -> Predictor:
        """The predictor to track with; stores its settings. A backend "auto" is that of the tracked frames.

        Raises ValueError if frames were tracked with other settings.
        """
        predictor = predictor.continuing(self.settings if self.confidence else None)
        now = predictor.facts()
        any_backend = bool(self.confidence) and predictor.settings.auto_backend
        differ = differences(self.settings or {}, now, any_backend)
        if self.settings is not None and self.confidence and differ:
            names, began = {"weights": "other weights"}, comparable(self.settings)
            words = [names.get(key, f"{key:.40} {began.get(key)!s:.40}") for key in differ]
            raise ValueError(f"this project was begun with {', '.join(words)}; start the page with these")
        if differ:
            self.states.forget(-1)
            self._write(settings=now)
        return predictor

    def _write(self, **changes: Any) -> None:
        """Write project.json with changed attributes, then set the attributes."""
        now = {one.name: getattr(self, one.name) for one in fields(Facts)}
        write_facts(self._files, Facts(**(now | changes)))
        for name, value in changes.items():
            setattr(self, name, value)


def areas_of(mask: IdMask) -> dict[int, int]:
    """{id: number of pixels} of a mask."""
    counts = np.bincount(mask.ravel())
    return {int(id): int(counts[id]) for id in np.flatnonzero(counts) if id}
