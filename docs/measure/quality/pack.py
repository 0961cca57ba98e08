"""Pack training data small enough to send to a machine with a GPU.

    python docs/measure/quality/pack.py --data TRAIN --out PACK

Images (JPEG) and masks (palette PNG) get a short side of 256. From clips, every second annotated frame is
packed; still images fill the remaining room. Folders and names stay the same, so `emavos train --data PACK`
works like with TRAIN. Packing the same data again gives the same files.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from math import floor
from pathlib import Path

import numpy as np
from PIL import Image

from emavos.data import Clips, StaticImages
from emavos.data.static import read_still_mask
from emavos.io import IdMask, Pixels, palette, read_frame, read_mask
from emavos.io.whole import partial_folder

CLIPS, STILLS = ("clips", "more/clips"), ("static", "more/static")
LIMIT = 44.0  # MiB; about 60 with the repository
MIB = 2**20


@dataclass(frozen=True, eq=False)
class Pair:
    """An image and its mask, as encoded files."""

    source: str  # a name in CLIPS or STILLS
    image: Path  # relative to the data
    jpeg: bytes
    mask: Path
    png: bytes

    @property
    def size(self) -> int:
        """Size of both files in bytes."""
        return len(self.jpeg) + len(self.png)


def pack(
    data: Path, out: Path, *, short_side: int = 256, quality: int = 50, step: int = 2, limit: float = LIMIT
) -> list[Pair]:
    """Write the pack and return its contents.

    data: training data.
    out: folder to create.
    short_side: short side of images and masks in pixels.
    quality: JPEG quality.
    step: pack every `step`-th annotated frame of a clip.
    limit: total size in MiB. Still images, evenly spread, fill the room left by the clips.

    Raises ValueError if `out` exists, `data` has no data sets, or the clips exceed the limit.
    """
    if out.exists():
        raise ValueError(f"{out} exists; choose another folder")
    encode = partial(encoded, data, short_side=short_side, quality=quality)
    clips = [encode(*files) for files in _clips(data, step)]
    stills = [encode(*files) for files in _stills(data)]
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
            for path, content in ((pair.image, pair.jpeg), (pair.mask, pair.png)):
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


def encoded(
    data: Path, source: str, image: Path, mask: Path, ids: IdMask, *, short_side: int, quality: int
) -> Pair:
    """An image and its mask (H, W) of ids, reduced and encoded."""
    pixels, ids = _shrunk(read_frame(image), ids, short_side)
    jpeg, png = BytesIO(), BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=quality, optimize=True)
    picture = Image.fromarray(ids.astype(np.uint8))
    # a full palette would be half of such a file
    picture.putpalette(palette()[: int(ids.max()) + 1].tobytes())
    picture.save(png, "PNG", optimize=True)
    return Pair(source, image.relative_to(data), jpeg.getvalue(), mask.relative_to(data), png.getvalue())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="TRAIN", help="training data")
    parser.add_argument("--out", type=Path, required=True, metavar="PACK", help="folder to make")
    parser.add_argument("--short-side", type=int, default=256, metavar="N", help="in pixels (256)")
    parser.add_argument("--quality", type=int, default=50, metavar="N", help="of JPEG (50)")
    parser.add_argument("--step", type=int, default=2, metavar="N", help="every N-th frame of a clip (2)")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="MIB", help=f"of all files ({LIMIT:g})")
    args = parser.parse_args(argv)
    try:
        pairs = pack(
            args.data,
            args.out,
            short_side=args.short_side,
            quality=args.quality,
            step=args.step,
            limit=args.limit,
        )
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


def _shrunk(pixels: Pixels, ids: IdMask, short_side: int) -> tuple[Pixels, IdMask]:
    """A picture and its ids, reduced to a short side of `short_side` if larger."""
    height, width = ids.shape
    scale = short_side / min(height, width)
    if scale >= 1:
        return pixels, ids
    size = (round(width * scale), round(height * scale))
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    mask = Image.fromarray(ids.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return np.asarray(small), np.asarray(mask).astype(np.int32)


if __name__ == "__main__":
    main()
