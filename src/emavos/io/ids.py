"""Object ids in pictures: read the ids of a mask, and colour ids for display."""

from __future__ import annotations

import zlib
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from emavos.io.notices import notice

IdMask = NDArray[np.int32]  # (H, W), 0 is background
MARK = "emavos-ids"  # key of a PNG text chunk with `mark_of` the ids
WHITE = "emavos-white"  # key of the largest value that a gray picture declares, to which Pillow scaled it


def ids_of_picture(image: Image.Image, name: str = "the mask") -> IdMask:
    """The ids of a mask, (H, W) int32: palette indices, 8- or 16-bit gray values, or 0 and 1.

    Three equal channels, opaque alpha, floats with integer values, and the colours of `palette` or
    `davis_palette` are also read as ids.

    image: picture of a mask.
    name: name of the mask for error messages.

    Raises ValueError if the picture has other colours, or is blurred by anti-aliasing or lossy compression.
    """
    if image.format in ("JPEG", "MPO"):
        raise ValueError(f"{name} is a JPEG, whose compression blurs ids; save the mask as a PNG")
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":  # written by ImageJ
        values = np.array(image)
        if not (
            np.isfinite(values).all() and (values == np.floor(values)).all() and abs(values).max() < 2**24
        ):
            raise ValueError(f"{name} holds fractions; a mask holds whole ids")
        image = Image.fromarray(values.astype(np.int32))
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        mask = np.array(image).astype(np.int32)
        if white := image.info.get(WHITE):
            mask = np.rint(mask * (white / (0xFF if image.mode == "L" else 0xFFFF))).astype(np.int32)
        ours = _has_our_palette(image, mask) or image.info.get(MARK) == mark_of(mask)
        if image.mode == "P" and not ours:
            mask = _background_at_zero(image, mask, name)
        if not ours and _looks_antialiased(mask):
            raise ValueError(
                f"{name} looks anti-aliased or compressed: {len(np.unique(mask))} different ids, most of "
                "them only on edges; draw it without smoothing and save it as a PNG"
            )
        return mask
    pixels = np.array(image.convert("RGBA" if image.has_transparency_data else "RGB")).astype(np.uint32)
    if (plain := _plain_ids(pixels)) is not None:
        return ids_of_picture(Image.fromarray(plain), name)
    flat_colours(image, name)
    count = len(np.unique((pixels << (8 * np.arange(pixels.shape[2], dtype=np.uint32))).sum(axis=2)))
    raise ValueError(
        f"{name} is an {image.mode} mask of {count} colours; a mask holds ids: give the list of labels "
        "that its tool exports, or number the colours with `emavos masks convert --number-colours`"
    )


