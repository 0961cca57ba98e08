"""Edits of the open project. An edit raises Outdated if the page shows an earlier state."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from emavos.clicks import Clicked
from emavos.io import IdMask
from emavos.ui.project import Project
from emavos.ui.switches import Switches
from emavos.ui.table import Table


class Editing(Table):
    """The part of the desk that changes masks, objects and strokes."""

    def give(
        self, index: int, mask: IdMask, key: str | None = None, tag: str | None = None
    ) -> tuple[int, ...]:
        """Like `Project.give`. Raises Busy and Outdated.

        index: number of the frame.
        mask: (H, W) of ids.
        key: key of the project shown by the page.
        tag: tag of the mask before painting.
        """
        return self.give_tagged(index, mask, key, tag)[0]

    def give_tagged(
        self, index: int, mask: IdMask, key: str | None = None, tag: str | None = None
    ) -> tuple[tuple[int, ...], str]:
        """Like `give`; also returns the tag of the mask as it was given, before another window changes it."""
        with self._changing(index, key, tag) as project:
            ids = project.give(index, mask)
            given = self.tag(index)
        self.mended(project, index)
        return ids, given

    def take_back(self, index: int, key: str | None = None, tag: str | None = None) -> None:
        """Like `Project.take_back`. Raises Busy and Outdated."""
        with self._changing(index, key, tag) as project:
            project.take_back(index)

    def remove(self, id: int, key: str | None = None, edits: int | None = None) -> None:
        """Like `Project.remove`. Raises Busy and Outdated.

        id: id of the object.
        key: key of the project shown by the page.
        edits: value of `edits` in the `state` shown by the page.
        """
        with self._changing(None, key, None, edits) as project:
            project.remove(id)

    def rename(self, id: int, label: str, key: str | None = None) -> None:
        """Like `Project.rename`. Raises Busy and Outdated.

        key: key of the project shown by the page.
        """
        with self._changing(None, key, None) as project:
            project.rename(id, label)

    def switch(self, switches: Switches, key: str | None = None) -> None:
        """Like `Project.switch`, also while a job works on the project. Raises Outdated.

        key: key of the project shown by the page.
        """
        with self._lock:
            self.check_key(key)
            self.the_project().switch(switches)

    def undo(self, key: str | None = None, edits: int | None = None) -> tuple[str, int]:
        """Like `Project.undo`. Raises Busy and Outdated; arguments as for `remove`."""
        with self._changing(None, key, None, edits) as project:
            return project.undo()

    def redo(self, key: str | None = None, edits: int | None = None) -> tuple[str, int]:
        """Like `Project.redo`. Raises Busy and Outdated; arguments as for `remove`."""
        with self._changing(None, key, None, edits) as project:
            return project.redo()

    def save_draft(
        self, index: int, mask: IdMask | None, key: str | None = None, tag: str | None = None
    ) -> None:
        """Like `Project.save_draft`. Raises Busy and Outdated; other arguments as for `give`."""
        with self._changing(index, key, tag) as project:
            project.save_draft(index, mask)
        if mask is not None:
            self.mended(project, index)

    def mended(self, project: Project, index: int) -> None:
        """Prepare to track from a frame whose mask a person mends, or is about to."""
        if self.queue.now is None:
            self.run_up.begin(project, index)

    def look(self, index: int) -> None:
        """Encode ahead the frames that a click and the first steps of tracking need.

        index: frame that a person looks at.
        """
        project = self.the_project()
        if self.clicker.problem is None:
            self.clicker.look((project, index), lambda: project.frame(index))
        for one in project.next_to_track(index):
            if self.queue.now is None and self.project is project:  # another clip may be shown by now
                self.ahead.encoded((project, one), partial(project.frame, one))

    def click(
        self,
        index: int,
        points: Sequence[tuple[float, float]],
        labels: Sequence[int],
        box: Sequence[float] | None = None,
        before: IdMask | None = None,
    ) -> Clicked:
        """The mask of one object of a frame, as `Clicker.click` finds it; nothing is stored."""
        project = self.the_project()
        if self.clicker.problem is not None:
            raise ValueError(self.clicker.problem)
        return self.clicker.click((project, index), lambda: project.frame(index), points, labels, box, before)
