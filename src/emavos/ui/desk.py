"""What the page works on: one predictor, the open project, the list of clips, and the jobs."""

from __future__ import annotations

from typing import Any

from emavos.ui.editing import Editing
from emavos.ui.opening import Opening
from emavos.ui.telling import state_of
from emavos.ui.working import Working


class Desk(Opening, Editing, Working):
    """The state of the page. You can call the methods from several threads.

    Methods that change something accept the state shown by the page, if known: `key` of the project, and
    `tag` of a frame's mask. They raise Outdated if the state has changed since, for example in another tab.

    predictor: tracks the objects.
    folder: folder of the project, opened if a project exists; or folder of all clips, one project per video.
    keeps: whether `folder` belongs to a single project, which has one video. Otherwise opening a video adds a
        clip to `shelf`, and the earlier clips can be opened again.
    again: returns the command that opens a project's folder again, for the page.

    The open project is locked, and so are projects that are being tracked: two processes cannot write to the
    same project. Raises ValueError if another process holds the lock, or if the folder of a single project
    contains anything but a project.
    """

    def warm_up(self) -> None:
        """Compute ahead what the first request and the first job need."""
        self.predictor.facts()
        self.clicker.problem  # noqa: B018, it is kept

    def state(self) -> dict[str, Any]:
        """The state shown on the page, except pictures, masks, confidence and the list of clips."""
        return state_of(self)
