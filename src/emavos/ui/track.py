"""The tracked frames of a project, and the file that lists them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from emavos.ui.facts import whole_in
from emavos.ui.folder import Folder
from emavos.ui.history import Tracked, tracked_of

_FILE = "track.jsonl"


class Track:
    """{frame: Tracked}, stored as one line per frame. Other threads may read while one thread writes.

    files: folder of the project.
    confidence: {frame: {id: confidence in [0, 1]}} of the tracked frames.
    """

    def __init__(self, files: Folder) -> None:
        self._files = files
        self.confidence: dict[int, dict[int, float]] = {}
        self._versions: dict[int, int] = {}  # which file of a frame is meant
        self._back: set[int] = set()  # frames whose masks also depend on masks of later frames
        self._cut = False  # whether the last line of the file may lack its end: a kill, or a full disk

    def version(self, index: int) -> int:
        """The version of a tracked frame's mask."""
        return self._versions.get(index, 0)

    def snapshot(self) -> dict[int, Tracked]:
        return {i: Tracked(sure, self.version(i), i in self._back) for i, sure in self.confidence.items()}

    def read(self, count: int) -> None:
        """Read the file of a project with `count` frames. Raises any parsing error if the file is damaged."""
        if _FILE not in self._files.names():
            return
        lines = self._files.read(_FILE).decode("utf-8").splitlines(keepends=True)
        for line in lines:
            if line.endswith("\n"):  # ignore a line cut off by a kill; the frame is tracked again
                fact = json.loads(line)
                index, tracked = whole_in(fact["frame"], 0, count - 1), tracked_of(fact)
                self._remember(index, tracked)
        self._cut = bool(lines) and not lines[-1].endswith("\n")

    def add(self, index: int, tracked: Tracked) -> None:
        """Add a tracked frame; its mask was written before."""
        if self._cut:
            self._write()
        self._cut = True
        self._files.append(_FILE, _line(index, tracked).encode())
        self._cut = False
        self._remember(index, tracked)

    def forget(self, index: int, withdrawn: bool) -> None:
        """Forget the frames from `index` on.

        withdrawn: whether to forget the earlier frames as well that depend on masks of later ones.
        """
        lost = self._back if withdrawn else set()
        kept = {i: sure for i, sure in self.confidence.items() if i < index and i not in lost}
        before = self.confidence, self._back
        self.confidence, self._back = kept, {i for i in self._back if i in kept}
        try:
            if kept != before[0] or self._files.has(_FILE):
                self._write()
        except BaseException:  # as on a full disk, whose file is as it was
            self.confidence, self._back = before
            raise

    def restore(self, track: Mapping[int, Tracked], versions: Mapping[int, set[int]]) -> None:
        """Add frames that were tracked before, up to the first whose mask is missing.

        versions: {frame: versions of its masks that there are}.
        """
        for index in sorted(track):
            if track[index].version not in versions.get(index, ()):
                break
            self._remember(index, track[index])
        self._write()

    def _remember(self, index: int, tracked: Tracked) -> None:
        self.confidence[index], self._versions[index] = tracked.sure, tracked.version
        (self._back.add if tracked.back else self._back.discard)(index)

    def _write(self) -> None:
        track = self.snapshot()
        lines = [_line(i, track[i]) for i in sorted(track)]
        self._files.write(_FILE, "".join(lines).encode())
        self._cut = False


def _line(index: int, tracked: Tracked) -> str:
    fact: dict[str, Any] = {"frame": index, "sure": tracked.sure}
    fact |= {"version": tracked.version} if tracked.version else {}
    fact |= {"back": True} if tracked.back else {}
    return json.dumps(fact) + "\n"
