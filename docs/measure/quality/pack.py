"""Pack training data small enough to send to a machine with a GPU.

    python docs/measure/quality/pack.py --data TRAIN --out PACK

Images (JPEG or WebP) and masks (palette PNG) get a short side of 256. From clips, every second annotated
frame is packed; still images fill the remaining room. Folders and names stay the same, so `emavos train
--data PACK` works like with TRAIN. Packing the same data again gives the same files.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emavos.data import Clips, StaticImages
from emavos.data.static import read_still_mask
from emavos.io import IdMask, Pixels, palette, read_frame, read_mask
from emavos.io.whole import partial_folder

CLIPS, STILLS = ("clips", "more/clips"), ("static", "more/static")
LIMIT = 44.0  # MiB; about 60 with the repository
MIB = 2**20


@dataclass(frozen=True)
class Format:
    """A format of images, with the filter that makes them smaller."""

    suffix: str
    options: dict[str, Any]
    resampling: Image.Resampling


FORMATS = {
    "jpeg": Format(".jpg", {"optimize": True}, Image.Resampling.BILINEAR),
    "webp": Format(".webp", {"method": 5}, Image.Resampling.LANCZOS),  # a third smaller, and slower to write
}


@dataclass(frozen=True)
class Look:
    """How images are encoded."""

    short_side: int = 256  # in pixels
    quality: int = 50
    format: str = "jpeg"  # a name in FORMATS


@dataclass(frozen=True, eq=False)
class Pair:
    """An image and its mask, as encoded files."""

    source: str  # a name in CLIPS or STILLS
    image: Path  # relative to the data
    encoded: bytes
    mask: Path
    png: bytes

    @property
    def size(self) -> int:
        """Size of both files in bytes."""
        return len(self.encoded) + len(self.png)


def pack(
    data: Path,
    out: Path,
    look: Look | None = None,
    of_stills: Look | None = None,
    *,
    step: int = 2,
    limit: float = LIMIT,
) -> list[Pair]:
    """Write the pack and return its contents.

    data: training data.
    out: folder to create.
    look: how images are encoded.
    of_stills: how still images are encoded, if not like frames of clips.
    step: pack every `step`-th annotated frame of a clip.
    limit: total size in MiB. Still images, evenly spread, fill the room left by the clips.

    Raises ValueError if `out` exists, `data` has no data sets, or the clips exceed the limit.
    """
    if out.exists():
        raise ValueError(f"{out} exists; choose another folder")
    look = look or Look()
    clips = [encoded(data, look, *files) for files in _clips(data, step)]
    stills = [encoded(data, of_stills or look, *files) for files in _stills(data)]
    if not clips and not stills:
        raise ValueError(f"{data} holds none of {', '.join(CLIPS + STILLS)}")
    room = limit * MIB - sum(pair.size for pair in clips)
    if room < 0:
        raise ValueError(
            f"the clips take {limit - room / MIB:.1f} MiB of {limit:g}; raise --step or lower --quality"
        )
    chosen = clips + [stills[i] for i in spread([pair.size for pair in stills], room)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with partial_folder(out.parent, out.name) as stage:
        for pair in chosen:
            for path, content in ((pair.image, pair.encoded), (pair.mask, pair.png)):
                (stage / path).parent.mkdir(parents=True, exist_ok=True)
                (stage / path).write_bytes(content)
        stage.rename(out)
    return chosen


def spread(sizes: Sequence[int], room: float) -> list[int]:
    """Indices of as many items as fit, evenly spread over all items."""
    for percent in range(100, 0, -1):
        share = percent / 100
        chosen = [i for i in range(len(sizes)) if floor((i + 1) * share) > floor(i * share)]
        if sum(sizes[i] for i in chosen) <= room:
            return chosen
    return []


def encoded(data: Path, look: Look, source: str, image: Path, mask: Path, ids: IdMask) -> Pair:
    """An image and its mask (H, W) of ids, reduced and encoded."""
    form = FORMATS[look.format]
    pixels, ids = _shrunk(read_frame(image), ids, look.short_side, form.resampling)
    file, png = BytesIO(), BytesIO()
    Image.fromarray(pixels).save(file, look.format, quality=look.quality, **form.options)
    picture = Image.fromarray(ids.astype(np.uint8))
    # a full palette would be half of such a file
    picture.putpalette(palette()[: int(ids.max()) + 1].tobytes())
    picture.save(png, "PNG", optimize=True)
    name = image.relative_to(data).with_suffix(form.suffix)
    return Pair(source, name, file.getvalue(), mask.relative_to(data), png.getvalue())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="TRAIN", help="training data")
    parser.add_argument("--out", type=Path, required=True, metavar="PACK", help="folder to make")
    parser.add_argument("--short-side", type=int, default=256, metavar="N", help="in pixels (256)")
    parser.add_argument("--quality", type=int, default=50, metavar="N", help="of images (50)")
    parser.add_argument("--still-side", type=int, metavar="N", help="--short-side of still images")
    parser.add_argument("--still-quality", type=int, metavar="N", help="--quality of still images")
    parser.add_argument("--format", choices=FORMATS, default="jpeg", help="of images (jpeg)")
    parser.add_argument("--step", type=int, default=2, metavar="N", help="every N-th frame of a clip (2)")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="MIB", help=f"of all files ({LIMIT:g})")
    args = parser.parse_args(argv)
    look = Look(args.short_side, args.quality, args.format)
    of_stills = Look(args.still_side or args.short_side, args.still_quality or args.quality, args.format)
    try:
        pairs = pack(args.data, args.out, look, of_stills, step=args.step, limit=args.limit)
    except ValueError as error:
        parser.error(str(error))
    for source in CLIPS + STILLS:
        sizes = [pair.size for pair in pairs if pair.source == source]
        if sizes:
            print(f"{source}: {len(sizes)} images, {sum(sizes) / MIB:.1f} MiB")
    print(f"{args.out}: {sum(pair.size for pair in pairs) / MIB:.1f} MiB")


Files = tuple[str, Path, Path, IdMask]  # source, image, mask, ids


def _clips(data: Path, step: int) -> Iterator[Files]:
    for source in CLIPS:
        if (data / source).is_dir():
            clips = Clips(data / source)
            for video in range(len(clips)):
                for image in clips.frames(video)[::step]:
                    mask = clips.mask_of(image)
                    yield source, image, mask, read_mask(mask)


def _stills(data: Path) -> Iterator[Files]:
    for source in STILLS:
        if (data / source).is_dir():
            stills = StaticImages(data / source)
            for image, mask in zip(stills.images, stills.masks, strict=True):
                yield source, image, mask, read_still_mask(mask)


def _shrunk(
    pixels: Pixels, ids: IdMask, short_side: int, resampling: Image.Resampling
) -> tuple[Pixels, IdMask]:
    """A picture and its ids, reduced to a short side of `short_side` if larger."""
    height, width = ids.shape
    scale = short_side / min(height, width)
    if scale >= 1:
        return pixels, ids
    size = (round(width * scale), round(height * scale))
    small = Image.fromarray(pixels).resize(size, resampling)
    mask = Image.fromarray(ids.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return np.asarray(small), np.asarray(mask).astype(np.int32)


if __name__ == "__main__":
    main()
