"""Choose frames of a source: by a pattern of file names, a range, every Nth, or all that are not damaged."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from fnmatch import fnmatchcase
from fractions import Fraction
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from emavos.io.addresses import check_reachable
from emavos.io.notices import notice
from emavos.io.sound import Sound
from emavos.io.source import FrameSource

_NUMBERED = re.compile(r"%(0?)([0-9]{0,2})d")
_MOST_MISSING = 4  # missing numbers listed in a warning


def is_pattern(path: Path) -> bool:
    """Whether the name of a missing file has a wildcard, or a number in printf style."""
    return bool(re.search(r"[*?\[]", path.name) or _NUMBERED.search(path.name))


def matching(path: Path) -> list[Path]:
    """The files matching a pattern, unordered: `frames/*.png`, `frames/%05d.png`.

    Missing numbers of a `%05d` between the first and the last are reported as `InputWarning`.

    Raises FileNotFoundError if no file matches, ValueError if the folder is a pattern too.
    """
    folder, name = path.parent, path.name
    if not folder.is_dir():
        check_reachable(folder)
        raise FileNotFoundError(f"{path} matches no file: there is no folder {folder}")
    names = [file.name for file in folder.iterdir() if file.name[0] != "."]
    numbered = _NUMBERED.search(name)
    if numbered is None:
        matches = [each for each in names if fnmatchcase(each, name)]
    else:
        before, after = name[: numbered.start()], name[numbered.end() :].replace("%%", "%")
        width = int(numbered[2] or 0) if numbered[1] else 0
        number = re.compile(re.escape(before.replace("%%", "%")) + "([0-9]{1,18})" + re.escape(after))
        numbers = {}
        for each in names:
            if (match := number.fullmatch(each)) and len(match[1]) == max(
                width, len(match[1].lstrip("0") or "0")
            ):
                numbers[int(match[1])] = each
        matches = [*numbers.values()]
        _tell_missing(path, sorted(numbers))
    if not matches:
        raise FileNotFoundError(f"{path} matches no file of {folder}")
    return [folder / each for each in matches]


class _Part(FrameSource):
    """Some of the frames of a source. Frames keep their names."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source

    def _number(self, index: int) -> int:
        """The index in the source of a frame of this part."""
        raise NotImplementedError

    def _place(self, number: int) -> int | None:
        """The index in this part of a frame of the source; None if the frame is left out."""
        raise NotImplementedError

    @property
    def whole(self) -> FrameSource:
        return self._source.whole

    def place(self, number: int) -> int | None:
        index = self._source.place(number)
        return None if index is None else self._place(index)

    def size(self) -> tuple[int, int] | None:
        return self._source.size()

    @property
    def pixel_aspect(self) -> Fraction | None:
        return self._source.pixel_aspect

    def name(self, index: int) -> str:
        return self._source.name(self._number(index))

    def find(self, name: str) -> int | None:
        index = self._source.find(name)
        return None if index is None else self._place(index)

    @property
    def damaged(self) -> bool:
        return self._source.damaged

    def tell_damage(self) -> None:
        self._source.tell_damage()


