"""Find the videos of a data set on disk, as a protocol lays them out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np

from emavos.evaluation.burst import FIRST, BurstSequence, FrameRuns, read_burst
from emavos.evaluation.protocol import Protocol
from emavos.io import IdMask, list_images, read_mask
from emavos.io.addresses import check_reachable
from emavos.io.text import read_json, read_text

Annotation: TypeAlias = Path | FrameRuns  # the mask of a frame: a PNG, or runs of a file of annotations

VOID = 255  # ground truth without an object; DAVIS counts it as background


@dataclass(frozen=True)
class Video:
    """One sequence: its frames, its annotations and the frames whose masks are wanted."""

    name: str
    protocol: Protocol
    images: tuple[Path, ...]  # in order; empty if the data has no frames
    masks: tuple[
        Annotation, ...
    ]  # annotations in order: the given masks and, if there are more, the ground truth
    wanted: tuple[str, ...]  # names of the frames to predict masks for, in order
    categories: Mapping[int, str] = field(default_factory=dict)  # by object, if meta.json lists categories
    burst: BurstSequence | None = None  # of BURST: the sequence in its file of annotations
    only_given: bool = False  # whether all annotations are given masks, so that there is no ground truth

    @cached_property
    def truths(self) -> tuple[Annotation, ...]:
        """The annotations to compare a result with, the first given one included; empty if there is no score.

        If all objects are known from the first frame, every annotation counts, and three are needed at least.
        If objects may appear later, an annotation may show only the new objects. Such annotations count as
        ground truth only if every wanted frame has one.
        """
        if self.only_given:
            return ()
        if not self.protocol.late:
            return self.masks if len(self.masks) >= (2 if self.protocol.scores_last else 3) else ()
        asked = {*self.wanted[self._begin :]}
        files = tuple(path for path in self.masks if path.stem in asked)
        return files if len(files) == len(asked) > (1 if self.protocol.scores_last else 2) else ()

    @property
    def untold(self) -> tuple[str, ...]:
        """Frames without ground truth in a video with ground truth; no score counts these frames."""
        with_truth = {path.stem for path in self.truths}
        # with late objects, ground truth covers all wanted frames or is absent
        if self.protocol.late or not with_truth:
            return ()
        return tuple(path.stem for path in self.images if path.stem not in with_truth)

    @cached_property
    def _begin(self) -> int:
        """The index of the first wanted frame with an annotation; earlier frames show only background."""
        annotated = {path.stem for path in self.masks}
        return next((i for i, name in enumerate(self.wanted) if name in annotated), len(self.wanted))

    def given(self) -> Mapping[int, Annotation]:
        """The annotations a method may read, by frame index.

        This is the first annotation. If objects may appear later, all annotations are given, and only new ids
        are used from each.
        """
        indices = {path.stem: index for index, path in enumerate(self.images)}
        files = self.masks if self.protocol.late else self.masks[:1]
        if lost := [path for path in files if path.stem not in indices]:
            where = self.images[0].parent if self.images else "the data, which holds no frames of it"
            raise ValueError(f"{lost[0]} does not have the name of a frame of {where}")
        return {indices[path.stem]: path for path in files}

    def introductions(self) -> Iterator[tuple[Path, IdMask | None]]:
        """Yield each image with the mask (H, W) of the objects that begin there, or None.

        The images end at the last wanted frame. Raises ValueError if no mask shows an object.
        """
        given, seen, asked = self.given(), set[int](), {*self.wanted}
        last = max((i for i, path in enumerate(self.images) if path.stem in asked), default=-1)
        for index, path in enumerate(self.images[: last + 1]):
            new = None
            if index in given:
                mask = foreground(read_annotation(given[index]), self.protocol.binary)
                fresh = [i for i in np.unique(mask).tolist() if i not in seen and i != 0]
                seen.update(fresh)
                new = np.where(np.isin(mask, fresh), mask, 0).astype(np.int32) if fresh else None
            if not seen and index == max(given):
                raise ValueError(
                    f"{given[index]} has no object; if 255 is the object and not void, use --binary"
                )
            yield path, new


def read_annotation(annotation: Annotation) -> IdMask:
    """The ids (H, W) of an annotation."""
    return annotation.mask() if isinstance(annotation, FrameRuns) else read_mask(annotation)


def foreground(mask: IdMask, binary: bool) -> IdMask:
    """The ids of an annotation (H, W) without void. If `binary`, every nonzero pixel becomes 1."""
    return (mask != 0).astype(np.int32) if binary else np.where(mask == VOID, 0, mask)


def find_videos(
    data: str | PathLike[str],
    protocol: Protocol,
    names: Sequence[str] | None = None,
    *,
    images: bool = True,
) -> list[Video]:
    """The sequences of a data set, in the order of the protocol's list.

    data: folder of the data set.
    protocol: benchmark protocol, see `PROTOCOLS`.
    names: sequences to use; None uses all.
    images: whether frames are required; scoring needs only masks.

    Raises ValueError if a folder, list or sequence is missing.
    """
    root = Path(data)
    if not root.is_dir():
        check_reachable(root)
        what = "is a file" if root.exists() else "does not exist"
        raise ValueError(f"{root} {what}; name the folder of a data set")
    if protocol.annotations:
        return _find_burst(root, protocol, names, images)
    masks = _first(root, protocol.masks)
    if masks is None:
        raise ValueError(
            f"{root} has no {_either(protocol.masks)}, where {protocol.name} keeps its masks; "
            "name the folder that holds it"
        )
    folder = _first(root, protocol.images)
    if images and folder is None:
        raise ValueError(f"{root} has no {_either(protocol.images)}, where {protocol.name} keeps its frames")
    meta = _read_meta(root, protocol)
    listed = list(meta) if meta is not None else _listed(root, protocol, masks)
    if odd := [name for name in listed if name in ("", ".", "..") or not {"/", "\\"}.isdisjoint(name)]:
        raise ValueError(
            f"{odd[0]!r} cannot be the name of a sequence; use the name of one folder, without slashes"
        )
    sequences = {name: name for name in listed}  # each with the name of its folder of frames
    if protocol.per_object:
        sequences = {f"{name}/{one}": name for name in listed for one in _folders(masks / name)}
    if names is not None:
        chosen = {name for name, frames_of in sequences.items() if name in names or frames_of in names}
        if unknown := sorted({*names} - {*sequences} - {*listed}):
            raise ValueError(f"{protocol.name} has no sequence {some(unknown)}; it has {some(listed)}")
        sequences = {name: frames_of for name, frames_of in sequences.items() if name in chosen}
    videos = []
    for name, frames_of in sequences.items():
        frames = _pictures(folder / frames_of) if folder is not None else ()
        if images and not frames:
            raise ValueError(f"{folder} has no images of {frames_of}")
        annotations = tuple(path for path in _pictures(masks / name) if path.suffix == ".png")
        objects = {} if meta is None else meta[name]
        videos.append(
            Video(
                name,
                protocol,
                frames,
                annotations,
                _wanted(name, protocol, frames or annotations, annotations, objects),
                {i: str(one["category"]) for i, one in objects.items() if "category" in one},
            )
        )
    if bare := [video.name for video in videos if not video.masks]:
        raise ValueError(f"{masks} has no *.png of {some(bare)}; complete it or take another list")
    return videos


def annotations_of(data: str | PathLike[str], protocol: Protocol) -> Path:
    """The file of annotations of a data set of BURST. Raises ValueError if there is none."""
    path = _first(Path(data), protocol.annotations)
    if path is None:
        raise ValueError(
            f"{data} has no {_either(protocol.annotations)}, where {protocol.name} keeps its masks"
        )
    return path


def _find_burst(root: Path, protocol: Protocol, names: Sequence[str] | None, images: bool) -> list[Video]:
    """The sequences of BURST that have an object."""
    path = annotations_of(root, protocol)
    sequences = {one.name: one for one in read_burst(path) if any(frame.runs for frame in one.frames)}
    if names is not None:
        if unknown := sorted({*names} - {*sequences}):
            raise ValueError(f"{protocol.name} has no sequence {some(unknown)}; it has {some([*sequences])}")
        sequences = {name: one for name, one in sequences.items() if name in names}
    folder = _first(root, protocol.images)
    if images and folder is None:
        raise ValueError(f"{root} has no {_either(protocol.images)}, where {protocol.name} keeps its frames")
    videos = []
    for name, one in sequences.items():
        frames = tuple(folder / name / image for image in one.images) if folder is not None else ()
        if images and (lost := [str(file) for file in frames if not file.is_file()]):
            raise ValueError(f"{some(lost, 3)}: missing, although {path.name} lists these frames")
        begin = next(place for place, frame in enumerate(one.frames) if frame.runs)
        videos.append(
            Video(
                name,
                protocol,
                frames,
                one.frames[begin:],
                tuple(frame.stem for frame in one.frames),
                burst=one,
                only_given=path.name == FIRST,
            )
        )
    return videos


def seen_categories(data: str | PathLike[str], protocol: Protocol) -> frozenset[str]:
    """The "seen" categories, listed in the training set's meta.json; empty without such a file."""
    path = _first(Path(data), protocol.seen)
    if path is None:
        return frozenset()
    objects = (one for video in _parse_meta(path).values() for one in video.values())
    return frozenset(str(one["category"]) for one in objects if "category" in one)


