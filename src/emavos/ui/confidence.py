"""How sure a result is of each of its objects."""

from __future__ import annotations

from emavos.session import Result


def confidence(result: Result) -> dict[int, float]:
    """{id: number in [0, 1]}: the mean probability of an object inside its mask; 0 where it has none."""
    sure = {}
    for place, id in enumerate(result.ids, start=1):
        inside = result.prob[place].cpu().numpy()[result.mask == id]
        sure[id] = round(float(inside.mean()), 4) if inside.size else 0.0
    return sure