def flat_colours(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """The colours (H, W, 3) uint8 of a mask, with transparent parts black.

    image: picture of a mask.
    name: name of the mask for error messages.

    Raises ValueError if the mask looks anti-aliased or has more than 256 colours.
    """
    pixels = np.array(image.convert("RGBA"))
    pixels[pixels[..., 3] == 0] = 0
    packed = (pixels.astype(np.uint32) << (8 * np.arange(4, dtype=np.uint32))).sum(axis=2)
    colours, indices = np.unique(packed, return_inverse=True)
    if len(colours) > 256 or _looks_antialiased(indices.reshape(packed.shape)):
        raise ValueError(
            f"{name} is an {image.mode} image of {len(colours)} colours that looks anti-aliased or "
            "compressed; a mask holds ids: draw it without smoothing and save it as a palette PNG"
        )
    return pixels[..., :3]


def _plain_ids(pixels: NDArray[np.uint32]) -> NDArray[np.uint8] | None:
    """The ids of opaque gray, or of the colours of a known palette (H, W, 3 or 4); None for other colours."""
    colours = pixels[..., :3]
    if pixels.shape[2] == 4 and not (pixels[..., 3] == 255).all():
        return None
    if (colours == colours[..., :1]).all():
        return colours[..., 0].astype(np.uint8)
    packed = (colours << np.array([0, 8, 16], np.uint32)).sum(axis=2)
    for colours_of_ids in _packed_palettes():
        order = np.argsort(colours_of_ids)
        ids = order[np.searchsorted(colours_of_ids, packed, sorter=order).clip(max=255)]
        if (colours_of_ids[ids] == packed).all():
            return ids.astype(np.uint8)
    return None


def _packed_palettes() -> list[NDArray[np.uint32]]:
    """The known palettes, each colour as one number: (256,) of each."""
    shifts = np.array([0, 8, 16], np.uint32)
    return [(colours.astype(np.uint32) << shifts).sum(axis=1) for colours in (palette(), davis_palette())]


def _background_at_zero(image: Image.Image, mask: IdMask, name: str) -> IdMask:
    """Undo the reordering of palette entries by programs that shrink a PNG or GIF.

    image: palette picture of a mask.
    mask: (H, W) of palette indices.
    name: name of the mask for the warning.

    If the palette is a reordering of a known one, the colours give the ids. In other palettes, the background
    is the only transparent entry, or the black entry if entry 0 has a colour. The background swaps places
    with entry 0.
    """
    used = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    held = np.array(image.getpalette("RGB") or [], np.uint32).reshape(-1, 3)
    if not used.size or used[-1] >= len(held):
        return mask
    packed = (held[: used[-1] + 1] << np.array([0, 8, 16], np.uint32)).sum(axis=1)
    for colours_of_ids, whose in zip(_packed_palettes(), ("emavos", "DAVIS"), strict=True):
        colours = {*packed.tolist()}
        if len(packed) > 1 and len(colours) == len(packed) and colours <= {*colours_of_ids.tolist()}:
            ids = np.array([int(np.flatnonzero(colours_of_ids == one)[0]) for one in packed], np.int32)
            _tell(f"{name} has the palette of {whose} in another order; its ids are those of the colours")
            return ids[mask]
    background = _background_of(image, packed, used)
    if background == 0:
        return mask
    places = np.arange(256, dtype=np.int32)
    places[[0, background]] = background, 0
    _tell(
        f"{name}: entry {background} of its palette is taken for the background, and entry 0 is object "
        f"{background}"
    )
    return places[mask]


def _background_of(image: Image.Image, packed: NDArray[np.uint32], used: NDArray[Any]) -> int:
    """The palette index of the background."""
    clear = image.info.get("transparency")
    if isinstance(clear, bytes):
        entries = [entry for entry, alpha in enumerate(clear) if alpha == 0 and entry in used]
        clear = entries[0] if len(entries) == 1 else None
    if isinstance(clear, int) and clear in used:
        return clear
    black = used[packed[used] == 0]
    doubtful = packed[0] in (0, 0xFFFFFF)  # a black background, or black drawn on white
    return int(black[0]) if len(black) == 1 and not doubtful else 0


def _tell(note: str) -> None:
    notice(note, stacklevel=4)


def mark_of(mask: NDArray[Any]) -> str:
    """A checksum of ids (H, W) up to 65535, to recognise unchanged masks written by this library."""
    return f"{zlib.crc32(mask.astype('<u2').tobytes()):08x}"


_COLOURS = (
    (255, 84, 92),  # coral
    (38, 156, 255),  # azure
    (70, 214, 105),  # green
    (255, 202, 48),  # amber
    (176, 102, 255),  # violet
    (0, 208, 204),  # turquoise
    (255, 110, 196),  # pink
    (255, 142, 38),  # orange
)


def colour(id: int) -> tuple[int, int, int]:
    """The colour (red, green, blue) of an id in masks, overlays, notebooks and on the page.

    id: 0 is black; ids above 255 repeat the colours from 1 on.
    """
    red, green, blue = palette()[0 if id == 0 else (id - 1) % 255 + 1].tolist()
    return red, green, blue


@cache
def palette() -> NDArray[np.uint8]:
    """The colours of ids 0 to 255, (256, 3): black, then eight vivid colours, the same darker, then paler.

    From 25 on the 24 colours repeat, a shade nearer to gray each time, so that each id has its own colour.
    """
    colours = np.zeros((256, 3), dtype=np.int64)
    for place in range(255):
        towards = (None, 0, 255)[place // 8 % 3]
        vivid = np.array(_COLOURS[place % 8])
        mixed = vivid if towards is None else (2 * vivid + towards) // 3
        colours[place + 1] = mixed + np.where(mixed < 128, 1, -1) * (place // 24)
    palette = colours.astype(np.uint8)
    palette.flags.writeable = False  # the cached array is shared by all callers
    return palette


@cache
def davis_palette() -> NDArray[np.uint8]:
    """The 256 colours of PASCAL VOC and DAVIS, (256, 3): black, maroon, green, olive, navy, ...

    Read as ids like those of `palette`; servers of benchmarks expect these.

    The bits of an id are dealt in turn to red, green and blue, filling each from its highest bit.
    """
    ids = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= (((ids >> bit) & 1) << (7 - bit // 3)).astype(np.uint8)
    colours.flags.writeable = False  # the cached array is shared by all callers
    return colours


def mask_png(mask: IdMask, longest: int = 640) -> bytes:
    """A mask (H, W) of ids as PNG bytes in the colours of `palette`, with sides up to `longest` pixels."""
    step = -(-max(*mask.shape, 1) // longest)
    small = mask[::step, ::step]
    image = Image.fromarray(np.where(small == 0, 0, (small - 1) % 255 + 1).astype(np.uint8))
    image.putpalette(palette().tobytes())
    file = BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _has_our_palette(image: Image.Image, mask: IdMask) -> bool:
    """Whether a mask (H, W) has a known palette; smoothing in an editor would have changed the palette."""
    return image.mode == "P" and is_known_palette(
        (image.getpalette() or [])[: 3 * (int(mask.max(initial=0)) + 1)]
    )


def is_known_palette(values: list[int]) -> bool:
    """Whether the values (red, green, blue, red, ...) of a palette begin `palette` or `davis_palette`."""
    return any(
        values == standard.ravel()[: len(values)].tolist() for standard in (palette(), davis_palette())
    )


def _looks_antialiased(mask: NDArray[Any]) -> bool:
    """Whether ids are probably the blur of an edge.

    Smoothing adds values between two ids: an id is a step if most of its pixels lie between a lower and a
    higher neighbour. Compression scatters new values: an id is dust if most of its pixels have no neighbour
    with the same id. Real objects are neither, however small.
    """
    if min(mask.shape) < 3 or int(mask.max()) - int(mask.min()) < 3:
        return False
    ids, labels = _labelled(mask)
    if len(ids) < 3:
        return False
    centre = labels[1:-1, 1:-1]
    pairs = ((labels[:-2, 1:-1], labels[2:, 1:-1]), (labels[1:-1, :-2], labels[1:-1, 2:]))
    step = np.zeros(centre.shape, bool)
    lone = np.ones(centre.shape, bool)
    for before, after in pairs:
        step |= ((before < centre) & (centre < after)) | ((before > centre) & (centre > after))
        lone &= (before != centre) & (centre != after)
    total = np.bincount(centre.ravel(), minlength=len(ids))

    def mostly(where: NDArray[Any]) -> NDArray[np.bool_]:
        return 2 * np.bincount(centre[where], minlength=len(ids)) > total

    stepped = mostly(step)
    if ids[0] == 0 and ids[-1] == 255 and ids[1] >= 16 and stepped[1:-1].all():
        return True  # white on black with one or two grays: a box with edges between two pixels
    steps = int(stepped.sum())
    return (steps >= 3 and 2 * steps >= len(ids) - 1) or (
        len(ids) > 16 and 2 * int(mostly(step | lone).sum()) > len(ids)
    )


def _labelled(mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The different ids of a mask, sorted, and for each pixel the index of its id."""
    low, high = int(mask.min()), int(mask.max())
    if low < 0 or high > 0xFFFF:
        ids, labels = np.unique(mask, return_inverse=True)
        return ids, labels.reshape(mask.shape)
    ids = np.flatnonzero(np.bincount(mask.ravel()))  # np.unique sorts all pixels, 40 times slower
    places = np.zeros(high + 1, dtype=np.uint8 if len(ids) <= 256 else np.int32)
    places[ids] = np.arange(len(ids))
    return ids, places[mask]
