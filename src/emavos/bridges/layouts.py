"""Clips of data sets in the layout of DAVIS or YouTube-VOS, ready to track."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emavos.evaluation import PROTOCOLS, find_videos
from emavos.io import IdMask, Pixels, read_frame
from emavos.io.images import PathLike


@dataclass(frozen=True)
class Clip:
    """A sequence of a data set, for `predictor.propagate(clip.frames(), clip.masks)`."""

    name: str
    images: tuple[Path, ...]
    masks: Mapping[int, IdMask]  # by frame index: (H, W) of the objects that begin there

    def frames(self) -> Iterator[Pixels]:
        """Yield the frames (H, W, 3) uint8, read on demand."""
        return map(read_frame, self.images)


def read_layout(
    data: PathLike, protocol: str = "davis-like", names: Sequence[str] | None = None
) -> Iterator[Clip]:
    """Yield the clips of a data set in order, with the given masks of the protocol.

    data: folder of the data set.
    protocol: name in `emavos.evaluation.PROTOCOLS`. "davis-like" accepts any folder with JPEGImages and
        Annotations, and gives each clip's first mask. "youtube-vos-2019" gives the new objects of each
        annotation.
    names: sequences to read; None reads all.

    Raises ValueError if the protocol, or a folder, list or sequence does not exist.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"there is no protocol {protocol}; the protocols are {', '.join(PROTOCOLS)}")
    for video in find_videos(data, PROTOCOLS[protocol], names):
        frames = [*video.introductions()]
        masks = {index: mask for index, (_, mask) in enumerate(frames) if mask is not None}
        yield Clip(video.name, tuple(path for path, _ in frames), masks)
