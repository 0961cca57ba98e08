"""The sound track of a video file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sound:
    """The sound track that belongs to the frames of a video file.

    path: video file.
    begin, end: the part of the video in seconds after its first frame; None: up to the end.
    """

    path: Path
    begin: float = 0.0
    end: float | None = None

    def part(self, begin: float, end: float | None) -> Sound:
        """The same sound from `begin` to `end`, in seconds after the beginning of this part."""
        ends = [x for x in (self.end, None if end is None else self.begin + end) if x is not None]
        return replace(self, begin=self.begin + begin, end=min(ends, default=None))


def packets(sound: Sound, container: Any, stream: Any) -> Iterator[tuple[float, Any]]:
    """Yield (seconds after `sound.begin`, packet) of a stream of the opened `sound.path`.

    sound: part to read.
    container, stream: of PyAV, opened by the caller.
    """
    videos = container.streams.video
    start = float(videos[0].start_time * videos[0].time_base) if videos and videos[0].start_time else 0.0
    ticks = round((start + sound.begin) / stream.time_base)
    for packet in container.demux(stream):
        if packet.pts is None or packet.dts is None or packet.size == 0:
            continue
        packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
        at = float(packet.pts * stream.time_base)
        if sound.end is not None and at >= sound.end - sound.begin:
            return
        if packet.dts >= 0:
            yield at, packet
