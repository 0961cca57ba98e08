"""Read videos and cameras with PyAV (extra `video`)."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from emavos.io.addresses import without_secrets
from emavos.io.containers import Broken, declares_duration, gaps_in_ts, is_cut, is_fragmented
from emavos.io.ffmpeg import LIMIT, SAFE, import_av
from emavos.io.images import MAX_PIXELS, Pixels, check_file, pixels_of
from emavos.io.notices import notice, noting
from emavos.io.sound import Sound
from emavos.io.source import FrameSource

_ENDLESS = ("dv", "h264", "hevc", "mpeg", "mpegvideo", "nut")  # raw streams; NUT and MPEG without their ends
_CUT, _DAMAGED = "ends before the end that it declares", "is damaged"
OnDamage = Literal["stop", "skip", "hold"]
_BROKEN = "has a damaged part, from which frames may be missing"
_STREAMED = "rtsp,rtsps,rtp,srtp,tcp,udp,tls"  # protocols within a stream
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_LONGEST_PAUSE = 10.0  # seconds between frames
_PATIENCE = 20.0  # seconds to wait for a stream
_MOST_LISTED = 20  # runs of damaged frames in a message
_ATTACHED_PICTURE = 0x400  # among the dispositions of FFmpeg
_BAND = 1 << 20  # pixels that are blended at a time
_NO_VIDEO = "is not a video, or is cut off: no frames could be read"


class VideoSource(FrameSource):
    """A video file decoded by PyAV; yields upright frames.

    path: video file.
    on_damage: "stop" raises ValueError at the first damaged or missing frame, and at the end of a truncated
        file. "hold" returns the last good frame instead of a damaged one (at the beginning, the first good
        frame). "skip" does the same for `WithoutDamaged`. All name the damaged frames: "stop" in its error,
        the others in an `InputWarning` after the last frame.
    """

    stored = True

    def __init__(self, path: Path, on_damage: OnDamage = "stop") -> None:
        if on_damage not in get_args(OnDamage):
            raise ValueError(f"on_damage is one of {', '.join(get_args(OnDamage))}, not {on_damage!r:.40}")
        self._av = import_av(f"reading {path}")
        self._on_damage = on_damage
        self._damaged = set[int]()  # indices of the frames that were read and are damaged
        self._told = (0, "")  # number of damaged frames, and fault of the end, in the last note
        self._cut = False  # whether the file was found to end early
        self.holds = on_damage == "hold"
        self.path = path
        with self._open() as container:
            stream = self._stream(container)
            self.count = stream.frames or None
            listed = "mp4" in container.format.name.split(",")
        if listed and is_fragmented(path):
            self.count, listed = None, False
        self.exact = listed
        self.sound = Sound(path)

    @cached_property
    def fps(self) -> float | None:  # type: ignore[override]
        """Frames per second, on average.

        The index of an mp4 has it. Other containers declare a rate or none, and a recording of a screen or a
        browser declares up to 1000. So packets are counted, which reads the file once. Files that were joined
        are counted piece by piece, because their times may start again or jump.
        """
        gaps, lasts, decoded_at = 0, 0.0, None
        count, first, last = 0, inf, -inf  # of one piece
        with self._open() as container, suppress(self._av.FFmpegError):
            stream = self._stream(container)
            declared = float(stream.average_rate) if stream.average_rate else None
            # FFmpeg guesses times of decoding where none are stored, and guesses may go back a little
            stored = container.format.name in ("mpeg", "mpegts")
            for packet in () if self.exact else container.demux(stream):
                if packet.pts is None or not packet.size:
                    continue
                at = float(packet.pts * packet.time_base)
                now = at if packet.dts is None else float(packet.dts * packet.time_base)
                back = 0.0 if stored else _LONGEST_PAUSE
                if decoded_at is not None and not -back <= now - decoded_at < _LONGEST_PAUSE:
                    gaps, lasts = gaps + count - 1, lasts + last - first
                    count, first, last = 0, inf, -inf
                decoded_at = now
                count, first, last = count + 1, min(first, at), max(last, at)
        if count:
            gaps, lasts = gaps + count - 1, lasts + last - first
        if not gaps or not lasts:
            return declared
        if declared and any(abs(declared * fields * lasts - gaps) < 2 for fields in (1, 2)):
            return declared  # more exact than times in milliseconds; a packet may be a field, half a frame
        return gaps / lasts

    @cached_property
    def pixel_aspect(self) -> Fraction | None:
        with self._open() as container, suppress(self._av.FFmpegError):
            stream = self._stream(container)
            aspect: Fraction | None = stream.sample_aspect_ratio
            if not aspect or aspect == 1 or not 0.01 <= aspect <= 100:  # damaged if beyond
                return None
            for frame in container.decode(stream):
                return 1 / aspect if _is_on_its_side(_matrix_of(frame)) else aspect
        return None

    def __iter__(self) -> Iterator[Pixels]:
        how = yield from self._frames()
        self.tell_damage(how)

    def _frames(self) -> Generator[Pixels, None, str]:
        """The frames; returns the fault of the end, if any."""
        index, early, last, how = 0, 0, None, ""
        for pixels, fault in self._pictures(exact=self._on_damage != "stop"):
            if fault and self._on_damage == "stop":
                raise self._stopped(index, fault)
            if fault not in ("", _DAMAGED):  # reported at the end
                self._cut = True
                how = f"after {index} frames it {fault}"
                break
            if fault:
                self._damaged.add(index + early)
            else:
                assert pixels is not None
                self._check_size(pixels, None if last is None else last.shape, index + early)
                last = pixels
            if last is None:
                early += 1
                continue
            for _ in range(early + 1):
                yield last
                index += 1
            early = 0
        if not index:
            raise ValueError(f"{self.path} {_NO_VIDEO}")
        return how

    def tell_damage(self, how: str = "") -> None:
        damage = (len(self._damaged), how or self._told[1])
        if damage == self._told:
            return
        self._told = damage
        way = "left out" if self._on_damage == "skip" else "replaced by the last good frame before each"
        which = [f"{_listed(sorted(self._damaged))} damaged and {way}"] * bool(self._damaged)
        notice(f"{self.path}: {'; '.join([*which, *([how] * bool(how))])}", stacklevel=3)

    def is_damaged(self, index: int) -> bool:
        return index in self._damaged

    @property
    def damaged(self) -> bool:
        return self._cut or bool(self._damaged)

    def _pictures(self, exact: bool) -> Iterator[tuple[Pixels | None, str]]:
        """Yield each frame (None if it cannot be decoded) with its fault, if any; `_CUT` at the end.

        exact: whether to go on after a frame that cannot be decoded, and to yield its fault in its place.
        """
        read, ends = 0, _Ends()
        with self._open() as container:
            stream = self._stream(container)
            # with frame threads, errors appear some frames late; with slice threads, H.264 conceals them
            stream.thread_type = "NONE" if exact else "AUTO"
            decode = self._decoder(stream)
            packets = container.demux()  # audio too, as it may end after the video
            while True:
                packet = None
                try:
                    packet = next(packets, None)
                    if packet is None:
                        break
                    ends.add(packet)
                    if packet.stream.index != stream.index:
                        continue
                    if packet.size:
                        ends.asked(packet)
                    for frame in decode(packet):
                        ends.shown(frame)
                        yield _upright(frame), _DAMAGED if frame.is_corrupt else ""
                        read += 1
                except self._av.FFmpegError as error:
                    if error.errno == errno.ENOMEM and _memory_ran_out():
                        raise MemoryError(f"{self.path}: no memory for a frame") from error
                    if exact and packet is not None:
                        yield None, _DAMAGED
                        ends.failed()
                        continue
                    if read and exact:
                        yield None, "cannot be read further"
                        return
                    if read:
                        raise self._stopped(read, _DAMAGED) from error
                    raise ValueError(
                        f"{self.path} is damaged, or its frames declare more than {MAX_PIXELS} pixels: none "
                        "could be read"
                    ) from error
            kind, codec, number = container.format.name, stream.codec_context.name, stream.id
            declared = _declared_end(container, self.path)
        if not read:
            raise ValueError(f"{self.path} {_NO_VIDEO}")
        fault, note = self._judged(ends, kind, codec, number, declared)
        if fault:
            yield None, fault
        elif note:
            notice(note, stacklevel=3)

    def _judged(self, ends: _Ends, kind: str, codec: str, number: int, declared: float) -> tuple[str, str]:
        """The fault of a video whose last frame was read, and a note about its end; each "" without one.

        kind, codec, number: of the container, and of its stream.
        declared: end of the video in seconds, as the container says.
        """
        try:
            cut = is_cut(self.path, kind, ends.place)
        except Broken:
            return _BROKEN, ""
        # containers round durations, and include pauses
        short = ends.last < declared - min(0.1 * declared, 1.0)
        if ends.broken or cut or (cut is None and short):
            return _CUT, ""
        if codec in ("h264", "hevc") and ends.missing > 0:
            return f"lacks {ends.missing} frames that its decoder passed over", ""
        gaps = gaps_in_ts(self.path, number) if kind == "mpegts" else []
        if lost := ends.lost([place for place, _ in gaps]):
            return f"lacks packets and, by the times of its frames, {lost} frame{'s' * (lost > 1)}", ""
        if gaps := [gap for gap in gaps if not gap[1]]:  # the others may be joints
            places = "one place" if len(gaps) == 1 else f"{len(gaps)} places"
            return "", f"{self.path}: packets are missing at {places}, and frames may be missing as well"
        if short:
            how = f"says that it lasts {declared:.1f} s, but its frames end at {ends.last:.1f} s"
            return "", f"{self.path} {how}"
        if cut is None and kind in _ENDLESS:
            how = "does not say where it ends; if it was cut, frames are missing"
            return "", f"{self.path}: a file of this kind ({kind}) {how}"
        return "", ""

    def size(self) -> tuple[int, int] | None:
        with suppress(ValueError):  # reported when the frames are read
            for frame in self._frames():
                return frame.shape[0], frame.shape[1]
        return None

    def _open(self) -> Any:
        check_file(self.path, "a video")
        try:  # with "file:", so that no path is read as a URL such as concat:a.mp4
            container = self._av.open(
                f"file:{os.path.abspath(self.path)}", options=dict(SAFE), metadata_errors="replace"
            )
        except self._av.FFmpegError as error:  # PyAV's MemoryError is one too
            if error.errno != errno.ENOMEM:
                raise ValueError(f"{self.path} {_NO_VIDEO} ({error.strerror})") from error
            if _memory_ran_out():
                raise
            raise ValueError(f"{self.path} is damaged: it declares more than FFmpeg can read") from error
        try:
            stream = self._stream(container)
            width, height = stream.width, stream.height
            if width * height > MAX_PIXELS:
                raise ValueError(
                    f"{self.path} declares {height}x{width} (height x width), beyond {MAX_PIXELS} pixels"
                )
            stream.codec_context.options = dict(LIMIT)
        except ValueError:
            container.close()
            raise
        return container

    def _stream(self, container: Any) -> Any:
        """The stream shown by players: FFmpeg's best video stream, without cover pictures."""
        streams = [stream for stream in container.streams.video if not _is_cover(stream)]
        if not streams:
            kinds = ", ".join(
                sorted({"a picture" if s.type == "video" else str(s.type) for s in container.streams})
            )
            held = f"is not a video: it has only {kinds}" if kinds else _NO_VIDEO
            raise ValueError(f"{self.path} {held}")
        usable = [stream for stream in streams if stream.codec_context is not None]
        if not usable:
            raise ValueError(
                f"{self.path} is of a codec that this PyAV cannot decode; convert it to H.264, or to images"
            )
        best = container.streams.best("video")
        return next(
            (stream for stream in usable if best is not None and stream.index == best.index), usable[0]
        )

    def _decoder(self, stream: Any) -> Callable[[Any], Any]:
        """Decodes a packet of the stream, with transparency, which FFmpeg's own VP8 and VP9 decoders skip."""
        if stream.metadata.get("alpha_mode") != "1" or stream.codec_context.name not in _WITH_ALPHA:
            return lambda packet: packet.decode()
        try:
            decoder = self._av.CodecContext.create(_WITH_ALPHA[stream.codec_context.name], "r")
        except ValueError:
            notice(f"{self.path}: this PyAV cannot read its transparency; all of it is opaque", stacklevel=4)
            return lambda packet: packet.decode()
        decoder.extradata = stream.codec_context.extradata
        decoder.options, decoder.thread_type = dict(LIMIT), stream.thread_type
        return lambda packet: decoder.decode(packet if packet.size else None)

    def _check_size(self, frame: Pixels, size: tuple[int, ...] | None, index: int) -> None:
        if size is not None and frame.shape != size:
            now, began = (f"{shape[0]}x{shape[1]}" for shape in (frame.shape, size))
            raise ValueError(
                f"{self.path} changes its size: frame {index} is {now} but it began with {began} (height x "
                "width); convert it to one size, or cut it there"
            )

    def _stopped(self, read: int, fault: str) -> ValueError:
        """The error of a video that is damaged after some frames. The rest is decoded to list all damage."""
        damaged, how = list[int](), fault if fault != _DAMAGED else ""
        with suppress(ValueError), noting():
            for index, (_, other) in enumerate(self._pictures(exact=True)):
                if other == _DAMAGED:
                    damaged.append(index)
                elif other:
                    how = other
        if not damaged and fault == _DAMAGED:
            damaged = [read]
        read, declared = (damaged or [read])[0], f" of {self.count}" if self.count else ""
        why = " and ".join([f"{_listed(damaged)} damaged"] * bool(damaged) + [f"it {how}"] * bool(how))
        return ValueError(
            f"{self.path} is damaged or cut off: {read}{declared} frames could be read ({why}); to track "
            "all that can be read, use --on-damage hold or skip, or on_damage= of open_frames"
        )


