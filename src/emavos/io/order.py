"""The order of numbered files, and what may surprise in it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from pathlib import Path

_DOTTED = re.compile(r"(?<![0-9.])([0-9]+)\.([0-9]+)(?![0-9]|\.[0-9])")
_SIGN = re.compile(r"(?:^|(?<=[=_ (]))-(?=[0-9])")


def natural_order(files: Iterable[Path]) -> list[Path]:
    """Files in the order of the numbers in their names: 2 before 10, 0.25 before 0.5, -1 before 0."""
    files = list(files)
    decimals, signs = number_style([file.stem for file in files])
    number = r"[0-9]+"
    if decimals:
        number = r"(?:(?<![0-9.])[0-9]+\.[0-9]+(?![0-9]|\.[0-9])|[0-9]+)"
    if signs:
        number = rf"(?:(?:^|(?<=[=_ (]))-)?{number}"
    split = re.compile(f"({number})").split

    def key(path: Path) -> tuple[list[str | int | Decimal], str]:
        parts = split(path.stem.lower())  # text at even places, numbers at odd ones
        return [_number(part) if i % 2 else part for i, part in enumerate(parts)], path.name

    return sorted(files, key=key)


def order_to_tell(stems: Sequence[str]) -> str:
    """What may surprise in the order of names: decimals of unequal length, and signs. Otherwise ""."""
    decimals, signs = number_style(stems)
    lengths = {len(part) for stem in stems for _, part in _DOTTED.findall(stem)}
    if signs:
        return f"names with a minus sign are ordered as negative numbers: {stems[0]} comes first"
    if len(lengths) < 2:
        return ""
    how = "numbers with decimals" if decimals else "two numbers, 1.9 before 1.10"
    return f"names with a point between digits are ordered as {how}: {', '.join(stems[:3])} come first"


def number_style(stems: Sequence[str]) -> tuple[bool, bool]:
    """Whether 0.25 in these names is a quarter rather than 0 and 25, and whether -1 is negative."""
    fractions: dict[str, set[str]] = {}
    for stem in stems:
        for whole, part in _DOTTED.findall(stem):
            fractions.setdefault(whole, set()).add(part)
    parts = {part for each in fractions.values() for part in each}
    decimals = len({len(part) for part in parts}) > 1 and not all(map(_counts, fractions.values()))
    signed = [bool(_SIGN.search(stem)) for stem in stems]
    return decimals, any(signed) and not all(signed)


def _counts(parts: Collection[str]) -> bool:
    """Whether these count, 1, 2, ... 10, without zeros before them."""
    if any(part != str(int(part)) for part in parts):
        return False
    numbers = sorted(map(int, parts))
    return numbers[0] <= 1 and numbers == [*range(numbers[0], numbers[0] + len(numbers))]


def _number(text: str) -> int | Decimal:
    return Decimal(text) if "." in text else int(text)
