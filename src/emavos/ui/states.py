"""Sessions on disk along a video, so that going back to a frame does not begin at the first."""

from __future__ import annotations

from pathlib import Path

from emavos.predictor import Predictor
from emavos.session import Session


class States:
    """The states of a session before some frames, as `Session.save` writes them, in a folder.

    limit: bytes they may take. Beyond it every second one goes: they lie further apart, and going back takes
        longer, but the disk does not fill with the length of the video.
    """

    def __init__(self, folder: Path, limit: int = 2 << 30) -> None:
        self.folder = folder
        self.limit = limit

    def files(self) -> list[Path]:
        """One for each state, named by the frame that comes next, in their order."""
        return sorted(file for file in self.folder.glob("*.safetensors") if file.stem.isdecimal())

    def save(self, session: Session) -> None:
        self.folder.mkdir(exist_ok=True)
        session.save(self.folder / f"{session.index:06d}.safetensors")
        while len(files := self.files()) > 2 and sum(file.stat().st_size for file in files) > self.limit:
            for file in files[-2::-2]:  # the last one is that of the frame where work goes on
                file.unlink()

    def latest(self, index: int, predictor: Predictor) -> Session | None:
        """The session whose next frame is nearest to `index`, but not beyond it; None where none is."""
        for file in reversed(self.files()):
            if int(file.stem) <= index:
                return predictor.session(file)
        return None

    def forget(self, index: int) -> None:
        """Drop the states that have seen frame `index`."""
        for file in self.files():
            if int(file.stem) > index:
                file.unlink()
