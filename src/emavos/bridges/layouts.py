"""Clips of data sets laid out as DAVIS or YouTube-VOS, ready to be followed."""

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
    masks: Mapping[int, IdMask]  # by the index of a frame, the objects (H, W) that begin there

    def frames(self) -> Iterator[Pixels]:
        """The frames (H, W, 3) of uint8, read as they are asked for."""
        return map(read_frame, self.images)


def read_layout(
    data: PathLike, protocol: str = "davis-like", names: Sequence[str] | None = None
) -> Iterator[Clip]:
    """The clips of a data set in order, with the masks that its protocol gives away.

    protocol: a name of `emavos.evaluation.PROTOCOLS`: "davis-like" takes any folder of JPEGImages and
        Annotations, and the first mask of each; "youtube-vos-2019" the objects of each annotation that are
        new in it. names: these sequences alone.

    Raises ValueError that names the protocol, folder, list or sequence that is not there.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"there is no protocol {protocol}; the protocols are {', '.join(PROTOCOLS)}")
    for video in find_videos(data, PROTOCOLS[protocol], names):
        frames = [*video.introductions()]
        masks = {index: mask for index, (_, mask) in enumerate(frames) if mask is not None}
        yield Clip(video.name, tuple(path for path, _ in frames), masks)
