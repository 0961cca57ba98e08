"""Sessions on disk along a video, so that going back to a frame does not begin at the first."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from emavos.predictor import Predictor
from emavos.session import Session
from emavos.ui.folder import Folder


class States:
    """The states of a session before some frames, as `Session.save` writes them, in a folder.

    limit: bytes they may take. Beyond it every second one goes: they lie further apart, and going back takes
        longer, but the disk does not fill with the length of the video.
    """

    def __init__(self, folder: Path | Folder, limit: int = 2 << 30) -> None:
        self._files = folder if isinstance(folder, Folder) else Folder(folder.parent, folder.name)
        self.limit = limit

    def files(self) -> list[Path]:
        """One for each state, named by the frame that comes next, in their order."""
        named = re.compile(r"\d{6,7}\.safetensors", re.ASCII)
        return [self._files.path / name for name in sorted(self._files.names()) if named.fullmatch(name)]

    def save(self, session: Session) -> None:
        name = f"{session.index:06d}.safetensors"
        with self._files.staged(name) as path:
            session.save(path)
        while len(files := self.files()) > 2 and sum(file.lstat().st_size for file in files) > self.limit:
            for file in files[-2::-2]:  # the last one is that of the frame where work goes on
                self._files.remove(file.name)

    def latest(self, index: int, predictor: Predictor) -> Session | None:
        """The session whose next frame is nearest to `index`, but not beyond it; None where none is."""
        for file in reversed(self.files()):
            if int(file.stem) <= index:
                session = predictor.session(self._files.regular(file.name))
                if session.index == int(file.stem):
                    return session
                with suppress(OSError):  # it is of another frame than its name says
                    self._files.remove(file.name)
        return None

    def forget(self, index: int) -> None:
        """Drop the states that have seen frame `index`."""
        for file in self.files():
            if int(file.stem) > index:
                self._files.remove(file.name)
