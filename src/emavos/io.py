"""Frames and masks of files: folders of images, videos, cameras in; palette PNGs and mp4 out."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

PathLike = str | os.PathLike[str]
Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
IdMask = NDArray[np.int32]  # (H, W), 0 the background

_NO_VIDEO = "is no video, or is cut off: no frames could be read"


class FrameSource:
    """Frames in the order of the video, one in memory at a time, and their names.

    count: how many, where that is known before they are read; a video says what its container declares.
    fps: frames per second, where there is such a thing.
    """

    count: int | None = None
    fps: float | None = None

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError

    def name(self, index: int) -> str:
        """What files about a frame are called: the stem of its image, otherwise its number in five digits."""
        return f"{index:05d}"

    def find(self, name: str) -> int | None:
        """The index of the frame of that name; None where no frame can have it."""
        return int(name) if name.isdecimal() and self.name(int(name)) == name else None


def open_frames(source: PathLike | int | Iterable[Any]) -> FrameSource:
    """The frames of a folder, a video or a camera, (H, W, 3) of uint8, or those of an iterable as they are.

    source: a folder of images, taken in natural order (2.jpg before 10.jpg); a video file (extra `video`);
        a camera, "camera:0" or 0 for the first one on Linux and macOS, "camera:NAME" on Windows, which plays
        until the loop over it ends; or any iterable of frames. Folders and files can be read repeatedly.

    Raises FileNotFoundError where there is no such thing, ValueError where it holds no frames.
    """
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, int):
        return _Camera(str(source))
    if isinstance(source, (str, os.PathLike)):
        if isinstance(source, str) and source.startswith("camera:"):
            return _Camera(source.removeprefix("camera:"))
        path = Path(source)
        if path.is_dir():
            return _Folder(path)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; frames are a folder of images or a video file")
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise ValueError(f"{path} is one image; frames are a folder of images or a video file")
        return _Video(path)
    if isinstance(source, Iterable):
        return _Stream(source)
    raise ValueError(f"frames are a folder, a video, a camera or an iterable, not {type(source).__name__}")


def list_images(folder: PathLike) -> list[Path]:
    """The image files of a folder, in natural order; hidden files and all others are passed over."""
    found = [p for p in Path(folder).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
    if not found:
        raise ValueError(f"{folder} holds no images ({', '.join(sorted(s[1:] for s in IMAGE_SUFFIXES))})")
    return sorted(found, key=_natural)


def read_frame(path: PathLike) -> Pixels:
    """The picture of an image file, (H, W, 3) of uint8, upright, over black where it is transparent."""
    image = _read_image(path)
    if image.mode == "F" or image.mode.startswith("I"):  # convert() would clip 16 bits to 8
        gray = np.array(image)
        if gray.dtype.kind == "f" or gray.min() < 0 or gray.max() > 0xFFFF:
            raise ValueError(f"{path} has 32 bits a channel; save it with 8 or 16")
        gray = ((gray.astype(np.int64) + 128) // 257).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return np.array(image.convert("RGB"))


def read_mask(path: PathLike) -> IdMask:
    """The ids of a mask file, (H, W) int32: palette indices, gray values of 8 or 16 bits, 0 and 1 of 1 bit.

    Raises ValueError where the file holds colours, or the blur of anti-aliasing or of lossy compression,
    rather than ids.
    """
    image = _read_image(path)
    if image.format in ("JPEG", "MPO"):
        raise ValueError(f"{path} is a JPEG, whose compression blurs ids; save the mask as a PNG")
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        mask = np.array(image).astype(np.int32)
        if _looks_antialiased(mask):
            raise ValueError(
                f"{path} looks anti-aliased or compressed: {len(np.unique(mask))} different ids, most of "
                "them on edges alone; draw it without smoothing and save it as a PNG"
            )
        return mask
    pixels = np.array(image.convert("RGBA" if image.has_transparency_data else "RGB")).astype(np.uint32)
    packed = (pixels << (8 * np.arange(pixels.shape[2], dtype=np.uint32))).sum(axis=2)
    colours, indices = np.unique(packed, return_inverse=True)
    if len(colours) > 256 or _looks_antialiased(indices.reshape(packed.shape)):
        raise ValueError(
            f"{path} is an {image.mode} image of {len(colours)} colours that looks anti-aliased or "
            "compressed; a mask holds ids: draw it without smoothing and save it as a palette PNG"
        )
    raise ValueError(
        f"{path} is an {image.mode} mask of {len(colours)} colours; a mask holds ids: save it losslessly as "
        "a palette or gray PNG, one number for each colour and 0 for the background"
    )


def write_mask(path: PathLike, mask: NDArray[Any]) -> None:
    """Write ids (H, W) as a PNG: palette in the colours of DAVIS up to id 255, 16-bit gray up to id 65535.

    The file appears whole or not at all, and equal masks give equal bytes.
    """
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise ValueError(f"a mask is (H, W) of integers, not {mask.shape} of {mask.dtype}")
    low, high = (int(mask.min()), int(mask.max())) if mask.size else (0, 0)
    if low < 0 or high > 0xFFFF:
        raise ValueError(f"id {low if low < 0 else high} has no place in a PNG; ids of files are 0 to 65535")
    image = Image.fromarray(mask.astype(np.uint8 if high <= 0xFF else np.uint16))
    if high <= 0xFF:
        image.putpalette(palette().tobytes())
    write_image(path, image)


def write_image(path: PathLike, image: Image.Image | Pixels) -> None:
    """Write a PNG that appears whole or not at all."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    with _replacing(Path(path)) as partial:
        image.save(partial, format="PNG")


