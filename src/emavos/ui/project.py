"""A project of the page: one video with its given masks and tracked masks, in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emavos.io import IdMask, Pixels
from emavos.ui.facts import LARGEST_ID, LONGEST_LABEL, Facts, fit_name
from emavos.ui.record import Record, areas_of
from emavos.ui.switches import Switches, read_switches, write_switches


class Project(Record):
    """A video with its given and tracked masks, all stored in a folder.

    The tracked masks equal `Predictor.propagate` over the frames and given masks of the folder: a mask given
    for frame k changes nothing before k, and frames from k on are tracked again. Memory holds only numbers.
    The folder can be opened again after a kill at any moment.

        project.json     facts about the video, and the objects given on each frame
        frames/          00000.jpg, ...: the frames, as shown and as seen by the network
        sound.mka        the sound of the video, if an mp4 can have it
        given/           the given masks, as painted
        drafts/          strokes that were not kept yet
        masks/           the masks of all frames, palette PNGs; 00000-3.png was tracked after further edits
        soft/            the opacity of all objects on tracked frames, gray PNGs, named as in masks/
        track.jsonl      one line per tracked frame: the confidence of its objects
        switches.json    which objects are hidden, shown alone, or locked
        states/          the session before some frames
        history/         earlier states, to undo edits; the masks they name stay in given/ and masks/

    name: name of the video.
    fps: frames per second, or None.
    size: (H, W) of the frames.
    labels: {id: name of the object}, as far as the user gave names.
    given: {frame: ids given on the frame}.
    confidence: {frame: {id: confidence in [0, 1]}}.
    switches: which objects the page hides, shows alone, or locks.
    """

    def __init__(self, folder: Path, facts: Facts) -> None:
        super().__init__(folder, facts)
        self.drafts = {*self._images.versions("drafts")}
        self.switches = read_switches(self._files)

    @property
    def made(self) -> int:
        """One past the last frame with any mask; masks from `reached` on may be outdated."""
        shown = (index for index in [*self._masks] if self._outdated(index) is not None)
        made = max([*shown, *self.confidence], default=-1) + 1
        return min(max(made, max(self.given, default=-1) + 1), self.count)

    @property
    def outdated(self) -> list[tuple[int, int]]:
        """The frames of kind "outdated", as (first, one past the last) of each run of frames."""
        first = min((frame for frame, ids in [*self.given.items()] if ids), default=self.count)
        runs: list[tuple[int, int]] = []
        for index in sorted(self._masks):
            fresh = index < first or index in self.given or index in self.confidence
            if fresh or self._outdated(index) is None:
                continue
            begin = runs.pop()[0] if runs and runs[-1][1] == index else index
            runs.append((begin, index + 1))
        return runs

    def frame_name(self, index: int) -> str:
        """The stem of files about a frame."""
        return self.names[index] if self.names else f"{index:05d}"

    def frame_bytes(self, index: int) -> bytes:
        """A frame as JPEG bytes."""
        self._check(index)
        return self._images.frame_bytes(index)

    def frame(self, index: int) -> Pixels:
        """A frame, (H, W, 3) uint8."""
        self._check(index)
        return self._images.frame(index)

    def kind(self, index: int) -> str:
        """The kind of a frame's mask: "given", "tracked", "outdated" (by an earlier edit) or "none"."""
        self._check(index)
        if index in self.given:
            return "given"
        if index in self.confidence:
            return "tracked"
        return "none" if self._outdated(index) is None or not self._begun(index) else "outdated"

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
            return self._images.mask("masks", index, self._track.version(index))
        kind = self.kind(index)
        if kind == "given":
            mask = self.given_mask(index)
        elif kind == "outdated":
            mask = self._images.mask("masks", index, self._outdated(index) or 0)
        else:
            return np.zeros(self.size, np.int32)
        return np.where(np.isin(mask, [*self._begun(index)]), mask, 0).astype(np.int32)

    def matte(self, index: int) -> NDArray[np.float32]:
        """The opacity of all objects of a frame, (H, W) in [0, 1], with soft edges if it was tracked."""
        self._check(index)
        tracked = index in self.confidence
        matte = self._images.matte(index, self._track.version(index)) if tracked else None
        return (self.mask(index) > 0).astype(np.float32) if matte is None else matte

    def areas(self, index: int) -> dict[int, int]:
        """{id: number of pixels} of the mask of a tracked frame."""
        key = index, self._track.version(index)
        if key not in self._areas:
            self._areas[key] = areas_of(self.mask(index))
        return self._areas[key]

    def given_mask(self, index: int) -> IdMask:
        """The mask painted for a frame, (H, W), with the tracked objects around those that were given."""
        return self._images.mask("given", index, self.revisions.get(index, 0))

    def given_objects(self, index: int) -> IdMask:
        """The mask given for a frame, (H, W): only the ids given there, not those that were tracked."""
        mask = self.given_mask(index)
        return np.where(np.isin(mask, self.given[index]), mask, 0).astype(np.int32)

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
        """Remove an object and its name from all frames, and turn its switches off.

        Raises ValueError if it was never given.
        """
        named = [index for index, ids in self.given.items() if id in ids]
        if not named:
            raise ValueError(f"object {id} was given on no frame")
        left = {index: tuple(i for i in ids if i != id) for index, ids in self.given.items()}
        given = {index: ids for index, ids in left.items() if ids}
        self._commit(
            f"object {id} removed", min(named), given, {}, {id: self.labels[id]} if id in self.labels else {}
        )
        if (switches := self.switches.without(id)) != self.switches:
            self.switch(switches)

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

    def draft(self, index: int) -> IdMask | None:
        """The mask of a frame with the strokes that were not kept yet; None if there are none."""
        self._check(index)
        if index not in self.drafts:
            return None
        ids, painted = self._images.strokes(index)
        return np.where(painted, ids, self.mask(index)).astype(np.int32)

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
                self._images.remove_strokes(index)
                self.drafts.discard(index)
            return
        self._images.write_strokes(index, mask, painted)
        self.drafts.add(index)

    def switch(self, switches: Switches) -> None:
        """Hide, show alone and lock objects, for the page. Masks and downloads do not depend on these."""
        write_switches(self._files, switches)
        self.switches = switches

    def _check(self, index: int) -> None:
        if not 0 <= index < self.count:
            raise ValueError(f"there is no frame {index}: the video has {self.count}")
