"""A baseline for every method: the given masks copied unchanged to later frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from emavos.io import IdMask


@dataclass(frozen=True)
class Copy:
    """The result of one `CopyFirstMask` step: mask (H, W) of ids."""

    mask: IdMask


class CopyFirstMask:
    """A baseline that tracks nothing: each given mask stays in place in all later frames.

    Use an instance instead of a `Session`. Objects added later overwrite the pixels of earlier objects.
    """

    def __init__(self) -> None:
        self._mask: IdMask | None = None

    def step(self, frame: Any, mask: Any = None) -> Copy:
        """Returns the union of all masks given so far.

        frame: (H, W, 3), used only for its size.
        mask: (H, W) of ids, or None.
        """
        if self._mask is None:
            self._mask = np.zeros(frame.shape[:2], dtype=np.int32)
        if mask is not None:
            self._mask = np.where(mask != 0, mask, self._mask)
        return Copy(self._mask)
