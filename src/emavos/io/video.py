"""Videos and cameras in, mp4 out, by PyAV (extra `video`)."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from emavos.io.images import MAX_PIXELS, PathLike, check_file
from emavos.io.source import FrameSource
from emavos.io.whole import claim, named_as, release, sweep
from emavos.pictures import Pixels

_DISK = (errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EROFS)  # what is no fault of the encoder
# Containers that hold what they play. Playlists (HLS, concat) name other files, which FFmpeg would open.
_CONTAINERS = (
    "3g2,3gp,apng,asf,av1,avi,dv,flv,gif,h264,hevc,ivf,m4a,m4v,matroska,mj2,mjpeg,mov,mp4,mpeg,mpegts,mpegvideo,"
    "mxf,nut,obu,ogg,rm,webm,yuv4mpegpipe"
)
_LIMIT = {"max_pixels": str(MAX_PIXELS)}  # of what a frame itself declares
_SAFE = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", **_LIMIT}
_NO_VIDEO = "is no video, or is cut off: no frames could be read"


class VideoSource(FrameSource):
    """A file that PyAV decodes, upright, frame by frame."""

    stored = True

    def __init__(self, path: Path) -> None:
        self._av = _import_av(f"reading {path}")
        self.path = path
        with self._open() as container:
            stream = container.streams.video[0]
            self.count = stream.frames or None
            self.fps = float(stream.average_rate) if stream.average_rate else None

    def __iter__(self) -> Iterator[Pixels]:
        read, end, broken, size = 0, 0.0, False, None
        with self._open() as container:
            pictures = container.streams.video[0]
            pictures.thread_type = "AUTO"
            try:
                for packet in container.demux():  # sound too: the end of a file may be that of its sound
                    if packet.pts is not None:
                        end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                    if packet.stream.index == pictures.index:
                        broken = packet.is_corrupt if packet.size else broken
                        for frame in packet.decode():
                            pixels = _upright(frame)
                            self._check_size(pixels, size, read)
                            size = pixels.shape
                            yield pixels
                            read += 1
            except self._av.FFmpegError as error:
                if read:
                    raise self._truncated(read) from error
                raise ValueError(
                    f"{self.path} is damaged, or its frames declare more than {MAX_PIXELS} pixels: none "
                    "could be read"
                ) from error
            if not read:
                raise ValueError(f"{self.path} {_NO_VIDEO}")
            declared = _declared_end(container)
            if broken or end < declared - min(0.1 * declared, 1.0):  # containers round, and count pauses
                raise self._truncated(read)

    def size(self) -> tuple[int, int] | None:
        with suppress(ValueError):  # said when the frames are read
            for frame in self:
                return frame.shape[0], frame.shape[1]
        return None

    def _open(self) -> Any:
        check_file(self.path, "a video")
        try:  # by a path that cannot be taken for an address, such as concat:a.mp4
            container = self._av.open(f"file:{os.path.abspath(self.path)}", options=dict(_SAFE))
        except self._av.FFmpegError as error:
            raise ValueError(f"{self.path} {_NO_VIDEO} ({error.strerror})") from error
        if not container.streams.video:
            kinds = ", ".join(sorted({stream.type for stream in container.streams}))
            container.close()
            held = f"is no video: it holds {kinds} alone" if kinds else _NO_VIDEO
            raise ValueError(f"{self.path} {held}")
        stream = container.streams.video[0]
        width, height = stream.width, stream.height
        if width * height > MAX_PIXELS:
            container.close()
            raise ValueError(
                f"{self.path} declares {height}x{width} (height x width), beyond {MAX_PIXELS} pixels"
            )
        stream.codec_context.options = dict(_LIMIT)
        return container

    def _check_size(self, frame: Pixels, size: tuple[int, ...] | None, index: int) -> None:
        if size is not None and frame.shape != size:
            now, began = (f"{shape[0]}x{shape[1]}" for shape in (frame.shape, size))
            raise ValueError(
                f"{self.path} changes its size: frame {index} is {now} but it began with {began} (height x "
                "width); convert it to one size, or cut it there"
            )

    def _truncated(self, read: int) -> ValueError:
        declared = f" of {self.count}" if self.count else ""
        return ValueError(f"{self.path} is damaged or cut off: {read}{declared} frames could be read")


class CameraSource(FrameSource):
    """A live device. Its frames are those of now: a second loop over it begins anew."""

    def __init__(self, name: str) -> None:
        self._av = _import_av(f"camera {name}")
        self._name = name

    def __iter__(self) -> Iterator[Pixels]:
        kind, device = "v4l2", f"/dev/video{self._name}" if self._name.isdecimal() else self._name
        if sys.platform == "darwin":
            kind, device = "avfoundation", self._name
        elif sys.platform == "win32":
            kind, device = "dshow", f"video={self._name}"
        try:
            container = self._av.open(device, format=kind)
        except (self._av.FFmpegError, ValueError) as error:  # ValueError: this PyAV was built without it
            raise ValueError(f"camera {self._name} cannot be opened as {kind} {device}: {error}") from error
        with container:
            yield from map(_upright, container.decode(video=0))


class VideoWriter:
    """Writes frames to an mp4 (H.264, extra `video`) as they come.

    The file appears, or is replaced, when the `with` block ends well; otherwise nothing is left behind. An
    odd side gets one more pixel, a copy of its last, because the format halves the resolution of colours.

    >>> with VideoWriter("overlay.mp4", fps=25) as video:
    ...     for frame in frames:  # (H, W, 3) of uint8
    ...         video.write(frame)
    """

    def __init__(self, path: PathLike, fps: float) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise ValueError(f"{path} is not named .mp4, which is the one kind of video written")
        if not 0.01 <= fps <= 1000:
            raise ValueError(f"fps is from 0.01 to 1000, not {fps}")
        self._av = _import_av(f"writing {path}")
        self._rate = Fraction(fps).limit_denominator(1001)
        self._partial: tuple[Path, int | None] | None = None
        self._container: Any = None
        self._closed = False
        self._size: tuple[int, int] | None = None  # of the frames

    def write(self, frame: Pixels) -> None:
        """Add a frame, (H, W, 3) of uint8, of the size of the first."""
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"a frame is (H, W, 3) of uint8, not {frame.shape} of {frame.dtype}")
        height, width = size = frame.shape[:2]
        if self._size is None:
            self._size = size
            with self._explained():
                self._begin(height + height % 2, width + width % 2)
        elif size != self._size:
            began = "x".join(map(str, self._size))
            raise ValueError(f"frame is {height}x{width} but the video began with {began}; resize it")
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        with self._explained():
            self._container.mux(self._stream.encode(picture))

    def _begin(self, height: int, width: int) -> None:
        sweep(self.path.parent, self.path.name)
        with named_as(self.path):
            partial, _ = self._partial = claim(self.path.parent, self.path.name)
        options = {"movflags": "faststart"}  # the index first, so that a browser plays while it loads
        self._container = self._av.open(str(partial), "w", format="mp4", options=options)
        encoder = "libx264" if "libx264" in self._av.codecs_available else "h264"
        self._stream = self._container.add_stream(encoder, rate=self._rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        if encoder == "libx264":
            # x264's macroblock tree reads what nobody wrote: without it, equal frames give equal bytes
            self._stream.options = {"crf": "18", "x264-params": "mbtree=0"}

    def close(self) -> None:
        """Finish the file and put it in its place, unless that was done."""
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
        self.abort()  # nothing is left to remove; it lets go of the lock

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the encoder or the disk does not take, in words."""
        try:
            yield
        except self._av.FFmpegError as error:
            if error.errno in _DISK:
                raise OSError(error.errno, os.strerror(error.errno), os.fspath(self.path)) from error
            size = "" if self._size is None else " of {}x{} (height x width)".format(*self._size)
            raise ValueError(
                f"{self.path.name} cannot be written as H.264 with frames{size}: {error.strerror}; "
                "write images instead, or smaller frames"
            ) from error

    def abort(self) -> None:
        """Give up, and leave nothing behind."""
        if self._container is not None:
            with suppress(Exception):  # the trailer of a file that goes anyway
                self._container.close()
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


def write_video(path: PathLike, frames: Iterable[Pixels], fps: float) -> None:
    """Write frames, (H, W, 3) of uint8 and of one size, as an mp4; see `VideoWriter`."""
    with VideoWriter(path, fps) as video:
        for frame in frames:
            video.write(frame)


def _import_av(purpose: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError(f'{purpose} needs PyAV: pip install "emavos[video]"') from error
    return av


def _upright(frame: Any) -> Pixels:
    """A decoded frame as RGB, turned as its container says it was filmed."""
    pixels: Pixels = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # counterclockwise; older PyAV does not say
    return np.ascontiguousarray(np.rot90(pixels, turns))


def _declared_end(container: Any) -> float:
    """Seconds at which a file says that it ends; 0 for the kinds where that is a guess from its size."""
    if container.duration is None or not {"mp4", "matroska"} & set(container.format.name.split(",")):
        return 0.0
    return float(container.duration + (container.start_time or 0)) / 1e6
