"""Atomic outputs: all outputs of a command appear together, or none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path


@contextmanager
def staged(target: Path, force: bool) -> Iterator[Path]:
    """Yield a hidden folder to fill; its files move to `target` on success and are removed on failure."""
    with staged_together(force) as outputs:
        yield outputs.folder(target)


@contextmanager
def staged_together(force: bool) -> Iterator[Outputs]:
    """Yield `Outputs` written under hidden names, which move to their places together on success.

    If one output cannot be moved, all moves are undone and replaced files are restored. Only a process killed
    during the moves leaves some of the outputs.
    """
    with ExitStack() as stack:
        outputs = Outputs(force, stack)
        yield outputs
        outputs.publish()


class Outputs:
    """The outputs of one command, see `staged_together`.

    force: whether folders may contain files, and files may be replaced.
    stack: stack to add cleanups to.
    """

    def __init__(self, force: bool, stack: ExitStack) -> None:
        self._force = force
        self._stack = stack
        self._outputs: list[_Output] = []

    @property
    def folders(self) -> list[Path]:
        """The hidden folders of all outputs that are folders."""
        return [output.stage for output in self._outputs if not output.single]

    def folder(self, target: Path) -> Path:
        """A hidden folder for the files of folder `target`, which must be new or empty unless forced."""
        target = Path(os.path.abspath(target))
        if target.is_symlink() and not target.exists():
            raise ValueError(f"{target} is a link that leads nowhere; remove it, or choose another folder")
        if target.exists() and not target.is_dir():
            raise ValueError(f"{target} is a file, not a folder")
        # inside the target if it exists, as it may be on another disk
        home = next(folder for folder in (target, *target.parents) if folder.exists())
        return self._stage(target, home)

    def file(self, target: Path, option: str) -> Path:
        """A hidden path for the file `target`; `option` is used in error messages."""
        target = Path(os.path.abspath(target))
        if target.is_dir():
            raise ValueError(f"{option} {target} is a folder, not a file")
        home = next(folder for folder in target.parents if folder.exists())
        if not home.is_dir():
            raise ValueError(f"{target} cannot be written: {home} is in its way")
        return self._stage(target, home, single=True) / target.name

    def _stage(self, target: Path, home: Path, single: bool = False) -> Path:
        from emavos.io.whole import in_use, partial_folder, sweep

        def check_unused(ours: Path | None = None) -> None:
            if in_use(home, target.name, ours):
                raise ValueError(
                    f"{target} is being written by another run; wait for it, or choose another place"
                )

        sweep(home, target.name)
        output = _Output(target, home, single)
        check_unused()
        self._check_new(output)
        try:
            output.stage = self._stack.enter_context(partial_folder(home, target.name))
        except OSError as error:
            raise ValueError(f"{target} cannot be written: {error.strerror}") from error
        check_unused(output.stage)  # again, as another run may have started since
        self._stack.enter_context(_told_of(output))
        self._outputs.append(output)
        return output.stage

    def _check_new(self, output: _Output) -> None:
        """Raise ValueError if an output would overwrite files without --force."""
        target, stages = output.target, {one.stage for one in self._outputs}
        if self._force:
            return
        if output.single and target.exists():
            raise ValueError(f"{target} exists; choose another name, or --force to write over it")
        if not output.single and target.is_dir() and not {*target.iterdir()} <= stages:
            raise ValueError(
                f"{target} is not empty; choose another folder, or --force to write over old files"
            )

    def publish(self) -> None:
        """Move all outputs to their places, or none."""
        for output in self._outputs:
            self._check_new(output)  # again, as another program may have written files since
            output.check_way()
        with ExitStack() as undo:
            for output in self._outputs:
                output.move(undo)
            undo.pop_all()  # success: keep all moves


@dataclass
class _Output:
    target: Path
    home: Path  # parent of the hidden folder
    single: bool  # whether `target` is a file
    stage: Path = field(default=Path())

    def moves(self) -> list[tuple[Path, Path]]:
        """Moves as (from, to): the whole folder if the target does not exist, otherwise file by file."""
        if not self.single and not self.target.exists():
            return [(self.stage, self.target)]
        place = self.target.parent if self.single else self.target
        files = [file for file in sorted(self.stage.rglob("*")) if file.is_file()]
        return [(file, place / file.relative_to(self.stage)) for file in files]

    def check_way(self) -> None:
        """Raise ValueError if a folder or file blocks an output."""
        for _, goal in self.moves():
            above = next(folder for folder in goal.parents if folder.exists())
            if goal.is_dir() or not above.is_dir():
                raise ValueError(
                    f"{goal} cannot be written: {goal if goal.is_dir() else above} is in its way"
                )

    def move(self, undo: ExitStack) -> None:
        """Move the staged files, and register the undo steps."""
        for number, (file, goal) in enumerate(self.moves()):
            for folder in reversed([folder for folder in goal.parents if not folder.exists()]):
                folder.mkdir()
                undo.callback(_rmdir, folder)
            old = None
            if goal.exists():
                old = self.stage / f".old-{number}"
                try:
                    os.link(goal, old)
                except OSError:  # a disk without hard links
                    shutil.copy2(goal, old)
            try:
                os.replace(file, goal)
            except OSError as error:
                if file == self.stage and goal.is_dir():
                    raise ValueError(
                        f"{goal} was filled by another program meanwhile; choose another folder"
                    ) from error
                raise
            undo.callback(os.replace, *((goal, file) if old is None else (old, goal)))


@contextmanager
def _told_of(output: _Output) -> Iterator[None]:
    """Name the target instead of the hidden folder in OSErrors."""
    try:
        yield
    except OSError as error:
        name = str(error.filename)
        if error.errno is None or not name.startswith(str(output.stage)):
            raise
        rest = name.removeprefix(str(output.stage))
        place = output.target if output.single else f"{output.target}{rest}"
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(place)) from error


def _rmdir(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
