"""Outputs that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def staged(target: Path, force: bool) -> Iterator[Path]:
    """A hidden folder to fill; its files go to `target` if the block ends well, and vanish otherwise."""
    from emavos.io.whole import partial_folder, sweep

    target = Path(os.path.abspath(target))
    # inside the target where there is one, which may be a disk of its own
    home = next(folder for folder in (target, *target.parents) if folder.exists())
    sweep(home, target.name)
    if target.is_symlink() and not target.exists():
        raise ValueError(f"{target} is a link that leads nowhere; remove it, or choose another folder")
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file, not a folder")
    if target.is_dir() and not force and any(target.iterdir()):
        raise ValueError(f"{target} is not empty; choose another folder, or --force to write over old files")
    with ExitStack() as stack:
        try:
            stage = stack.enter_context(partial_folder(home, target.name))
        except OSError as error:
            raise ValueError(f"{target} cannot be written: {error.strerror}") from error
        with _told_of(target, stage):
            yield stage
            _publish(stage, target)


@contextmanager
def _told_of(target: Path, stage: Path) -> Iterator[None]:
    """What the disk says of a hidden folder is said of the one that people know."""
    try:
        yield
    except OSError as error:
        name = str(error.filename)
        if error.errno is None or not name.startswith(str(stage)):
            raise
        place = f"{target}{name.removeprefix(str(stage))}"
        raise OSError(error.errno, os.strerror(error.errno), place) from error


def _publish(stage: Path, target: Path) -> None:
    """Put what was staged in its place: at once where there is nothing yet, otherwise file by file."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(stage, target)
        return
    for file, goal in check_way(stage, target):
        goal.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, goal)


def check_way(stage: Path, target: Path) -> list[tuple[Path, Path]]:
    """What is staged, with the place of each file; ValueError where something stands in the way of one."""
    moves = [(file, target / file.relative_to(stage)) for file in sorted(stage.rglob("*")) if file.is_file()]
    for _, goal in moves:
        above = next(folder for folder in goal.parents if folder.exists())
        if goal.is_dir() or not above.is_dir():
            raise ValueError(f"{goal} cannot be written: {goal if goal.is_dir() else above} is in its way")
    return moves
