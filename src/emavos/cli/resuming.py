"""Progress of a long `segment`: finished frames and the session, kept for the same command after a stop."""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emavos.io.notices import InputWarning
from emavos.io.text import read_json
from emavos.io.whole import replacing, shortened, sweep
from emavos.settings import differences

if TYPE_CHECKING:
    from emavos.confidence.expected import ObjectState
    from emavos.session import Result, Session

_ON_DAMAGE = "on damage"
SECONDS = 60.0  # between two savings; a shorter run leaves nothing to continue from


class Progress:
    """A hidden folder near the outputs, `.OUT.resume`, with everything a stopped run has finished.

    The folder has the finished masks, the session after the last mask, and facts about the frames in
    `progress.json`. That file is replaced last, so a kill at any moment leaves a complete state.

    out: folder of the masks.
    facts: plain values for JSON that decide the masks: inputs, model and settings.
    force: whether to remove the progress of a run with other facts.
    any_backend: whether the finished frames may be of another backend, because "auto" is asked for.

    Raises ValueError if the folder is of a run with other facts, or damaged.
    """

    def __init__(self, out: Path, facts: Mapping[str, Any], force: bool, any_backend: bool = False) -> None:
        self.folder = _folder(out)
        self.facts = json.loads(json.dumps(facts))
        self.done = 0  # finished frames that are saved
        self.ids: set[int] = set()  # of all objects in finished frames
        self.cuts: list[int] = []  # frames after a scene cut
        self.states: list[dict[int, ObjectState]] = []  # of the finished frames, if they are noted
        self.damaged = False  # whether a damaged frame was met, so that its treatment counts
        self._names: list[str] = []  # of the finished frames that are not saved yet
        self._saved_at = time.monotonic()
        self._read(force, any_backend)

    @property
    def session(self) -> Path | None:
        """File of the saved session; None if the run begins with the first frame."""
        return self.folder / f"session-{self.done}.safetensors" if self.done else None

    def mask(self, name: str) -> Path:
        """The saved mask of a frame."""
        return self.folder / "masks" / f"{name}.png"

    def note(self, name: str, result: Result, states: bool) -> None:
        """Note a finished frame, whose mask the caller writes.

        states: whether to note the states of its objects too.
        """
        self._names.append(name)
        self.ids.update(result.ids)
        if result.cut:
            self.cuts.append(result.index)
        if states:
            self.states.append(result.objects)

    def save_if_due(self, session: Session, masks: Path) -> partial[None] | None:
        """First half of saving, if it is time: writes the session.

        masks: folder of the masks.

        Returns the second half, to be called after the masks were written; None if it is not yet time.
        """
        if not self._names or time.monotonic() - self._saved_at < SECONDS:
            return None
        try:
            (self.folder / "masks").mkdir(parents=True, exist_ok=True)
            session.save(self.folder / f"session-{session.index}.safetensors")
        except OSError as error:
            self._give_up(error)
            return None
        states = [[[id, *astuple(state)] for id, state in objects.items()] for objects in self.states]
        content = {
            "facts": {**self.facts, _ON_DAMAGE: self.facts.get(_ON_DAMAGE) if self.damaged else None},
            "done": session.index,
            "ids": sorted(self.ids),
            "cuts": [*self.cuts],
            "states": states,
        }
        names, self._names, self._saved_at = self._names, [], time.monotonic()
        return partial(self._commit, content, names, masks)

    def withdraw(self, commit: partial[None]) -> None:
        """Undo `save_if_due`, whose second half is not called."""
        self._names = [*commit.args[1], *self._names]

    def _commit(self, content: Mapping[str, Any], names: Sequence[str], masks: Path) -> None:
        try:
            for name in names:
                link(masks / f"{name}.png", self.mask(name))
            with replacing(self.folder / "progress.json") as path:
                path.write_text(json.dumps(content), encoding="utf-8")
        except OSError as error:
            self._give_up(error)
            return
        self.done = content["done"]
        self._drop_old()

    def _give_up(self, error: OSError) -> None:
        """Stop saving, with a warning. The run itself continues."""
        self._saved_at = float("inf")
        warnings.warn(
            f"the progress cannot be saved in {self.folder} ({error.strerror}); if this run is stopped, it "
            "starts over",
            InputWarning,
            stacklevel=2,
        )

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _drop_old(self) -> None:
        """Remove the sessions before the last one."""
        for path in self.folder.glob("session-*.safetensors"):
            if int(path.stem.removeprefix("session-")) < self.done:
                path.unlink(missing_ok=True)

    def _read(self, force: bool, any_backend: bool) -> None:
        from emavos.confidence.expected import ObjectState

        sweep(self.folder)
        path = self.folder / "progress.json"
        if not path.exists():  # nothing was saved
            self.remove()
            return
        try:
            content = read_json(path, "the progress of a run")
            facts, done = dict(content["facts"]), int(content["done"])
            ids, cuts = {*map(int, content["ids"])}, [*map(int, content["cuts"])]
            states = [
                {
                    int(id): ObjectState(bool(present), float(sure), int(area))
                    for id, present, sure, area in row
                }
                for row in content["states"]
            ]
            if done < 1 or len(states) not in (0, done):
                raise ValueError(f"it has {done} frames, but states of {len(states)}")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"{self.folder} is damaged; remove this folder to start over") from error
        if facts.get(_ON_DAMAGE) is None:  # no frame was damaged so far
            facts[_ON_DAMAGE] = self.facts.get(_ON_DAMAGE)
        else:
            self.damaged = True
        if differ := differences(facts, self.facts, any_backend):
            if not force:
                raise ValueError(
                    f"{self.folder} has {done} frames of a stopped run with other {', '.join(differ)}; "
                    "repeat that command to continue it, choose another folder, or --force to start over"
                )
            self.remove()
            return
        self.done, self.ids, self.cuts, self.states = done, ids, cuts, states


def facts_of_stopped(out: Path) -> dict[str, Any] | None:
    """The facts of the stopped run whose progress is kept for these outputs; None if there is none."""
    try:
        return dict(read_json(_folder(out) / "progress.json", "the progress of a run")["facts"])
    except (OSError, ValueError, KeyError, TypeError):  # `Progress` tells what is damaged
        return None


def _folder(out: Path) -> Path:
    """The folder for the progress of a run, in the nearest existing folder above the outputs."""
    out = Path(os.path.abspath(out))
    names = {home: f".{shortened('.'.join(out.relative_to(home).parts))}.resume" for home in out.parents}
    places = [home / name for home, name in names.items() if home.exists()]
    return next((place for place in places if place.exists()), places[0])


def link(source: Path, target: Path) -> None:
    """Make `target` a hard link of a finished file, or a copy if the disk has no links."""
    with suppress(FileNotFoundError):
        target.unlink()
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextmanager
def kept_on_stop(progress: Progress | None, out: Path) -> Iterator[None]:
    """Add to ValueErrors how to continue, if frames are kept."""
    try:
        yield
    except ValueError as error:
        if progress is None or not progress.done:
            raise
        text = str(error).removesuffix("; nothing was written")
        raise ValueError(
            f"{text}; nothing was written to {out}, but {progress.done} frames are kept and the same command "
            "continues after them"
        ) from error