class Chosen(_Part):
    """The frames start, start + step, ... before stop of a source."""

    def __init__(self, source: FrameSource, start: int = 0, stop: int | None = None, step: int = 1) -> None:
        super().__init__(source)
        self._start, self._stop, self._step = start, stop, step
        self.stored, self.exact, self.holds = source.stored, source.exact, source.holds
        self.live = source.live
        self.count = None if source.count is None else len(range(start, _least(stop, source.count), step))
        if self.exact and self.count == 0:
            raise ValueError(f"there is no frame from {start} on; the video has {source.count} frames")

    @cached_property  # for some videos, the rate is found by reading the file
    def fps(self) -> float | None:  # type: ignore[override]
        return None if self._source.fps is None else self._source.fps / self._step

    @cached_property
    def sound(self) -> Sound | None:  # type: ignore[override]
        sound, fps = self._source.sound, self._source.fps
        if sound is None or not fps:
            return None
        return sound.part(self._start / fps, None if self._stop is None else self._stop / fps)

    def __iter__(self) -> Iterator[Any]:
        frames = iter(self._source)
        try:
            empty = True
            for frame in islice(frames, self._start, self._stop, self._step):
                empty = False
                yield frame
            if empty:
                raise ValueError(f"there is no frame from {self._start} on")
            self.tell_damage()
        finally:
            if close := getattr(frames, "close", None):
                close()

    def reel(self) -> Any:
        reel = self._source.reel()
        return (
            None
            if reel is None
            else _ChosenReel(reel, range(self._start, _least(self._stop, len(reel)), self._step))
        )

    def is_damaged(self, index: int) -> bool:
        return self._source.is_damaged(self._number(index))

    def stands_in(self, index: int) -> bool:
        this = self._number(index)
        return index > 0 and all(map(self._source.stands_in, range(this - self._step + 1, this + 1)))

    def _number(self, index: int) -> int:
        return self._start + index * self._step

    def _place(self, number: int) -> int | None:
        place, rest = divmod(number - self._start, self._step)
        inside = place >= 0 and not rest and (self._stop is None or number < self._stop)
        return place if inside else None


class WithoutDamaged(_Part):
    """The frames of a video without the damaged ones.

    The first question about a name or a place of a frame decodes the whole video, to find the damage.
    """

    stored = True
    exact = False

    def __init__(self, source: FrameSource) -> None:
        super().__init__(source)
        self.count = source.count

    @cached_property
    def _read(self) -> tuple[list[int], int]:
        """The indices of the damaged frames, and the number of the others."""
        read = sum(1 for _ in self._source)
        damaged = [index for index in range(read) if self._source.is_damaged(index)]
        return damaged, read - len(damaged)

    @cached_property
    def _good_before(self) -> list[int]:
        """The number of good frames before each damaged one."""
        return [number - place for place, number in enumerate(self._read[0])]

    @property
    def fps(self) -> float | None:  # type: ignore[override]
        return self._source.fps

    @property
    def sound(self) -> Sound | None:  # type: ignore[override]
        return None if self._read[0] else self._source.sound  # would be late by the frames left out

    def __iter__(self) -> Iterator[Any]:
        empty = True
        for index, frame in enumerate(self._source):
            if not self._source.is_damaged(index):
                empty = False
                yield frame
        if empty:
            raise ValueError("all of these frames are damaged; none is left to track")

    def _number(self, index: int) -> int:
        return index + bisect_right(self._good_before, index)

    def _place(self, number: int) -> int | None:
        damaged, good = self._read
        before = bisect_left(damaged, number)
        missing = damaged[before : before + 1] == [number] or number - before >= good
        return None if missing else number - before


class _ChosenReel:
    def __init__(self, reel: Any, places: range) -> None:
        self._reel, self._places = reel, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Any:
        return self._reel[self._places[index]]


def chosen(source: FrameSource, start: int = 0, stop: int | None = None, step: int = 1) -> FrameSource:
    """The frames start, start + step, ... before stop.

    Raises ValueError unless start is at least 0, stop greater than start, and step at least 1.
    """
    numbers = (start, start + 1 if stop is None else stop, step)
    if any(isinstance(v, bool) or not isinstance(v, int) for v in numbers) or start < 0 or step < 1:
        raise ValueError(
            f"start is a whole number from 0 and step from 1, not {start!r:.20} and {step!r:.20}"
        )
    if stop is not None and stop <= start:
        raise ValueError(
            f"stop is the number of the first frame left out, after start, not {stop} after {start}"
        )
    return Chosen(source, start, stop, step)


def _least(stop: int | None, count: int) -> int:
    return count if stop is None else min(stop, count)


def _tell_missing(path: Path, numbers: list[int]) -> None:
    """Warn about missing numbers between the first and the last."""
    gaps = [(a + 1, b - 1) for a, b in pairwise(numbers) if b - a > 1]
    if gaps:
        shown = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in gaps[:_MOST_MISSING])
        more = " and more" if len(gaps) > _MOST_MISSING else ""
        notice(f"{path}: no file has the numbers {shown}{more}", stacklevel=5)
