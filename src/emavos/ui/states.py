"""Saved sessions along a video, so that tracking again need not start at the first frame."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from emavos.predictor import Predictor
from emavos.session import Session
from emavos.ui.folder import Folder


class States:
    """A folder with states of a session before some frames, written by `Session.save`.

    folder: folder of the files.
    limit: largest total size in bytes. Above the limit, every second state is removed, so the disk does not
        fill up with long videos; going back then tracks more frames again.
    """

    def __init__(self, folder: Path | Folder, limit: int = 2 << 30) -> None:
        self._files = folder if isinstance(folder, Folder) else Folder(folder.parent, folder.name)
        self.limit = limit

    def files(self) -> list[Path]:
        """The files of the states in frame order, each named by its next frame."""
        named = re.compile(r"\d{6,7}\.safetensors", re.ASCII)
        return [self._files.path / name for name in sorted(self._files.names()) if named.fullmatch(name)]

    def save(self, session: Session) -> None:
        name = f"{session.index:06d}.safetensors"
        with self._files.staged(name) as path:
            session.save(path)
        while len(files := self.files()) > 2 and sum(file.lstat().st_size for file in files) > self.limit:
            for file in files[-2::-2]:  # keep the last, as tracking continues there
                self._files.remove(file.name)

    def latest(self, index: int, predictor: Predictor) -> Session | None:
        """The latest saved session whose next frame is at most `index`; None if there is none."""
        for file in reversed(self.files()):
            if int(file.stem) <= index:
                session = predictor.session(self._files.regular(file.name))
                if session.index == int(file.stem):
                    return session
                with suppress(OSError):  # the file's name does not match its frame
                    self._files.remove(file.name)
        return None

    def forget(self, index: int) -> None:
        """Remove the states that have seen frame `index`."""
        for file in self.files():
            if int(file.stem) > index:
                self._files.remove(file.name)
