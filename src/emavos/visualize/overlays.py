"""Frames with their objects in colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emavos.io import IdMask, Pixels
from emavos.io.ids import colour


def overlay(
    frame: Pixels,
    mask: IdMask,
    ids: Sequence[int] | None = None,
    alpha: float = 0.5,
    contour: bool = True,
) -> Pixels:
    """The frame with its objects in colour: (H, W, 3) uint8.

    frame: (H, W, 3) uint8.
    mask: (H, W) of ids. An id has the same colour in all frames and videos.
    ids: the objects to show; None shows all.
    alpha: opacity of the colour, from 0 to 1.
    contour: whether to outline each object, inside its border.
    """
    if frame.shape != (*mask.shape, 3):
        have, want = ("x".join(map(str, x.shape[:2])) for x in (mask, frame))
        raise ValueError(f"mask is {have} but frame is {want} (height x width); resize one of them")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is from 0 to 1, not {alpha}")
    present, indices = np.unique(mask, return_inverse=True)
    indices = indices.reshape(mask.shape)
    shown = np.array([i != 0 and (ids is None or i in ids) for i in present.tolist()], dtype=bool)
    colours = np.array([colour(i) for i in present.tolist()], dtype=np.float32)  # (ids, 3)
    paint, weight = colours[indices], (alpha * shown).astype(np.float32)[indices]
    if contour:
        lines = _contours(indices, max(1, round(min(mask.shape) / 240))) & shown[indices]
        paint[lines] += 0.3 * (255 - paint[lines])
        weight[lines] = 1
    return np.rint(frame + weight[..., None] * (paint - frame)).astype(np.uint8)


def cut_out(frame: Pixels, matte: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The frame with an opacity, (H, W, 4) uint8: red, green, blue, opacity.

    frame: (H, W, 3) uint8.
    matte: (H, W) in [0, 1], such as `result.matte()`.

    Colours are not multiplied by the opacity, and are black if it is 0.
    """
    if frame.shape != (*matte.shape, 3):
        have, want = ("x".join(map(str, x.shape[:2])) for x in (matte, frame))
        raise ValueError(f"matte is {have} but frame is {want} (height x width); resize one of them")
    alpha = np.rint(matte * 255).astype(np.uint8)[..., None]
    return np.concatenate([frame * (alpha > 0), alpha], axis=2)


def _contours(indices: NDArray[Any], width: int) -> NDArray[np.bool_]:
    """Pixels within `width` of another object. The border of the image is not a contour."""
    edge = np.zeros(indices.shape, dtype=bool)
    for distance in range(1, width + 1):
        for near, far in (
            (np.s_[distance:], np.s_[:-distance]),
            (np.s_[:, distance:], np.s_[:, :-distance]),
        ):
            differs = indices[near] != indices[far]
            edge[near] |= differs
            edge[far] |= differs
    return edge
