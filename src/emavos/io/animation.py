"""Small moving pictures, for previews: GIF and animated WebP."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from emavos.io.images import PathLike, Pixels
from emavos.io.whole import replacing

_MOST_FRAMES = 240  # more are thinned out, so that memory and file stay small
_FASTEST = 15.0  # pictures per second


class AnimationWriter:
    """Writes a preview of a video, a GIF or an animated WebP that repeats.

    The file appears, or is replaced, if the `with` block ends without an error. Frames are shrunk. Frames are
    skipped if there are more than 15 per second, or more than 240.

    path: file to write, named .gif or .webp.
    fps: frames per second of the frames that are written, from 0.01 to 1000.
    longest: side of the pictures in pixels, at most.

    >>> with AnimationWriter("preview.gif", fps=25) as preview:
    ...     for frame, result in zip(frames, results):
    ...         preview.write(result.overlay(frame))
    """

    def __init__(self, path: PathLike, fps: float, longest: int = 480) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in (".gif", ".webp"):
            raise ValueError(f"{path} is not named .gif or .webp, the moving pictures that are written")
        if not 0.01 <= fps <= 1000:
            raise ValueError(f"fps is from 0.01 to 1000, not {fps}")
        if not isinstance(longest, int) or not 16 <= longest <= 8192:
            raise ValueError(f"longest is a whole number of pixels from 16 to 8192, not {longest!r:.40}")
        self._fps, self._longest = fps, longest
        self._step = max(1, round(fps / _FASTEST + 0.49))
        self._count = 0
        self._size: tuple[int, int] | None = None
        self._pictures: list[Image.Image] = []

    def write(self, frame: Pixels) -> None:
        """Add a frame, (H, W, 3) uint8 with the size of the first frame."""
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"a frame is (H, W, 3) of uint8, not {frame.shape} of {frame.dtype}")
        size = frame.shape[0], frame.shape[1]
        self._size = self._size or size
        if size != self._size:
            now, began = ("x".join(map(str, sides)) for sides in (size, self._size))
            raise ValueError(f"frame is {now} but the preview began with {began} (height x width); resize it")
        if self._count % self._step == 0:
            picture = Image.fromarray(frame)
            picture.thumbnail((self._longest, self._longest), Image.Resampling.BOX, reducing_gap=None)
            if self.path.suffix.lower() == ".gif":  # a palette that keeps the colour of a small object
                picture = picture.quantize(256, Image.Quantize.FASTOCTREE)
            self._pictures.append(picture)
            if len(self._pictures) > _MOST_FRAMES:
                self._pictures, self._step = self._pictures[::2], 2 * self._step
        self._count += 1

    def close(self) -> None:
        """Write the file."""
        if not self._pictures:
            raise ValueError(f"{self.path} has no frames")
        shown = max(20, 10 * round(100 * self._step / self._fps))  # milliseconds; GIF counts in tens
        kind = self.path.suffix[1:].upper()
        options = {"method": 4, "quality": 75} if kind == "WEBP" else {}
        first, *others = self._pictures
        with replacing(self.path) as partial, partial.open("wb") as file:
            first.save(
                file, kind, save_all=True, append_images=others, duration=min(shown, 65000), loop=0, **options
            )

    def __enter__(self) -> AnimationWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