def _listed(numbers: Sequence[int]) -> str:
    """The frames as a subject: "frame 7 is", "frames 7, 9 to 12 are"."""
    runs = list[list[int]]()
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    first = runs[:_MOST_LISTED]
    shown = ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in first)
    if rest := len(numbers) - sum(map(len, first)):
        shown += f" and {rest} more"
    return f"frame {shown} is" if len(numbers) == 1 else f"frames {shown} are"


class _Ends:
    """Tracks the end of a video in seconds, and the number of frames skipped by the decoder."""

    def __init__(self) -> None:
        self.last = 0.0
        self.broken = False  # whether the last packet is
        self.place: int | None = None  # in the file, after the last packet
        self._first: int | None = None  # pts of the first frame; earlier packets cannot be decoded alone
        self._early: list[int] = []
        self._asked = self._shown = self._failed = 0
        self._interlaced = False
        self._places, self._times = array("q"), array("q")  # of packets: in the file, and when to decode them
        self._unit = 0.0  # of the times, in seconds

    def add(self, packet: Any) -> None:
        if packet.pts is not None:
            self.last = max(self.last, float((packet.pts + (packet.duration or 0)) * packet.time_base))

    def asked(self, packet: Any) -> None:
        self.broken = packet.is_corrupt
        self.place = None if packet.pos is None else packet.pos + packet.size
        if packet.dts is not None and packet.pos is not None:
            self._places.append(packet.pos)
            self._times.append(packet.dts)
            self._unit = float(packet.time_base)
        if packet.is_discard:
            return
        if self._first is None and packet.pts is not None:
            self._early.append(packet.pts)
        elif packet.pts is None or self._first is None or packet.pts >= self._first:
            self._asked += 1

    def shown(self, frame: Any) -> None:
        if self._first is None:
            self._first = 0 if frame.pts is None else frame.pts
            self._asked += sum(pts >= self._first for pts in self._early)
        self._shown += 1
        self._interlaced |= bool(frame.interlaced_frame)

    def failed(self) -> None:
        """Count a packet that could not be decoded, whose fault is known."""
        self._failed += 1

    def lost(self, gaps: Sequence[int]) -> int:
        """The number of frames that fit into the pauses at these places of the file.

        A step longer than 1.7 usual ones is a pause, because some films alternate between 1 and 1.5. A pause
        of more than 10 s is an edit.
        """
        steps = np.diff(np.array(self._times))
        if not len(gaps) or not (steps > 0).any():
            return 0
        lengths, counts = np.unique(steps[steps > 0], return_counts=True)
        usual = lengths[counts.argmax()]
        # FFmpeg's place of a packet may be its time code of 4 bytes before the mark
        after = np.unique(np.searchsorted(self._places, np.array(gaps) - 8))
        pauses = steps[after[(after > 0) & (after <= len(steps))] - 1]
        pauses = pauses[(1.7 * usual < pauses) & (pauses * self._unit < _LONGEST_PAUSE)]
        return int((np.rint(pauses / usual) - 1).sum())

    @property
    def missing(self) -> int:
        """The number of other packets without a frame; 0 if interlaced, as two may form one frame."""
        return 0 if self._interlaced else self._asked - self._shown - self._failed


