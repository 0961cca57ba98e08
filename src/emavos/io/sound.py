"""The sound track of a video file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# sound that players expect, by the ending of a video
CODECS = {
    ".mp4": ("aac", "ac3", "alac", "eac3", "flac", "mp2", "mp3", "opus"),
    ".mov": ("aac", "ac3", "alac", "mp3", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le"),
}


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


def codec_of(stream: Any) -> str | None:
    """The name of a stream's codec; None if FFmpeg does not know the codec."""
    return None if stream.codec_context is None else stream.codec_context.codec.canonical_name


def packets(sound: Sound, container: Any, stream: Any) -> Iterator[tuple[float, Any]]:
    """Yield (seconds after `sound.begin`, packet) of a stream of the opened `sound.path`.

    sound: part to read.
    container, stream: of PyAV, opened by the caller.
    """
    videos = container.streams.video
    start = float(videos[0].start_time * videos[0].time_base) if videos and videos[0].start_time else 0.0
    ticks = round((start + sound.begin) / stream.time_base)
    before, lasts = None, 0
    for packet in container.demux(stream):
        if packet.pts is None or packet.dts is None or packet.size == 0:
            continue
        packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
        lasts = packet.pts - before if before is not None else lasts
        before = packet.pts
        packet.duration = packet.duration or max(lasts, 0)  # an mp4 does not play a last packet of length 0
        at = float(packet.pts * stream.time_base)
        if sound.end is not None and at >= sound.end - sound.begin:
            return
        if packet.dts >= 0:
            yield at, packet