@cache
def palette() -> Pixels:
    """The 256 colours of PASCAL VOC and DAVIS, (256, 3): black, maroon, green, olive, navy, ...

    The bits of an id are dealt to red, green and blue in turn, and fill each from its highest bit.
    """
    ids = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= (((ids >> bit) & 1) << (7 - bit // 3)).astype(np.uint8)
    colours.flags.writeable = False  # one array serves all callers
    return colours


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
        if not 0 < fps < 1000:
            raise ValueError(f"fps is more than 0 and less than 1000, not {fps}")
        self._av = _import_av(f"writing {path}")
        self._rate = Fraction(fps).limit_denominator(1001)
        self._partial = self.path.with_name(_partial_name(self.path))
        self._container: Any = None
        self._size: tuple[int, int] | None = None  # of the frames

    def write(self, frame: Pixels) -> None:
        """Add a frame, (H, W, 3) of uint8, of the size of the first."""
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"a frame is (H, W, 3) of uint8, not {frame.shape} of {frame.dtype}")
        height, width = size = frame.shape[:2]
        if self._size is None:
            self._size = size
            self._begin(height + height % 2, width + width % 2)
        elif size != self._size:
            began = "x".join(map(str, self._size))
            raise ValueError(f"frame is {height}x{width} but the video began with {began}; resize it")
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def _begin(self, height: int, width: int) -> None:
        options = {"movflags": "faststart"}  # the index first, so that a browser plays while it loads
        self._container = self._av.open(str(self._partial), "w", format="mp4", options=options)
        encoder = "libx264" if "libx264" in self._av.codecs_available else "h264"
        self._stream = self._container.add_stream(encoder, rate=self._rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        if encoder == "libx264":
            self._stream.options = {"crf": "18"}

    def close(self) -> None:
        """Finish the file and put it in its place."""
        if self._container is None:
            raise ValueError(f"{self.path} has no frames")
        self._container.mux(self._stream.encode())
        self._container.close()
        os.replace(self._partial, self.path)

    def abort(self) -> None:
        """Give up, and leave nothing behind."""
        if self._container is not None:
            with suppress(Exception):  # the trailer of a file that goes anyway
                self._container.close()
        self._partial.unlink(missing_ok=True)

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


class _Folder(FrameSource):
    """The images of a folder."""

    def __init__(self, folder: Path) -> None:
        self._files = list_images(folder)
        self._indices: dict[str, int] = {}
        for index, file in enumerate(self._files):
            if (first := self._indices.setdefault(file.stem, index)) != index:
                raise ValueError(f"{folder} holds both {self._files[first].name} and {file.name}; keep one")
        self.count = len(self._files)

    def __iter__(self) -> Iterator[Pixels]:
        return map(read_frame, self._files)

    def name(self, index: int) -> str:
        return self._files[index].stem

    def find(self, name: str) -> int | None:
        return self._indices.get(name)


class _Video(FrameSource):
    """A file that PyAV decodes, upright, frame by frame."""

    def __init__(self, path: Path) -> None:
        self._av = _import_av(f"reading {path}")
        self.path = path
        with self._open() as container:
            stream = container.streams.video[0]
            self.count = stream.frames or None
            self.fps = float(stream.average_rate) if stream.average_rate else None

    def __iter__(self) -> Iterator[Pixels]:
        read, end, broken = 0, 0.0, False
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
                            yield _upright(frame)
                            read += 1
            except self._av.FFmpegError as error:
                raise self._truncated(read) from error
            if not read:
                raise ValueError(f"{self.path} {_NO_VIDEO}")
            if broken or end < 0.9 * _declared_end(container):
                raise self._truncated(read)

    def _open(self) -> Any:
        try:
            container = self._av.open(str(self.path))
        except self._av.FFmpegError as error:
            raise ValueError(f"{self.path} {_NO_VIDEO} ({error.strerror})") from error
        if not container.streams.video:
            container.close()
            raise ValueError(f"{self.path} {_NO_VIDEO}")
        return container

    def _truncated(self, read: int) -> ValueError:
        declared = f" of {self.count}" if self.count else ""
        return ValueError(f"{self.path} is damaged or cut off: {read}{declared} frames could be read")


class _Camera(FrameSource):
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


class _Stream(FrameSource):
    """Frames that somebody else makes; whether they are frames is for the session to say."""

    def __init__(self, frames: Iterable[Any]) -> None:
        self._frames = frames
        self.count = len(frames) if isinstance(frames, Sized) else None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._frames)


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Numbers in a name count as numbers; the name itself decides between 1.png and 01.png."""
    parts = re.split(r"([0-9]+)", path.stem.lower())  # text at even places, digits at odd ones
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def _read_image(path: PathLike) -> Image.Image:
    """A whole image in memory, upright, its format remembered."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
            image.format = file.format
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not an image that can be read: {error}") from error
    return image


def _looks_antialiased(mask: NDArray[Any]) -> bool:
    """Many ids, most of which lie on edges alone: no pixel of theirs has its own id on all four sides."""
    ids = _distinct(mask)
    if len(ids) <= 16:
        return False
    centre = mask[1:-1, 1:-1]
    same = (centre == mask[:-2, 1:-1]) & (centre == mask[2:, 1:-1])
    same &= (centre == mask[1:-1, :-2]) & (centre == mask[1:-1, 2:])
    return len(_distinct(centre[same])) < len(ids) / 2


def _distinct(mask: NDArray[Any]) -> NDArray[Any]:
    """`np.unique`, ten times faster for small ids."""
    if mask.size and mask.min() >= 0 and mask.max() < 1 << 16:
        return np.bincount(mask.ravel()).nonzero()[0]
    return np.unique(mask)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; put in its place at the end, or removed on failure."""
    partial = path.with_name(_partial_name(path))
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _partial_name(path: Path) -> str:
    return f".{path.name}.{secrets.token_hex(4)}.partial"


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
