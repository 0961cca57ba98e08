"""What a method must beat: the given masks, unmoved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from emavos.io import IdMask


@dataclass(frozen=True)
class Copy:
    """The answer of `CopyFirstMask`: mask (H, W) of ids."""

    mask: IdMask


class CopyFirstMask:
    """Follows nothing: every frame has the masks that were given, each where it was given.

    Used in place of a `Session`. Objects that come later take their pixels from the others.
    """

    def __init__(self) -> None:
        self._mask: IdMask | None = None

    def step(self, frame: Any, mask: Any = None) -> Copy:
        """The masks given up to this frame. frame: (H, W, 3). mask: (H, W) of ids, or None."""
        if self._mask is None:
            self._mask = np.zeros(frame.shape[:2], dtype=np.int32)
        if mask is not None:
            self._mask = np.where(mask != 0, mask, self._mask)
        return Copy(self._mask)
