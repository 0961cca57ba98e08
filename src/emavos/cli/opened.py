"""The inputs of `emavos segment`: the video, its masks and its references, opened and checked."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emavos.cli.arguments import frame_options
from emavos.cli.clicking import clicked
from emavos.cli.written import KINDS, check_apart, check_kind, picture_places

if TYPE_CHECKING:
    from emavos.io import FrameSource, IdMask, Pixels

    Reference = tuple[Path, Pixels, IdMask]  # file of the image, the image (H, W, 3), its mask (H, W)


@contextmanager
def at_hand(args: argparse.Namespace) -> Iterator[None]:
    """If VIDEO is an address, copy it; the copy exists while this context lasts."""
    from tempfile import TemporaryDirectory

    from emavos.io.addresses import is_address
    from emavos.io.remote import copy_from, name_in

    if not args.remote:
        yield
        return
    if len(args.video) > 1 or not is_address(args.video[0]):
        raise ValueError("--remote is for one address, such as https://HOST/video.mp4")
    with TemporaryDirectory(prefix="emavos-") as folder:
        place = Path(folder) / name_in(args.video[0])
        copy_from(args.video[0], place)
        args.video = [str(place)]
        yield


def opened(
    args: argparse.Namespace,
) -> tuple[FrameSource, IdMask | dict[int, IdMask] | None, list[Reference]]:
    """The frames, their masks if the objects are not clicked, and the references, all checked.

    Raises ValueError if options contradict each other, or an input cannot be read.
    """
    from emavos.frames.mask_files import read_masks
    from emavos.io import open_frames
    from emavos.io.opening import natural_order

    _check_options(args)
    video = args.video[0] if len(args.video) == 1 else natural_order(map(Path, args.video))
    but = [] if args.mask is None else [args.mask]
    frames = open_frames(video, but=but, on_damage=args.on_damage, **frame_options(args))
    if frames.live:
        frames = _live(args, frames)
    mask = None if args.mask is None else read_masks(args.mask, frames, args.labels)
    references = [_reference(*pair) for pair in args.reference]
    if not clicked(args):
        check_ids(args.matte_of, mask, references)
    return frames, mask, references


def _check_options(args: argparse.Namespace) -> None:
    """Raise ValueError if options contradict each other, or an output has no place or kind."""
    clicked(args)
    if args.reference and args.direction != "forward":
        raise ValueError(f"--reference tracks forward; leave out --direction {args.direction}")
    places = picture_places(args)
    check_apart(
        args.video[0], args.mask, args.out, {**places, "--rle": args.rle, "--confidence": args.confidence}
    )
    for option, path in places.items():
        check_kind(option, path)
    if args.matte_of is not None and args.matte is args.cutout is None:
        raise ValueError("--matte-of changes nothing without --matte or --cutout")
    if args.matte_bits != 8 and (args.matte is None or args.matte.suffix.lower() in KINDS["--matte"]):
        raise ValueError("--matte-bits changes nothing without --matte DIR; it is about PNGs")
    if args.confidence is not None and args.confidence.suffix.lower() != ".csv":
        raise ValueError(f"--confidence {args.confidence} is written as .csv")


def _live(args: argparse.Namespace, frames: FrameSource) -> FrameSource:
    """A camera or a stream, whose first frame can be clicked on. Raises ValueError if it would not end."""
    from emavos.io.source import Peeked

    if args.stop is None and not args.keep_partial:
        raise ValueError(
            "a camera or a stream has no last frame; give --stop N, or --keep-partial and end it with Ctrl-C"
        )
    if args.click_frame:
        raise ValueError("--click-frame is for videos; on a camera or a stream, you click on the first frame")
    return Peeked(frames)


def _reference(image: Path, mask: Path) -> Reference:
    """A reference picture and its mask. Raises ValueError if their sizes differ."""
    from emavos.io import read_frame, read_mask

    picture, ids = read_frame(image), read_mask(mask)
    if ids.shape != picture.shape[:2]:
        have, want = ("{}x{}".format(*array.shape[:2]) for array in (ids, picture))
        raise ValueError(f"--reference {image}: mask is {have} but frame is {want} (height x width)")
    return image, picture, ids


def check_ids(
    ids: Sequence[int] | None, masks: IdMask | dict[int, IdMask] | None, references: Sequence[Reference]
) -> None:
    """Raise ValueError if an object has no mask.

    ids: None for all objects.
    masks: of the video; None if its objects come from references only.
    """
    import numpy as np

    if ids is None:
        return
    of_video = masks.values() if isinstance(masks, dict) else [] if masks is None else [masks]
    every = [*of_video, *(mask for _, _, mask in references)]
    objects = sorted({int(id) for mask in every for id in np.unique(mask)} - {0})
    for id in ids:
        if id not in objects:
            raise ValueError(
                f"--matte-of {id} is not an object; the masks have {', '.join(map(str, objects))}"
            )
