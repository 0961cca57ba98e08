"""Frames in any order, of sources that can be read again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from emavos.io.source import FrameSource, Reel
from emavos.io.spool import Spool


@contextmanager
def open_reel(source: FrameSource) -> Iterator[Reel]:
    """The frames of a source in any order, while the block runs.

    Those of a folder or a sequence are read where they are. A video file is decoded once into a temporary
    file, without loss: half its size in 8-bit RGB or so, which is 3 bytes a pixel.

    Raises ValueError for a camera and any other stream, whose frames come once.
    """
    reel = source.reel()
    if reel is None and source.stored:
        with Spool() as spool:
            for frame in source:
                spool.append(frame)
            yield spool
        return
    if reel is None:
        raise ValueError(
            "the frames are a stream, which comes once and in its order; going backward takes a folder, a "
            "video file or a list"
        )
    yield reel