def some(names: Sequence[str], most: int = 10) -> str:
    """Names for an error message: the first few, then how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _folders(folder: Path) -> list[str]:
    """The names of the folders in a folder; empty if the folder does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _wanted(
    name: str,
    protocol: Protocol,
    files: Sequence[Path],
    annotations: Sequence[Path],
    objects: Mapping[int, Any],
) -> tuple[str, ...]:
    stems = [path.stem for path in files]
    if protocol.wanted == "masks":
        return tuple(path.stem for path in annotations)
    if protocol.wanted == "frames":
        return tuple(stems)
    asked = {str(frame) for one in objects.values() for frame in one.get("frames", ())}
    if not asked:
        raise ValueError(f"meta.json names no frame of {name}")
    if lost := sorted(asked - {*stems}):
        raise ValueError(f"meta.json asks for frame {some(lost)} of {name}, which is not there")
    return tuple(stem for stem in stems if stem in asked)


def _listed(root: Path, protocol: Protocol, masks: Path) -> list[str]:
    """The sequence names on the protocol's list; without a list, the names of the mask folders."""
    if not protocol.lists:
        names = _folders(masks)
        if not names:
            raise ValueError(f"{masks} holds no sequences; it has a folder of masks for each")
        return names
    path = _first(root, protocol.lists)
    if path is None:
        lists = root / "ImageSets"
        splits = sorted(file.relative_to(lists).with_suffix("").as_posix() for file in lists.rglob("*.txt"))
        split = root / protocol.lists[0]
        raise ValueError(f"{split} is not a file; the splits there: {some(splits) or 'none'}")
    words = [line.split()[0] for line in read_text(path, "a list of sequences").splitlines() if line.strip()]
    if not words:
        raise ValueError(f"{path} is empty; write the name of a sequence on each line")
    # DAVIS 2017 lists names, DAVIS 2016 every frame: /JPEGImages/480p/bear/00000.jpg /Annotations/...
    return list(dict.fromkeys(PurePosixPath(word).parent.name or word for word in words))


