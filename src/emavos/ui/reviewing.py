"""The next frame to fix, for the page."""

from __future__ import annotations

from emavos.confidence.expected import ObjectState
from emavos.review import suggest
from emavos.ui.project import Project

_COUNT = 8  # suggestions that are shown


def suggestions(project: Project) -> list[dict[str, object]]:
    """The frames to fix, the most useful first, in JSON: frame, object, confidence, first, last and reason.

    Raises ValueError if no frame is tracked.
    """
    sure = dict(project.confidence)  # a copy, as tracking adds entries meanwhile
    if not sure:
        raise ValueError("no frame is tracked yet: press Track, then look for frames to fix")
    states = [_states(project, index, sure.get(index, {})) for index in range(max(sure) + 1)]
    return [
        {
            "frame": one.frame,
            "object": one.object,
            "confidence": round(one.confidence, 3),
            "first": one.first,
            "last": one.last,
            "reason": one.reason,
        }
        for one in (suggest(states, _COUNT) if any(states) else [])
        if one.frame not in project.given
    ]


def _states(project: Project, index: int, sure: dict[int, float]) -> dict[int, ObjectState]:
    if not sure:
        return {}
    areas = project.areas(index)
    return {id: ObjectState(areas.get(id, 0) > 0, of, areas.get(id, 0)) for id, of in sure.items()}
