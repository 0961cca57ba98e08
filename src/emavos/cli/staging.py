"""Outputs that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(target: Path, force: bool) -> Iterator[Path]:
    """A hidden folder to fill; its files go to `target` if the block ends well, and vanish otherwise."""
    target = Path(os.path.abspath(target))
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file, not a folder")
    if target.is_dir() and not force and any(target.iterdir()):
        raise ValueError(f"{target} is not empty; choose another folder, or --force to write over old files")
    # inside the target where there is one, which may be a disk of its own
    home = next(folder for folder in (target, *target.parents) if folder.exists())
    stage = home / f".{target.name}.{secrets.token_hex(4)}.partial"
    try:
        stage.mkdir()
    except OSError as error:
        raise ValueError(f"{target} cannot be written: {error.strerror}") from error
    try:
        yield stage
        for file in sorted(path for path in stage.rglob("*") if path.is_file()):
            goal = target / file.relative_to(stage)
            goal.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, goal)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
