"""Results as `supervision.Detections`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from emavos.machine import how_to_install

if TYPE_CHECKING:
    from emavos.session import Result


def to_detections(result: Result) -> Any:
    """The visible objects of a frame as `supervision.Detections` (extra `supervision`).

    `tracker_id` are the ids, `mask` the binary masks (O, H, W), `xyxy` their boxes, and `confidence` the mean
    probability of their pixels. `class_id` is 0, since objects have no class.
    """
    try:
        import supervision
    except ImportError as error:
        raise ImportError(f"to_detections needs supervision: {how_to_install('supervision')}") from error
    seen = [place for place, id in enumerate(result.ids) if (result.mask == id).any()]
    ids = np.array([result.ids[place] for place in seen], dtype=np.int64)
    planes = result.mask == ids.reshape(-1, 1, 1)  # (O, H, W)
    prob = result.prob[1:][seen].cpu().numpy()
    if not len(ids):
        return supervision.Detections(
            xyxy=np.empty((0, 4)),
            mask=planes,
            confidence=np.empty(0),
            class_id=np.empty(0, dtype=np.int64),
            tracker_id=ids,
        )
    return supervision.Detections(
        xyxy=supervision.mask_to_xyxy(planes).astype(np.float64),
        mask=planes,
        confidence=np.array([float(p[m].mean()) for p, m in zip(prob, planes, strict=True)]),
        class_id=np.zeros(len(ids), dtype=np.int64),
        tracker_id=ids,
    )
