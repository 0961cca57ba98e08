"""The outputs of `emavos segment`: where they may be, and writing a frame to all of them."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emavos.cli.resuming import Progress
    from emavos.cli.staging import Outputs
    from emavos.io import FrameSource, IdMask, Pixels
    from emavos.session import Result

    Matte = NDArray[np.float32]  # (H, W) in [0, 1]

# kinds of files of each option, beside a folder of PNGs
KINDS = {"--overlay": (".mp4", ".gif", ".webp"), "--matte": (".mp4", ".mov"), "--cutout": (".mov",)}
_OTHERS = ("avi", "gif", "jpeg", "jpg", "mkv", "mov", "mp4", "png", "tif", "tiff", "webm", "webp")
_ENDING = re.compile(r"\.[a-z]{1,4}[0-9]{0,2}")  # that of a kind of file


class Written:
    """All outputs of a frame, at the places of the command line.

    If a frame cannot be written, later frames are skipped, so the outputs have no gaps.

    stack: closes the files.
    """

    def __init__(
        self, args: argparse.Namespace, frames: FrameSource, outputs: Outputs, stack: ExitStack
    ) -> None:
        from emavos.bridges import CocoWriter

        self.count = 0  # frames with all of their outputs
        self.folder = outputs.folder(args.out)
        self._outputs = outputs
        self._failed = False
        self._frames = frames
        self._clean: int = args.clean
        self._ids: Sequence[int] | None = args.matte_of
        self._draw = {
            option: stack.enter_context(_writer(path, option, outputs, frames, args.matte_bits))
            for option, path in picture_places(args).items()
            if path is not None
        }
        self._coco = None
        if args.rle is not None:
            self._coco = stack.enter_context(CocoWriter(outputs.file(args.rle, "--rle")))
        self.wants_matte = "--matte" in self._draw or "--cutout" in self._draw

    def matte_of(self, result: Result) -> Matte | None:
        """The opacity to write, if any."""
        tracked = None if self._ids is None else {*self._ids} & {*result.ids}
        return result.matte(tracked) if self.wants_matte else None

    def write(self, name: str, frame: Pixels, raw: IdMask, matte: Matte | None) -> None:
        """Write a frame; `raw` is its mask (H, W) before specks are removed."""
        if self._failed:
            return
        try:
            self._write(name, frame, raw, matte)
        except BaseException:
            self._failed = True
            for folder in self._outputs.folders:
                with suppress(OSError):
                    (folder / f"{name}.png").unlink()
            raise
        self.count += 1

    def after(self, commit: Callable[[], None]) -> None:
        """Call a function, unless a frame could not be written."""
        if not self._failed:
            commit()

    def _write(self, name: str, frame: Pixels, raw: IdMask, matte: Matte | None) -> None:
        import numpy as np

        from emavos.frames import clean_mask
        from emavos.io import write_mask
        from emavos.visualize import cut_out

        mask = clean_mask(raw, self._clean) if self._clean else raw
        write_mask(self.folder / f"{name}.png", mask)
        if matte is not None and self._clean:
            shown = mask != 0 if self._ids is None else np.isin(mask, self._ids)
            matte = np.where(mask == raw, matte, shown.astype(np.float32))
        if matte is not None and "--matte" in self._draw:
            self._draw["--matte"](name, matte)
        if matte is not None and "--cutout" in self._draw:
            self._draw["--cutout"](name, cut_out(frame, matte))
        self._tell(name, frame, mask)

    def repeat(self, progress: Progress) -> None:
        """Write the frames of a stopped run."""
        from emavos.cli.resuming import link
        from emavos.io import read_mask

        for index, frame in zip(range(progress.done), self._frames, strict=False):
            name = self._frames.name(index)
            link(progress.mask(name), self.folder / f"{name}.png")
            self._tell(name, frame, read_mask(progress.mask(name)))
        self.count = progress.done

    def _tell(self, name: str, frame: Pixels, mask: IdMask) -> None:
        from emavos.visualize import overlay

        if "--overlay" in self._draw:
            self._draw["--overlay"](name, overlay(frame, mask))
        if self._coco is not None:
            self._coco.write(name, mask)


def picture_places(args: argparse.Namespace) -> dict[str, Path | None]:
    """Places of the outputs that are pictures, by option."""
    return {"--overlay": args.overlay, "--matte": args.matte, "--cutout": args.cutout}


def check_apart(
    video: str, mask: Path | None, out: Path, others: Mapping[str, Path | None] | None = None
) -> None:
    """Raise ValueError if an output would be written over an input or another output.

    others: outputs beside `out`, by their options.
    """
    if not video:
        raise ValueError("VIDEO is empty; name a folder of images or a video file")
    taken = {_resolved(video): "the video"}
    if mask is not None:
        taken[_resolved(mask)] = "the mask"
    if mask is not None and mask.is_file():
        taken.setdefault(os.path.dirname(_resolved(mask)), "the folder of the mask")
    for name, path in {"--out": out, **(others or {})}.items():
        if path is not None and (other := taken.setdefault(_resolved(path), name)) != name:
            raise ValueError(f"{name} {path} is also {other}; choose another place")


def check_kind(option: str, path: Path | None) -> None:
    """Raise ValueError if the option cannot write a file with the ending of this name.

    A name with an unknown ending, perhaps mistyped, is a folder only if the folder exists.
    """
    kind = "" if path is None else path.suffix.lower()
    if path is None or kind in KINDS[option]:
        return
    message = f"{option} {path} is written as {', '.join(KINDS[option])}, or as a folder of PNGs"
    if kind[1:] in _OTHERS:
        raise ValueError(message)
    if _ENDING.fullmatch(kind) and not path.is_dir():
        raise ValueError(f"{message}, whose name has no ending such as {kind} unless it exists")


@contextmanager
def _writer(
    path: Path, option: str, outputs: Outputs, frames: FrameSource, bits: int
) -> Iterator[Callable[[str, NDArray[Any]], None]]:
    """A function that writes a picture or a matte by the name of its frame, to a file or a folder."""
    from emavos.batch.tracking import FPS
    from emavos.io import AnimationWriter, VideoWriter, write_image, write_matte

    kind = path.suffix.lower()
    if kind not in KINDS[option]:
        folder = outputs.folder(path)
        if option == "--matte":
            yield lambda name, matte: write_matte(folder / f"{name}.png", matte, bits)
        else:
            yield lambda name, frame: write_image(folder / f"{name}.png", frame)
        return
    place = outputs.file(path, option)
    if kind in (".gif", ".webp"):
        with AnimationWriter(place, frames.fps or FPS) as preview:
            yield lambda name, frame: preview.write(frame)
        return
    sound = frames.sound if option == "--overlay" else None
    with VideoWriter(place, frames.fps or FPS, sound, pixel_aspect=frames.pixel_aspect) as video:
        if option == "--matte":
            yield lambda name, matte: video.write(_gray(matte))
        else:
            yield lambda name, frame: video.write(frame)


def _gray(matte: Matte) -> Pixels:
    """A matte (H, W) as a picture (H, W, 3)."""
    import numpy as np

    return np.rint(matte * 255).astype(np.uint8)[..., None].repeat(3, axis=2)


_resolved = os.path.realpath  # Path.resolve raises where links lead in a circle
