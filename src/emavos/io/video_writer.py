"""Write videos with PyAV (extra `video`): mp4 for players, mov with transparency for editors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emavos.io.ffmpeg import SAFE, import_av
from emavos.io.images import PathLike, Pixels
from emavos.io.notices import notice
from emavos.io.sound import CODECS, Sound, codec_of, packets
from emavos.io.whole import claim, named_as, release, sweep

# errors of the disk, not of the encoder
_DISK = (errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EROFS)


class VideoWriter:
    """Writes frames to an mp4 (H.264) or a mov (ProRes 4444), extra `video`.

    The file appears, or is replaced, if the `with` block ends without an error; otherwise nothing remains. An
    odd side of an mp4 gets an extra row or column, a copy of the last, because H.264 halves the resolution of
    colours.

    path: file to write, named .mp4 or .mov.
    fps: frames per second, from 0.01 to 1000.
    sound: copied into the file without encoding, such as `open_frames("video.mp4").sound`. Sound that is
        damaged, or of a codec that the file cannot have, is left out with an `InputWarning`.
    pixel_aspect: width of a pixel over its height, such as `open_frames("video.mp4").pixel_aspect`; None:
        pixels are square.

    >>> with VideoWriter("overlay.mp4", fps=25) as video:
    ...     for frame in frames:  # (H, W, 3) of uint8
    ...         video.write(frame)
    """

    def __init__(
        self,
        path: PathLike,
        fps: float,
        sound: Sound | None = None,
        *,
        pixel_aspect: float | Fraction | None = None,
    ) -> None:
        self.path = Path(path)
        self._kind = self.path.suffix.lower()
        if self._kind not in CODECS:
            raise ValueError(f"{path} is not named .mp4 or .mov, the kinds of video that are written")
        if not 0.01 <= fps <= 1000:
            raise ValueError(f"fps is from 0.01 to 1000, not {fps}")
        if pixel_aspect is not None and not 0.01 <= pixel_aspect <= 100:
            raise ValueError(f"pixel_aspect is from 0.01 to 100, not {pixel_aspect}")
        self._av = import_av(f"writing {path}")
        self._rate = Fraction(fps).limit_denominator(1001)
        self._pixel_aspect = None if pixel_aspect is None else Fraction(pixel_aspect).limit_denominator(1001)
        self._partial: tuple[Path, int | None] | None = None
        self._container: Any = None
        self._closed = False
        self._shape: tuple[int, ...] | None = None  # (H, W, 3 or 4) of the frames
        self._sound = None if sound is None else _SoundCopy(sound, self.path)
        self._count = 0

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame of the size of the first frame.

        frame: (H, W, 3) uint8; or for a mov (H, W, 4) uint8. The last of four channels is the opacity, not
            multiplied into the colours.
        """
        if frame.ndim != 3 or frame.shape[2] not in (3, 4) or frame.dtype != np.uint8:
            raise ValueError(f"a frame is (H, W, 3) of uint8, not {frame.shape} of {frame.dtype}")
        if frame.shape[2] == 4 and self._kind == ".mp4":
            raise ValueError("an mp4 has no transparency; name the file .mov")
        height, width = frame.shape[:2]
        pad = (height % 2, width % 2) if self._kind == ".mp4" else (0, 0)
        if self._shape is None:
            self._shape = frame.shape
            with self._explained():
                self._begin(height + pad[0], width + pad[1])
        elif frame.shape != self._shape:
            began = "x".join(map(str, self._shape[:2]))
            raise ValueError(f"frame is {height}x{width} but the video began with {began}; resize it")
        even = np.pad(frame, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
        layout = "rgb24" if frame.shape[2] == 3 else "rgba"
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format=layout)
        if self._kind == ".mov":
            picture = picture.reformat(
                format=self._stream.pix_fmt,
                dst_colorspace="ITU709",
                src_color_range="JPEG",
                dst_color_range="MPEG",
            )
            picture.pts, picture.time_base = self._count, 1 / self._rate
        with self._explained():
            self._container.mux(self._stream.encode(picture))
            self._count += 1
            if self._sound is not None:
                self._sound.write(self._container, float(self._count / self._rate))

    def _begin(self, height: int, width: int) -> None:
        sweep(self.path.parent, self.path.name)
        with named_as(self.path):
            partial, _ = self._partial = claim(self.path.parent, self.path.name)
        options = {"movflags": "faststart"}  # index first, so that browsers play while loading
        self._container = self._av.open(str(partial), "w", format=self._kind[1:], options=options)
        if self._kind == ".mp4":
            self._add_h264(height, width)
        else:
            self._add_prores(height, width)
        if self._pixel_aspect is not None:
            self._stream.codec_context.sample_aspect_ratio = self._pixel_aspect
        if self._sound is not None:
            self._sound.begin(self._container)

    def _add_h264(self, height: int, width: int) -> None:
        encoder = "libx264" if "libx264" in self._av.codecs_available else "h264"
        self._stream = self._container.add_stream(encoder, rate=self._rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        if encoder == "libx264":
            # x264's macroblock tree reads uninitialised memory; without it, equal frames give equal bytes
            self._stream.options = {"crf": "18", "x264-params": "mbtree=0"}

    def _add_prores(self, height: int, width: int) -> None:
        self._stream = self._container.add_stream("prores_ks", rate=self._rate)
        self._stream.width, self._stream.height = width, height
        assert self._shape is not None
        self._stream.pix_fmt = "yuva444p10le" if self._shape[2] == 4 else "yuv444p10le"
        self._stream.options = {"profile": "4444", "vendor": "apl0"}
        context = self._stream.codec_context
        context.color_range, context.colorspace = 1, 1  # as limited range, BT.709
        context.color_primaries, context.color_trc = 1, 1

    def close(self) -> None:
        """Finish the file and move it into place, if not done yet."""
        if self._closed:
            return
        if self._container is None or self._partial is None:
            raise ValueError(f"{self.path} has no frames")
        with self._explained():
            self._container.mux(self._stream.encode())
            self._container.close()
        with named_as(self.path):
            os.replace(self._partial[0], self.path)
        self._closed = True
        self.abort()  # only releases the lock here

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of the encoder or the disk into messages for the user."""
        try:
            yield
        except MemoryError:
            raise
        except self._av.FFmpegError as error:
            if error.errno in _DISK:
                raise OSError(error.errno, os.strerror(error.errno), os.fspath(self.path)) from error
            size = "" if self._shape is None else " of {}x{} (height x width)".format(*self._shape)
            codec = "H.264" if self._kind == ".mp4" else "ProRes"
            raise ValueError(
                f"{self.path.name} cannot be written as {codec} with frames{size}: {error.strerror}; "
                "write images instead, or smaller frames"
            ) from error

    def abort(self) -> None:
        """Stop and remove the unfinished file."""
        if self._container is not None:
            with suppress(Exception):  # the trailer of a file to be removed
                self._container.close()
        if self._sound is not None:
            self._sound.close()
        if self._partial is not None:
            release(*self._partial)
            self._partial = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.abort()


class _SoundCopy:
    """Copies packets of sound beside the frames of a video that is written.

    sound: to copy.
    path: of the video, for warnings.
    """

    def __init__(self, sound: Sound, path: Path) -> None:
        self._sound, self._path = sound, path
        self._av = import_av(f"the sound of {sound.path}")
        self._source: Any = None
        self._packets: Iterator[tuple[float, Any]] = iter(())
        self._next: tuple[float, Any] | None = None

    def begin(self, container: Any) -> None:
        """Add a stream of sound to a container, before its first packet."""
        try:
            place = f"file:{os.path.abspath(self._sound.path)}"
            self._source = self._av.open(place, options=dict(SAFE), metadata_errors="replace")
        except self._av.FFmpegError as error:
            self._tell(f"{self._sound.path} could not be opened again: {error.strerror}")
            return
        stream = self._source.streams.best("audio")
        if stream is None:
            return
        codec = codec_of(stream)
        if codec not in CODECS[self._path.suffix.lower()]:
            self._tell(f"{codec or 'an unknown codec'} cannot be copied into it")
            return
        self._stream = container.add_stream_from_template(stream)
        self._packets = packets(self._sound, self._source, stream)
        self._advance()

    def write(self, container: Any, until: float) -> None:
        """Copy the packets before `until`, in seconds."""
        while self._next is not None and self._next[0] < until:
            packet = self._next[1]
            packet.stream = self._stream
            container.mux(packet)
            self._advance()

    def _advance(self) -> None:
        try:
            self._next = next(self._packets, None)
        except self._av.FFmpegError as error:
            self._next = None
            self._tell(f"that of {self._sound.path} is damaged: {error.strerror}", "only a part of its sound")

    def _tell(self, why: str, what: str = "no sound") -> None:
        notice(f"{self._path.name} has {what}: {why}", stacklevel=6)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None


def write_video(path: PathLike, frames: Iterable[Pixels], fps: float) -> None:
    """Write frames, (H, W, 3) uint8 of equal size, as an mp4. See `VideoWriter`."""
    with VideoWriter(path, fps) as video:
        for frame in frames:
            video.write(frame)
