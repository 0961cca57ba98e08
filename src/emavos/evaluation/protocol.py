"""Benchmark protocols: folder layout, wanted frames and scoring rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

_FLAT = 16  # memory frames, the default of a session


@dataclass(frozen=True)
class Protocol:
    """How a benchmark is run. Folders are relative to the data; the first existing one is used.

    The defaults suit any folder laid out like DAVIS. `PROTOCOLS` has the benchmarks by name.
    """

    name: str
    images: tuple[str, ...] = ("JPEGImages/480p", "JPEGImages")  # each has IMAGES/<sequence>/<frame>.jpg
    masks: tuple[str, ...] = ("Annotations/480p", "Annotations")  # each has MASKS/<sequence>/<frame>.png
    lists: tuple[str, ...] = ()  # files with one sequence name per line; empty: every folder with masks
    meta: tuple[str, ...] = ()  # YouTube-VOS's meta.json with sequences, objects and frames
    seen: tuple[str, ...] = ()  # meta.json of the training set, for the seen categories

    binary: bool = False  # all nonzero pixels of a mask, including 255, are one object
    late: bool = False  # objects may appear later, each in the first mask showing it
    wanted: Literal["frames", "meta", "masks"] = (
        "frames"  # to predict: all, listed in meta.json, or annotated
    )
    whole: bool = False  # whether ground truth, if any, covers every frame
    scores_last: bool = False  # whether the last frame counts; DAVIS skips the last frame

    size: int | None = 480  # short side of the frames for the network; None keeps the source's size
    every: int = 5  # every how many frames one is stored in memory
    max_frames: int | None = None  # memory frames to keep; None keeps all

    zip_folder: str = ""  # folder of the sequences inside a submission
    about: str = ""  # one line of description
    per_object: bool = False  # each object alone, as MASKS/<sequence>/<object>/<frame>.png; they may overlap
    annotations: tuple[str, ...] = ()  # files of BURST, instead of folders of masks
    scoring: Literal["davis", "lvos", "mosev2", "burst"] = (
        "davis"  # measures: see `emavos.evaluation.metrics`
    )


_DAVIS = Protocol(
    "davis-2017-val",
    lists=("ImageSets/2017/val.txt",),
    whole=True,
    size=None,
    about="30 sequences, several objects each, known from the first frame on",
)
_YOUTUBE = Protocol(
    "youtube-vos-2018",
    images=("valid/JPEGImages", "JPEGImages"),
    masks=("valid/Annotations", "Annotations"),
    meta=("valid/meta.json", "meta.json"),
    seen=("train/meta.json", "../train/meta.json"),
    late=True,
    wanted="meta",
    scores_last=True,
    zip_folder="Annotations",
    about="474 sequences at 6 frames a second; objects appear later; seen and unseen classes",
)


def _burst(split: str, about: str) -> Protocol:
    """A split of BURST. The file with the ground truth is preferred to that of the given masks."""
    files = ("all_classes", "first_frame_annotations")
    folders = (split, f"annotations/{split}")
    return Protocol(
        f"burst-{split}",
        images=(f"frames/{split}", f"images/{split}"),
        annotations=tuple(f"{folder}/{file}.json" for file in files for folder in folders),
        late=True,
        wanted="masks",
        scores_last=True,
        every=10,
        max_frames=_FLAT,
        scoring="burst",
        about=about,
    )


_ALL_FRAMES = tuple(
    f"{above}{folder}/JPEGImages"
    for above in ("", "../")
    for folder in ("valid_all_frames", "all_frames/valid_all_frames")
)
_ONE_FOLDER = Protocol(
    "mose",
    images=("valid/JPEGImages", "JPEGImages"),
    masks=("valid/Annotations", "Annotations"),
    late=True,
    about="one folder a sequence; objects may appear later",
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol(
                "davis-like",
                max_frames=_FLAT,
                about="any folder of JPEGImages and Annotations, tracked as by `emavos segment`",
            ),
            replace(
                _DAVIS,
                name="davis-2016-val",
                lists=("ImageSets/2016/val.txt", "ImageSets/480p/val.txt"),
                binary=True,
                about="20 sequences, one object each",
            ),
            _DAVIS,
            replace(
                _DAVIS,
                name="davis-2017-test-dev",
                lists=("ImageSets/2017/test-dev.txt",),
                every=3,
                about="30 sequences; the truth is the server's; memory every 3rd frame",
            ),
            replace(
                _DAVIS,
                name="davis-2017-test-challenge",
                lists=("ImageSets/2017/test-challenge.txt",),
                every=3,
                about="30 sequences; the truth is the server's; memory every 3rd frame",
            ),
            _YOUTUBE,
            replace(
                _YOUTUBE,
                name="youtube-vos-2018-all-frames",
                images=_ALL_FRAMES,
                about="the same, read at 30 frames a second, written at 6",
            ),
            replace(_YOUTUBE, name="youtube-vos-2019", about="507 sequences, otherwise as 2018"),
            replace(
                _YOUTUBE,
                name="youtube-vos-2019-all-frames",
                images=_ALL_FRAMES,
                about="the same, read at 30 frames a second, written at 6",
            ),
            replace(
                _ONE_FOLDER,
                name="lvos",
                images=("valid/JPEGImages", "val/JPEGImages", "JPEGImages"),
                masks=("valid/Annotations", "val/Annotations", "Annotations"),
                max_frames=_FLAT,
                scoring="lvos",
                about="long sequences, in flat memory; objects may appear later; stability V",
            ),
            _ONE_FOLDER,
            replace(
                _ONE_FOLDER,
                name="mosev2",
                late=False,
                scoring="mosev2",
                about="objects vanish and return; F with a tolerance by the size of the object",
            ),
            Protocol(
                "sa-v",
                images=("JPEGImages_24fps",),
                masks=("Annotations_6fps",),
                lists=("sav_val.txt", "sav_test.txt"),
                binary=True,
                late=True,
                wanted="masks",
                per_object=True,
                about="objects may overlap, each is tracked alone; read at 24 frames a second, scored at 6",
            ),
            _burst(
                "val",
                "993 sequences of all frames, scored at 1 a second; objects appear later; HOTA by class",
            ),
            _burst("test", "1,421 sequences, otherwise as val"),
        )
    }
)
