"""Jobs of a batch: videos with their masks and names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from emavos.evaluation import PROTOCOLS
from emavos.frames.mask_files import ARRAYS
from emavos.frames.preprocess import check_short_side
from emavos.io import list_images
from emavos.io.addresses import absent, is_address
from emavos.io.images import PathLike
from emavos.io.notices import notice
from emavos.io.text import read_text
from emavos.memory import MemoryPolicy

_KINDS = "3g2 3gp asf avi flv gif m2ts m2v m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv y4m"
VIDEOS = frozenset(f".{kind}" for kind in _KINDS.split())
OPTIONS = frozenset({"size", *(f.name for f in fields(MemoryPolicy))})
_LONGEST = 200  # bytes of a name; leaves room for suffixes within 255


@dataclass(frozen=True)
class Job:
    """One video to track.

    name: file name for the outputs, without folders.
    video: folder of images, or video file.
    mask: PNG of ids for the first frame; a folder of PNGs named like their frames; or {frame: PNG} by frame
        name, or by number from 0 if frames have no names.
    options: settings of this video only: "size" and the fields of `MemoryPolicy`. None keeps the source's
        size, or all frames.
    references: other pictures of the objects with their masks, of any size. The video then needs no mask.

    Raises ValueError if the name or an option is invalid. Files are opened when the job runs.
    """

    name: str
    video: Path
    mask: Path | Mapping[str, Path] | None
    options: Mapping[str, Any] = field(default_factory=dict)
    references: Sequence[tuple[Path, Path]] = ()

    def __post_init__(self) -> None:
        _check_name(self.name)
        mask: Any = self.mask
        several = isinstance(mask, Mapping)
        try:
            if several:
                mask = {str(frame): Path(path) for frame, path in mask.items()}
            elif mask is not None:
                mask = Path(mask)
            pairs = tuple((Path(image), Path(png)) for image, png in self.references)
            object.__setattr__(self, "references", pairs)
            object.__setattr__(self, "video", Path(self.video))
            object.__setattr__(self, "mask", mask)
        except TypeError as error:
            raise ValueError(f"{self.name}: video and mask are paths of files or folders: {error}") from error
        if self.mask == {} or (self.mask is None and not self.references):
            raise ValueError(f"{self.name}: no mask is given")
        if unknown := sorted({*self.options} - OPTIONS):
            raise ValueError(
                f"{self.name}: there is no option {unknown[0]}; the options are {', '.join(sorted(OPTIONS))}"
            )
        try:
            check_short_side(self.options.get("size"))
            MemoryPolicy(**{name: value for name, value in self.options.items() if name != "size"})
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error

    @property
    def mask_files(self) -> Mapping[str, Path]:
        """The given masks, by frame; one of no known frame has the name ""."""
        if self.mask is None:
            return {}
        return self.mask if isinstance(self.mask, Mapping) else {"": self.mask}

    def to_json(self) -> str:
        """The job as a line for `from_json`."""
        content: dict[str, Any] = {"name": self.name, "video": str(self.video), **self.options}
        if self.mask is not None:
            files = {frame: str(path) for frame, path in self.mask_files.items()}
            content["mask"] = files if isinstance(self.mask, Mapping) else str(self.mask)
        if self.references:
            content["reference"] = [[str(image), str(mask)] for image, mask in self.references]
        return json.dumps(content)

    @classmethod
    def from_json(cls, line: str, home: PathLike = ".", references: Sequence[tuple[Path, Path]] = ()) -> Job:
        """The job of a JSON line {"video": ..., "mask": ..., "name": ...} with options.

        line: JSON object. "reference" is a list of [IMAGE, PNG].
        home: base of relative paths.
        references: of all lines, with which a line needs no mask.

        Raises ValueError if the line is not a job.
        """
        content = json.loads(line)
        if not isinstance(content, dict):
            raise ValueError("a job is an object {...}")
        needed = ("video",) if content.get("reference") or references else ("video", "mask")
        if lacking := [key for key in needed if not content.get(key)]:
            given = ", ".join(key for key in content if content[key])
            raise ValueError(f"it has no {lacking[0]!r}, only {given or 'nothing'}")
        video, mask = content.pop("video"), content.pop("mask", None)
        pairs = content.pop("reference", None) or []
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 for pair in pairs
        ):
            raise ValueError(f"reference is a list of [IMAGE, PNG], not {pairs!r:.60}")
        paths = [video, *(path for pair in pairs for path in pair)]
        if mask is not None:
            paths += mask.values() if isinstance(mask, dict) else [mask]
        if wrong := [path for path in paths if not isinstance(path, str) or not path or "\0" in path]:
            raise ValueError(f"{wrong[0]!r:.60} is not a path")
        if remote := [path for path in paths if is_address(path)]:
            raise ValueError(str(absent(remote[0])))
        home = Path(home)
        return cls(
            name=content.pop("name", _name_of(Path(video))),
            video=home / video,
            mask={k: home / v for k, v in mask.items()} if isinstance(mask, dict) else mask and home / mask,
            options=content,
            references=[*((home / image, home / png) for image, png in pairs), *references],
        )


def find_jobs(path: PathLike, references: Sequence[tuple[Path, Path]] = ()) -> list[Job]:
    """The jobs in a file of JSON lines, or in a folder of videos.

    references: other pictures of the objects with their masks, for all videos. Videos of a folder then need
        no mask beside them.

    A folder is laid out like DAVIS, with JPEGImages/<name>/ and Annotations/<name>/ (with or without 480p/),
    and the first mask of each video is used. Or the folder has videos (files or folders of images) beside
    their masks: <name>.png, or a folder <name>.masks/ with masks named like their frames.

    Raises ValueError if there are no jobs, a line is not a job, or two jobs have the same name.
    """
    path = Path(path)
    if path.is_dir():
        jobs = [*_of_folder(path, references)]
    elif path.exists():
        jobs = [*_of_lines(path, references)]
    else:
        raise FileNotFoundError(f"{absent(path)}; jobs are a file of JSON lines or a folder of videos")
    if not jobs:
        raise ValueError(
            f"{path} holds no videos; a folder has them beside their masks, a.mp4 and a.png or b/ and b.png, "
            "or JPEGImages/ and Annotations/ as DAVIS; a list has one on each line"
        )
    check_names(jobs, path)
    return jobs


def check_names(jobs: Iterable[Job], where: PathLike) -> None:
    """Raise ValueError if two jobs have the same name, or names that differ only in case."""
    names: dict[str, str] = {}
    for job in jobs:
        if other := names.get(job.name.casefold()):
            raise ValueError(f"{where} has two videos called {other}; give one of them another name")
        names[job.name.casefold()] = job.name


def shard(jobs: Sequence[Job], index: int, count: int) -> list[Job]:
    """The jobs for process `index` (from 0) of `count` processes; each job belongs to exactly one process."""
    if not 0 <= index < count:
        raise ValueError(f"there is no shard {index}/{count}; shards are 0/{count} to {count - 1}/{count}")
    return [*jobs[index::count]]


def _of_lines(path: Path, references: Sequence[tuple[Path, Path]]) -> Iterator[Job]:
    for number, line in enumerate(read_text(path, "a list of jobs").splitlines(), 1):
        if line.strip():
            try:
                yield Job.from_json(line, path.parent, references)
            except (ValueError, TypeError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error


def _of_folder(folder: Path, references: Sequence[tuple[Path, Path]]) -> Iterator[Job]:
    layout = PROTOCOLS["davis-like"]
    images, masks = (_first(folder, places) for places in (layout.images, layout.masks))
    if images is not None and masks is not None:
        for video in _entries(images):
            if video.is_dir():
                mask = _unless_absent(_first_mask(masks / video.name), references)
                yield Job(video.name, video, mask, references=references)
        return
    jobs, others = set[str](), list[Path]()
    for video in _entries(folder):
        if video.suffix.lower() in VIDEOS or (video.is_dir() and video.suffix != ".masks" and _shows(video)):
            name = _name_of(video)
            several = folder / f"{name}.masks"
            jobs.add(name)
            mask = several if several.is_dir() else _unless_absent(_mask_of(folder, name), references)
            yield Job(name, video, mask, references=references)
        elif video.suffix.lower() != ".png" and video.is_file() and (folder / f"{video.stem}.png").exists():
            others.append(video)
    if left_out := [video.name for video in others if video.stem not in jobs]:
        names = ", ".join(left_out[:4]) + (f" and {len(left_out) - 4} more" if len(left_out) > 4 else "")
        notice(
            f"{folder}: {names} lies beside a mask, but its ending is not that of a video; "
            "name it in a list of jobs",
            stacklevel=2,
        )


def _unless_absent(
    mask: Path | Mapping[str, Path], references: Sequence[tuple[Path, Path]]
) -> Path | Mapping[str, Path] | None:
    """The mask; None if there is no such file and references stand for it."""
    return None if references and isinstance(mask, Path) and not mask.exists() else mask


def _mask_of(folder: Path, name: str) -> Path:
    """The mask beside a video: a PNG, or otherwise a file of arrays or annotations.

    A text file is not considered: YOLO's belong to the image of their name, and a text beside a video is
    usually notes or subtitles.
    """
    places = [folder / f"{name}{suffix}" for suffix in (".png", *ARRAYS, ".json", ".xml")]
    return next((place for place in places if place.is_file()), places[0])


def _first_mask(folder: Path) -> Path | Mapping[str, Path]:
    """The first mask in a folder, by frame name; the folder itself if it has no mask."""
    try:
        first = list_images(folder)[0]
    except (OSError, ValueError):
        return folder
    return {first.stem: first}


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name[0] != ".")


def _shows(folder: Path) -> bool:
    try:
        return bool(list_images(folder))
    except (OSError, ValueError):
        return False


def _first(root: Path, places: Iterable[str]) -> Path | None:
    return next((root / place for place in places if (root / place).is_dir()), None)


def _name_of(video: Path) -> str:
    return video.stem if video.suffix.lower() in VIDEOS else video.name


def _check_name(name: object) -> None:
    """Raise ValueError unless the name is a plain file name on every system."""
    if not isinstance(name, str) or not name or len(name.encode("utf-8", "replace")) > _LONGEST:
        raise ValueError(f"a name is a text of 1 to {_LONGEST} bytes, not {name!r:.60}")
    odd = {*'/\\:*?"<>|'} & {*name}
    if odd or not name.isprintable() or name != name.strip(" .") or name[0] == ".":
        raise ValueError(
            f"{name!r} cannot name outputs; use a plain file name, without / and the like, that neither "
            "begins nor ends with a dot or a space"
        )
