"""The list of clips: a folder with one project per video, by default in the user's data directory."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from emavos.ui.facts import FILE
from emavos.ui.folder import Folder
from emavos.ui.hold import HELD, Hold
from emavos.ui.importing import UNFINISHED
from emavos.ui.project import Project
from emavos.visualize import overlay

Get = Callable[[Path], Project | None]

_THUMBNAIL = (192, 108)  # largest width and height, in pixels


@dataclass(frozen=True)
class Clip:
    """What the list shows of a project.

    key: name of the project's folder.
    video: name of the video.
    count: number of frames.
    given: number of frames with a given mask.
    tracked: number of frames whose masks are up to date.
    left: number of frames that tracking would still make.
    drafts: number of frames with strokes that were not kept.
    changed: time of the last change, in seconds since 1970.
    problem: why the project cannot be opened; empty if it can.
    origin: tells the video apart from others, as `origin_of`; empty if unknown.
    """

    key: str
    video: str
    count: int = 0
    given: int = 0
    tracked: int = 0
    left: int = 0
    drafts: int = 0
    changed: float = 0.0
    problem: str = ""
    origin: str = ""


class Shelf:
    """The projects in a folder. A clip is only ever added, until the user removes the clip.

    folder: folder of the projects' folders; it need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: dict[str, tuple[object, Clip]] = {}

    def keys(self) -> list[str]:
        """The names of the folders with a project, unsorted."""
        with suppress(FileNotFoundError):
            return [one.name for one in os.scandir(self.folder) if (self.folder / one.name / FILE).is_file()]
        return []

    def clips(self, get: Get = lambda folder: None) -> list[Clip]:
        """All clips, the last changed first.

        get: returns the project of a folder if this process has it open, so that it is not read again.
        """
        clips = [self._clip(key, get(self.folder / key)) for key in self.keys()]
        return sorted(clips, key=lambda clip: (-clip.changed, clip.key))

    def _clip(self, key: str, project: Project | None) -> Clip:
        folder = self.folder / key
        stamps = tuple(_stamp(folder / name) for name in (FILE, "track.jsonl", "drafts"))
        if project is not None:
            return clip_of(project, max(stamps) / 1e9)
        if key in self._seen and self._seen[key][0] == stamps:
            return self._seen[key][1]
        changed = max(stamps) / 1e9
        try:
            clip = clip_of(Project.open(folder), changed)
        except (ValueError, OSError) as error:
            clip = Clip(key, key, changed=changed, problem=str(error))
        self._seen[key] = stamps, clip
        return clip

    def path(self, key: str) -> Path:
        """The folder of a clip. Raises ValueError if there is none of this name."""
        if key not in self.keys():
            raise ValueError(f"there is no clip {key!r:.60} in {self.folder}")
        return self.folder / key

    def place(self, video: str, taken: Callable[[Path], bool] = lambda folder: False) -> Path:
        """A folder for a new project, named after the video, which neither exists nor is `taken`."""
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(video).stem).strip("._-")[:60] or "video"
        number = 1
        while (folder := self.folder / (stem if number == 1 else f"{stem}-{number}")).exists() or taken(
            folder
        ):
            number += 1
        return folder

    def find(self, origin: str) -> Path | None:
        """The last changed project of a video, by the `origin_of` the video."""
        return next((self.folder / clip.key for clip in self.clips() if clip.origin == origin), None)

    def thumbnail(self, key: str, get: Get = lambda folder: None) -> bytes:
        """A small JPEG of the first frame with a mask from the user, or of the first frame.

        get: as for `clips`.
        """
        folder = self.path(key)
        project = get(folder) or Project.open(folder)
        index = project.first or 0
        picture = Image.fromarray(overlay(project.frame(index), project.mask(index)))
        picture.thumbnail(_THUMBNAIL)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85)
        return file.getvalue()

    def remove(self, key: str) -> None:
        """Delete a clip with its masks. Raises ValueError if another process works on the clip."""
        folder = self.path(key)
        if folder.is_symlink():
            raise ValueError(f"{folder} is a link; remove it yourself")
        hold = Hold(folder)
        try:
            with suppress(OSError):  # a full disk, where clips are deleted for their room
                Folder(folder).write(UNFINISHED, b"")  # so that `sweep` ends what a kill interrupts
            (folder / FILE).unlink()  # from now on the folder is no project
        finally:
            hold.release()
        _remove(folder)
        self._seen.pop(key, None)

    def sweep(self) -> None:
        """Remove the folders that killed processes left: videos read in part, and clips deleted in part.

        Folders of running processes stay, and all folders on file systems without locks.
        """
        with suppress(OSError):
            left = [Path(one.path) for one in os.scandir(self.folder) if one.is_dir(follow_symlinks=False)]
            for folder in left:
                with suppress(OSError, ValueError):  # gone, or locked by another process
                    if _is_unfinished(folder):
                        hold = Hold(folder)
                        try:
                            if hold.held and _is_unfinished(folder):
                                _remove(folder)
                        finally:
                            hold.release()


def clip_of(project: Project, changed: float = 0.0) -> Clip:
    """What the list shows of an open project."""
    current = sum(map(project.is_current, range(project.count))) if project.given else 0
    left = 0 if project.first is None else project.count - max(project.reached, project.first)
    return Clip(
        project.folder.name,
        project.name,
        project.count,
        len(project.given),
        current,
        max(left, 0),
        len(project.drafts),
        changed,
        origin=project.origin,
    )


def _is_unfinished(folder: Path) -> bool:
    names = {*os.listdir(folder)}
    return UNFINISHED in names and FILE not in names


def _remove(folder: Path) -> None:
    """Remove a folder with its contents; the marker of an unfinished one is removed last."""
    for path in [one for one in folder.iterdir() if one.name not in (UNFINISHED, HELD)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.rmtree(folder)


def _stamp(file: Path) -> int:
    try:
        return file.lstat().st_mtime_ns
    except OSError:
        return 0


def origin_of(video: Path) -> str:
    """Tells videos apart: a hash of the path, and of its size and its time.

    A folder has the number of its files as its size, and the time of its newest file.
    """
    path, facts = os.path.realpath(video), ""
    if os.path.isfile(path):
        file = os.stat(path)
        facts = f"{file.st_size} {file.st_mtime_ns}"
    elif os.path.isdir(path):
        times = [one.stat().st_mtime_ns for one in os.scandir(path) if one.is_file()]
        facts = f"{len(times)} {max(times, default=0)}"
    return hashlib.sha256(os.fsencode(path) + b"\0" + facts.encode()).hexdigest()[:32]


def projects_folder() -> Path:
    """The folder of the user's projects: XDG_DATA_HOME, or the data directory of the system."""
    if os.path.isabs(named := os.environ.get("XDG_DATA_HOME", "")):
        data = Path(named)
    elif sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    else:
        data = Path.home() / ".local" / "share"
    return data / "emavos" / "projects"
