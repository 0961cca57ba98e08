"""Import a video into the folder of a new project: all of its frames, or nothing."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from PIL import Image

from emavos.io import FrameSource
from emavos.ui.facts import MOST_FRAMES, Facts, fit_name, write_facts
from emavos.ui.folder import Folder
from emavos.ui.hold import HELD, Hold
from emavos.ui.sound import FILE as SOUND
from emavos.ui.sound import keep_sound

UNFINISHED = ".unfinished"  # marks an import in progress


def import_video(folder: Path, source: FrameSource, name: str, origin: str = "") -> Iterator[int]:
    """Import a video into a new folder, with its sound; yields the number of frames read so far.

    The folder is locked during the import. When the iterator ends, the folder is a project, ready for
    `Project.open`. If the import stops early, all written files are removed.

    folder: new or empty folder.
    source: frames of the video.
    name: name of the video.
    origin: tells the video apart from others, as `shelf.origin_of`; empty if unknown.

    Raises ValueError if the folder is not empty, frames differ in size, or the video cannot be read.
    """
    check_free(folder)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    hold = Hold(folder)
    try:
        check_free(folder)  # again, as another process may have used the folder since
        Folder(folder).write(UNFINISHED, b"")
        try:
            yield from _read_into(folder, source, name, origin)
        except BaseException:
            _clear(folder)
            raise
        (folder / UNFINISHED).unlink(missing_ok=True)
    finally:
        hold.release()
        if made:
            with suppress(OSError):  # fails if the folder is now a project, or not empty
                folder.rmdir()


def check_free(folder: Path) -> None:
    """Raise ValueError unless a new project can use the folder.

    A folder with the files of a killed import counts as free; `import_video` removes these files.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; a new project needs a folder of its own")
    names = {path.name for path in folder.iterdir()} - {HELD}
    names = {name for name in names if not re.fullmatch(r"\.\.unfinished\.[0-9a-f]{8}\.partial", name)}
    if UNFINISHED in names:
        names -= {UNFINISHED, "frames", SOUND}
        names = {name for name in names if not name.startswith((".project.json.", f".{SOUND}."))}
    if names:
        raise ValueError(f"{folder} is not empty; a new project needs a folder of its own")


def _read_into(folder: Path, source: FrameSource, name: str, origin: str) -> Iterator[int]:
    shutil.rmtree(folder / "frames", ignore_errors=True)  # left by a killed import
    files = Folder(folder)
    files.sweep()
    files.remove(SOUND)
    size: tuple[int, int] | None = None
    count, names = 0, list[str]()
    for count, frame in enumerate(source, start=1):
        size = size or frame.shape[:2]
        if frame.shape[:2] != size:
            began, now = ("x".join(map(str, s)) for s in (size, frame.shape[:2]))
            raise ValueError(f"frame {count - 1} is {now} but the video began with {began}; resize it")
        if count > MOST_FRAMES:
            raise ValueError(f"the video has more than {MOST_FRAMES:,} frames; cut it")
        names.append(fit_name(source.name(count - 1)))
        picture = io.BytesIO()
        Image.fromarray(frame).save(picture, "JPEG", quality=95, subsampling=0)
        (files / "frames").write(f"{count - 1:05d}.jpg", picture.getvalue())
        yield count
    if size is None:
        raise ValueError(f"{name} has no frames")
    plain = all(name == f"{index:05d}" for index, name in enumerate(names)) or len({*names}) < count
    fps = source.fps if source.fps is not None and 0.001 <= source.fps <= 10_000 else None
    if (sound := source.sound) is not None:  # known once all frames were read
        for _ in keep_sound(files, sound.part(0, count / fps if fps else None), name):
            yield count
    write_facts(files, Facts(name, fps, size, count, None if plain else names, origin=origin))


def _clear(folder: Path) -> None:
    """Remove the files of an import, its marker last."""
    shutil.rmtree(folder / "frames", ignore_errors=True)
    (folder / SOUND).unlink(missing_ok=True)
    (folder / UNFINISHED).unlink(missing_ok=True)