class CameraSource(FrameSource):
    """A live camera. Frames are current: a second loop starts again at the present."""

    live = True

    def __init__(self, name: str) -> None:
        self._av = import_av(f"camera {name}")
        self._name = name

    def __iter__(self) -> Iterator[Pixels]:
        kind, device = "v4l2", f"/dev/video{self._name}" if self._name.isdecimal() else self._name
        if sys.platform == "darwin":
            kind, device = "avfoundation", self._name
        elif sys.platform == "win32":
            kind, device = "dshow", f"video={self._name}"
        try:
            container = self._av.open(device, format=kind)
        # ValueError: this PyAV was built without the device
        except (self._av.FFmpegError, ValueError) as error:
            raise ValueError(f"camera {self._name} cannot be opened as {kind} {device}: {error}") from error
        yield from _decoded(self._av, container, f"camera {self._name}")


class StreamSource(FrameSource):
    """A live stream of the network, rtsp:// or rtsps://. A second loop starts again at the present."""

    live = True

    def __init__(self, address: str) -> None:
        self._av = import_av("a stream")
        self._address = address

    def __iter__(self) -> Iterator[Pixels]:
        options = {"rtsp_transport": "tcp", "protocol_whitelist": _STREAMED, **LIMIT}
        try:
            container = self._av.open(self._address, format="rtsp", options=options, timeout=_PATIENCE)
        except (self._av.FFmpegError, ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ValueError(f"stream {without_secrets(self._address)} cannot be opened: {reason}") from error
        yield from _decoded(self._av, container, f"stream {without_secrets(self._address)}")


def _decoded(av: Any, container: Any, what: str) -> Iterator[Pixels]:
    """The frames of a live source. Raises ValueError that names the source if it breaks off."""
    read = 0
    with container:
        if not container.streams.video:
            raise ValueError(f"{what} has no picture")
        frames = container.decode(video=0)
        while True:
            try:
                frame = next(frames, None)
                pixels = None if frame is None else _upright(frame)
            except (av.FFmpegError, OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise ValueError(f"{what} broke off after {read} frames: {reason}") from error
            if pixels is None:
                return
            yield pixels
            read += 1


def _memory_ran_out() -> bool:
    """Whether the system has no memory, after FFmpeg said so.

    FFmpeg says the same of sizes above its own limit of 2 GiB, which only damaged files declare.
    """
    try:
        mmap.mmap(-1, 1 << 31).close()  # reserved, but not used
    except (OSError, ValueError, OverflowError):
        return True
    return False


def _is_cover(stream: Any) -> bool:
    disposition = getattr(stream, "disposition", 0)  # a flag of Python; some versions are no integers
    return bool(getattr(disposition, "value", disposition) & _ATTACHED_PICTURE)


def _upright(frame: Any) -> Pixels:
    """A decoded frame as RGB, rotated and mirrored like players do, with transparent parts on black."""
    if frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components):
        pixels = _over_black(frame if frame.format.name == "bgra" else frame.reformat(format="rgba"))
    else:
        pixels = frame.to_ndarray(format="rgb24")
    a, b, c, d = matrix = _matrix_of(frame)
    if _is_on_its_side(matrix):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _matrix_of(frame: Any) -> tuple[int, int, int, int]:
    """How a frame is turned and mirrored for display: a, b, c, d of x' = a x + c y, y' = b x + d y."""
    from av.sidedata.sidedata import SideDataContainer

    # `frame.side_data` makes a cycle, so that frames would stay in memory until the garbage collector runs
    side_data_of: Any = SideDataContainer  # PyAV's types lack its argument
    matrix = side_data_of(frame).get("DISPLAYMATRIX")
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = struct.unpack_from("=9i", bytes(matrix))
    return a, b, c, d


def _is_on_its_side(matrix: tuple[int, int, int, int]) -> bool:
    """Whether a matrix turns by 90 degrees, either way."""
    a, b, c, d = matrix
    return abs(a) + abs(d) < abs(b) + abs(c)


def _over_black(frame: Any) -> Pixels:
    """A frame of RGBA or BGRA as RGB over black, like `pixels_of`, in bands of rows to save memory."""
    order, plane, height, width = frame.format.name.upper(), frame.planes[0], frame.height, frame.width
    content, stride = memoryview(plane), plane.line_size
    pixels = np.empty((height, width, 3), np.uint8)
    step = max(1, _BAND // width)
    for top in range(0, height, step):
        size = width, min(step, height - top)
        rows = content[top * stride : (top + size[1]) * stride]
        pixels[top : top + step] = pixels_of(Image.frombytes("RGBA", size, rows, "raw", order, stride))
    return pixels


def _declared_end(container: Any, path: Path) -> float:
    """The declared end of a file in seconds; 0 for formats whose end is only estimated from the file size."""
    names = container.format.name.split(",")
    if container.duration is None or not {"matroska", "mp4", "mxf"} & set(names):
        return 0.0
    if "matroska" in names and not declares_duration(path):
        return 0.0
    begin = (
        0 if "matroska" in names else container.start_time or 0
    )  # Matroska's duration counts from 0, not from its start
    return float(container.duration + begin) / 1e6
