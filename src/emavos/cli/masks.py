"""`emavos masks info|convert`: show the masks of other tools, or convert them to PNGs of ids."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emavos.cli.arguments import Commands, add_labels_argument, add_output_arguments
from emavos.cli.staging import staged_together
from emavos.cli.words import counted, plain

if TYPE_CHECKING:
    from emavos.annotations import LabelMap, VideoMasks
    from emavos.io import FrameSource, IdMask


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "masks",
        help="show masks of other tools, and convert masks",
        description="Show masks of other tools, and convert masks.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    info = actions.add_parser(
        "info",
        help="show the frames, objects and labels of masks",
        description="Print a line for each frame with a mask: the number of pixels of each object. Then "
        "print the label of each id. If a colour has no number, the exit code is 1.",
    )
    info.set_defaults(run=_info)
    convert = actions.add_parser(
        "convert",
        help="write masks as PNGs of ids, or for another tool",
        description="Write a PNG of ids for each frame with a mask, for `segment`, `batch` and `evaluate`. "
        "With --to, write files to import in another tool.",
    )
    convert.set_defaults(run=_convert)
    for action in (info, convert):
        action.add_argument(
            "masks", type=Path, metavar="FILE|DIR", help="a mask, a file of annotations, or a folder of them"
        )
        action.add_argument(
            "--frames",
            metavar="VIDEO",
            help="the frames, if the file does not say how large they are (VIA, YOLO)",
        )
        add_labels_argument(action)
    convert.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR|FILE",
        help="folder of the PNGs, new or empty; or the file that --to writes",
    )
    convert.add_argument(
        "--to",
        choices=("png", "coco", "youtube-vis", "cvat", "label-studio", "labelme", "yolo"),
        default="png",
        help="format to write: png, labelme and yolo write a folder, cvat a .xml, the others a .json (png)",
    )
    convert.add_argument(
        "--images",
        metavar="SUFFIX",
        help="with --to, suffix of the images of the masks (.jpg)",
    )
    convert.add_argument(
        "--names",
        type=Path,
        metavar="FILE",
        help="with --to, names of the objects: the annotations that were tracked, or a list of labels such "
        "as classes.txt (as the masks say; otherwise by their ids)",
    )
    convert.add_argument(
        "--tolerance",
        type=float,
        metavar="PIXELS",
        help="with --to labelme or yolo, largest distance of a polygon from the mask, to save points (0)",
    )
    convert.add_argument(
        "--number-colours",
        action="store_true",
        help="number colours that are in no list, from 1, in the order of their appearance",
    )
    convert.add_argument(
        "--background",
        default="#000000",
        metavar="COLOUR",
        help="with --number-colours, colour of the background, as #rrggbb (#000000)",
    )
    add_output_arguments(convert)


def _info(args: argparse.Namespace) -> None:
    from emavos.annotations.labels import find_labels, number_colours
    from emavos.frames.mask_files import pictures_in_colours

    labels = _listed(args)
    named: dict[int, str] = {}
    try:
        for name, mask in _masks(args, labels, named):
            print(f"{plain(name)}  {mask.shape[0]}x{mask.shape[1]}  {_sizes(mask)}")
    except ValueError:
        if labels is None and find_labels(args.masks) is None:
            listed = number_colours(pictures_in_colours(args.masks))
            if listed.names:
                print(f"{args.masks}: colours without numbers: {', '.join(listed.names.values())}")
        raise
    _print_names(named)


def _convert(args: argparse.Namespace) -> None:
    import numpy as np

    from emavos.annotations import read_names, write_annotations
    from emavos.annotations.labels import colour_of, number_colours
    from emavos.annotations.writing import FOLDERS
    from emavos.frames.mask_files import pictures_in_colours
    from emavos.io import write_mask

    if args.labels is not None and args.number_colours:
        raise ValueError("--labels numbers colours already; leave out --number-colours")
    if args.background != "#000000" and not args.number_colours:
        raise ValueError("--background changes nothing without --number-colours")
    if args.to == "png" and any(one is not None for one in (args.images, args.tolerance, args.names)):
        raise ValueError("--images, --names and --tolerance change nothing without --to")
    labels = _listed(args)
    names = {} if args.names is None else read_names(args.names, labels)
    if args.number_colours:
        labels = number_colours(pictures_in_colours(args.masks), colour_of(args.background))
        if not labels.names:
            raise ValueError(f"{args.masks} has no masks in colours; leave out --number-colours")
    named: dict[int, str] = {}
    count, ids = 0, set[int]()
    written = None if args.to == "png" else _check_format(args)
    with staged_together(args.force) as outputs:
        folder = outputs.folder(args.out) if args.to in ("png", *FOLDERS) else outputs.file(args.out, "--out")
        for name, mask in _masks(args, labels, named):
            if written is None:
                write_mask(folder / f"{name}.png", mask)
            else:
                written.add(name, mask)
            count, ids = count + 1, ids.union(np.unique(mask).tolist())
        if written is not None:
            written.names = {**named, **names}
            write_annotations(folder, written, args.to)
    if not args.quiet:
        print(f"{counted(count, 'mask')}, {counted(len(ids - {0}), 'object')}: {args.out}")
        _print_names({id: label for id, label in named.items() if id in ids})


def _check_format(args: argparse.Namespace) -> VideoMasks:
    """An empty `VideoMasks` to fill, after checking --out and the options of the format."""
    from emavos.annotations import VideoMasks

    kinds = {"cvat": ".xml", "labelme": "", "yolo": ""}
    suffix = kinds.get(args.to, ".json")
    if suffix and args.out.suffix.lower() != suffix:
        raise ValueError(f"--out {args.out} is written as {suffix} for --to {args.to}")
    images = ".jpg" if args.images is None else args.images
    if not re.fullmatch(r"\.[A-Za-z0-9]{1,8}", images):
        raise ValueError(f"--images is a suffix such as .jpg, not {images!r:.40}")
    if args.tolerance is not None and args.to not in ("labelme", "yolo"):
        raise ValueError(f"--tolerance is for polygons; --to {args.to} is exact")
    tolerance = args.tolerance or 0.0
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"--tolerance is a number of pixels of at least 0, not {tolerance}")
    return VideoMasks(suffix=images, tolerance=tolerance)


def _listed(args: argparse.Namespace) -> LabelMap | None:
    from emavos.annotations import read_labels

    return None if args.labels is None else read_labels(args.labels)


def _print_names(named: dict[int, str]) -> None:
    for id, label in sorted(named.items()):
        print(f"{id}: {plain(label, 200)}")


def _masks(
    args: argparse.Namespace, labels: LabelMap | None, named: dict[int, str]
) -> Iterator[tuple[str, IdMask]]:
    """Yield the name and the mask of each frame that has a mask; add the names of ids to `named`."""
    from emavos.frames.mask_files import open_masks
    from emavos.io import open_frames

    frames: FrameSource | None = None
    size = None
    if args.frames is not None:
        frames = open_frames(args.frames, but=[args.masks])
        size = frames.size()
    seen: set[str] = set()
    for one in open_masks(args.masks, labels):
        named.update(one.names)
        name = args.masks.stem if one.name is None else one.name
        if isinstance(name, int):
            name = f"{name:05d}" if frames is None else frames.name(name)
        if name in seen:
            raise ValueError(f"{one.title} has a second mask for frame {name}")
        seen.add(name)
        yield name, one.read(size)


def _sizes(mask: IdMask) -> str:
    """The number of pixels of each object."""
    import numpy as np

    ids, counts = np.unique(mask, return_counts=True)
    sizes = [f"{id}: {count}" for id, count in zip(ids.tolist(), counts.tolist(), strict=True) if id]
    return ", ".join(sizes) or "empty"
