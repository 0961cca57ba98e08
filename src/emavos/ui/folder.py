"""Safe access to the files of an untrusted folder. No link is followed, so no path can leave the folder."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_DESCRIPTORS = os.open in os.supports_dir_fd and os.listdir in os.supports_fd  # not on Windows
_PARTIAL = ".partial"
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_WRITE = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_LIMIT = 1 << 28  # largest file to read at once, in bytes


class Folder:
    """A folder with files named without a path.

    Each call opens `root` and then each subfolder by descriptor, without following links: a link, a pipe or a
    device raises ValueError. Windows has no descriptors for folders; there the check is made just before a
    path is used.

    root: the folder as named by the user; a link is followed, as the user chose it.
    below: names of the subfolders from `root` to this folder. A missing subfolder is empty for reading, and
        is created for writing.
    """

    def __init__(self, root: Path, *below: str) -> None:
        self.root = root
        self.below = below

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.root, *self.below, name)

    @property
    def path(self) -> Path:
        return self.root.joinpath(*self.below)

    def names(self) -> list[str]:
        """The names in the folder, unsorted; empty if the folder does not exist."""
        try:
            with self._entered() as folder:
                return os.listdir(self.path if folder is None else folder)
        except FileNotFoundError:
            return []

    def has(self, name: str) -> bool:
        """Whether the folder contains a regular file of this name."""
        try:
            with self._entered() as folder:
                return stat.S_ISREG(os.lstat(self._at(name, folder), dir_fd=folder).st_mode)
        except (FileNotFoundError, ValueError):
            return False

    def open(self, name: str) -> BinaryIO:
        """A regular file, opened for reading."""
        with self._entered() as folder, self._named(name):
            where = self._at(name, folder)
            if not stat.S_ISREG(os.lstat(where, dir_fd=folder).st_mode):
                raise self._odd(name)
            file = os.open(where, _READ, dir_fd=folder)
            if not stat.S_ISREG(os.fstat(file).st_mode):  # the file was replaced since the check above
                os.close(file)
                raise self._odd(name)
            return os.fdopen(file, "rb")

    def read(self, name: str, limit: int = _LIMIT) -> bytes:
        """The content of a file. Raises ValueError if the file has more than `limit` bytes."""
        with self.open(name) as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise ValueError(f"{self.path / name} has more than {limit:,} bytes")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a file, atomically."""
        with self._entered(make=True) as folder, self._named(name):
            partial = self._at(f".{name}.{secrets.token_hex(4)}{_PARTIAL}", folder)
            try:
                with os.fdopen(os.open(partial, _WRITE | os.O_EXCL, 0o666, dir_fd=folder), "wb") as file:
                    file.write(content)
                os.replace(partial, self._at(name, folder), src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(partial, dir_fd=folder)
                raise

    def append(self, name: str, content: bytes) -> None:
        """Append to a file, created if missing."""
        with self._entered(make=True) as folder, self._named(name):
            where = self._at(name, folder)
            with suppress(FileNotFoundError):
                facts = os.lstat(where, dir_fd=folder)
                if not stat.S_ISREG(facts.st_mode):
                    raise self._odd(name)
                if facts.st_nlink > 1:  # copy first: the file's other hard links must not change
                    self.write(name, self.read(name))
            flags = _WRITE | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)
            with os.fdopen(os.open(where, flags, 0o666, dir_fd=folder), "ab") as file:
                file.write(content)

    @contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        """Yield a path in a new folder to write a large file to; on success the file moves to its place."""
        stage = self.root / f".{name}.{secrets.token_hex(4)}{_PARTIAL}"
        stage.mkdir()
        try:
            yield stage / name
            with self._entered(make=True) as folder, self._named(name):
                os.replace(stage / name, self._at(name, folder), dst_dir_fd=folder)
        except OSError as error:
            if error.errno is None or not str(error.filename).startswith(os.fspath(stage)):
                raise
            raise OSError(error.errno, os.strerror(error.errno), os.fspath(self.path / name)) from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def regular(self, name: str) -> Path:
        """The path of a regular file, checked not to be a link, for libraries that need a path."""
        self.open(name).close()
        return self.path / name

    def remove(self, name: str) -> None:
        """Remove a file or a link, if present."""
        with suppress(FileNotFoundError), self._entered() as folder, self._named(name):
            os.lstat(self._at(name, folder), dir_fd=folder)  # a read-only disk refuses before it looks
            os.unlink(self._at(name, folder), dir_fd=folder)

    def sweep(self) -> None:
        """Remove partial files of killed processes. Call only from the process that holds the folder."""
        for name in self.names():
            if name.startswith(".") and name.endswith(_PARTIAL):
                with suppress(OSError):
                    self.remove(name)
                if not self.below:
                    shutil.rmtree(self.path / name, ignore_errors=True)  # rmtree follows no link

    @contextmanager
    def _entered(self, make: bool = False) -> Iterator[int | None]:
        """The descriptor of the folder; None on systems without descriptors for folders."""
        if not _DESCRIPTORS:
            self._check_below(make)
            yield None
            return
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for depth, name in enumerate(self.below):
                with Folder(self.root, *self.below[:depth])._named(name):
                    if make:
                        with suppress(FileExistsError):
                            os.mkdir(name, dir_fd=folder)
                    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = inner
            yield folder
        except OSError as error:
            # reported for links, depending on the system
            if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
                raise
            raise self._no_folder() from error
        finally:
            os.close(folder)

    def _check_below(self, make: bool) -> None:
        for depth in range(len(self.below)):
            path = self.root.joinpath(*self.below[: depth + 1])
            if make:
                path.mkdir(exist_ok=True)
            facts = os.lstat(path)
            if not stat.S_ISDIR(facts.st_mode) or getattr(facts, "st_reparse_tag", None):
                raise self._no_folder()

    def _no_folder(self) -> ValueError:
        return ValueError(
            f"{self.path} is a link, or no folder; a project's folders are its own, so replace it with one"
        )

    def _at(self, name: str, folder: int | None) -> str:
        assert name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name), name  # noqa: PT018
        return name if folder is not None else os.fspath(self.path / name)

    def _odd(self, name: str) -> ValueError:
        return ValueError(f"{self.path / name} is a link, a pipe or a device; a project holds files alone")

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Name the file in errors by its path, as the user knows the file."""
        try:
            yield
        except OSError as error:
            if error.errno is None:
                raise
            raise OSError(error.errno, os.strerror(error.errno), os.fspath(self.path / name)) from error