def _read_meta(root: Path, protocol: Protocol) -> dict[str, dict[int, Any]] | None:
    """The objects of each video from meta.json; None if the protocol has no meta.json."""
    if not protocol.meta:
        return None
    path = _first(root, protocol.meta)
    if path is None:
        raise ValueError(f"{root} has no {_either(protocol.meta)}, which {protocol.name} needs")
    return _parse_meta(path)


def _parse_meta(path: Path) -> dict[str, dict[int, Any]]:
    try:
        videos = {
            name: {int(i): dict(one) for i, one in video["objects"].items()}
            for name, video in sorted(read_json(path, "a meta.json")["videos"].items())
        }
        for one in (one for objects in videos.values() for one in objects.values()):
            if not isinstance(one.get("frames", []), list):
                raise ValueError("frames of an object are a list of names")
        return videos
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path} is not a meta.json of YouTube-VOS, {{"videos": {{NAME: {{"objects": ...}}}}}}: {error!r}'
        ) from error


def _pictures(folder: Path) -> tuple[Path, ...]:
    """The images of a folder in video order; empty if the folder does not exist."""
    try:
        files = list_images(folder)
    except (ValueError, FileNotFoundError, NotADirectoryError):
        return ()
    stems: dict[str, Path] = {}
    for file in files:
        if (other := stems.setdefault(file.stem, file)) != file:
            raise ValueError(f"{folder} holds both {other.name} and {file.name}; keep one")
    return tuple(files)


def _first(root: Path, places: Sequence[str]) -> Path | None:
    return next((root / place for place in places if (root / place).exists()), None)


def _either(places: Sequence[str]) -> str:
    return " or ".join(places)
