"""What the page shows, in JSON: the project, the job, and the list of clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from emavos.predictor import Predictor
from emavos.ui.adding import Adding
from emavos.ui.clicker import Clicker
from emavos.ui.holding import Holding
from emavos.ui.job import Job
from emavos.ui.project import Project
from emavos.ui.queue import Queue
from emavos.ui.shelf import Shelf


class Shown(Protocol):
    """What is read of a `Desk`."""

    predictor: Predictor
    folder: Path
    keeps: bool
    opened: int
    key: str
    notes: list[str]
    project: Project | None
    shelf: Shelf | None
    clicker: Clicker
    holding: Holding
    queue: Queue
    adding: Adding
    again: Callable[[Path], str]

    def shown_job(self) -> Job | None: ...


def state_of(desk: Shown) -> dict[str, Any]:
    """The state of a desk, except pictures, masks, confidence and the list of clips."""
    project, job, now = desk.project, desk.shown_job(), desk.queue.now
    added = {folder.name for folder in desk.adding.listed()}
    return {
        "device": desk.predictor.device.type,
        "keeps": desk.keeps,
        "opened": desk.opened,
        "key": desk.key,
        "notes": desk.notes,
        "clicks": None if project is None else {"problem": desk.clicker.problem},
        "clips": None if desk.shelf is None else len({*desk.shelf.keys()} | added),
        "failed": desk.adding.failed(),
        "queue": {
            "now": None if now is None or now.folder is None else now.facts | {"clip": now.folder.name},
            "waiting": len(desk.queue.waiting),
        },
        "project": None if project is None else _facts(project, desk),
        "job": None if job is None else job.facts | {"waiting": job in desk.queue.waiting},
    }


def _facts(project: Project, desk: Shown) -> dict[str, Any]:
    return {
        "name": project.name,
        "fps": project.fps,
        "height": project.size[0],
        "width": project.size[1],
        "count": project.count,
        "ids": project.ids,
        "labels": project.labels,
        "switches": asdict(project.switches),
        "given": dict(sorted(project.given.items())),
        "first": project.first,
        "reached": project.reached,
        "tracked": len(project.confidence),
        "made": project.made,
        "outdated": project.outdated,
        "edits": project.edits,
        "undo": project.can_undo,
        "redo": project.can_redo,
        "drafts": sorted(project.drafts),
        "folder": str(project.folder),
        "again": desk.again(project.folder),
    }


def clips_of(desk: Shown) -> list[dict[str, Any]]:
    """The clips of a desk, the last changed first, with what the queue does to each of them.

    Videos that are read, wait to be or could not be come before the clips.
    """
    listed = desk.adding.cards()
    added = {card["key"] for card in listed}
    for clip in [] if desk.shelf is None else desk.shelf.clips(desk.holding.get):
        if clip.key in added:
            continue
        folder = desk.folder / clip.key
        job = desk.queue.of(folder)
        listed.append(
            asdict(clip)
            | {
                "shown": desk.project is not None and desk.project.folder == folder,
                "adding": False,
                "job": None if job is None else job.facts,
                "error": desk.queue.errors.get(folder),
            }
        )
    return listed
