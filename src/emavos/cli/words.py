"""What commands say: numbers as people say them, and texts of strangers that cannot steer a terminal."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """ "1 frame", "2 frames"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def plain(text: str, most: int = 2000) -> str:
    """One line of a text, cut where it is long; what a terminal would obey (ESC and the like) as escapes."""
    line = " ".join(text.split())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line[: most + 1])
    return shown if len(line) <= most else f"{shown[:most]} ..."
