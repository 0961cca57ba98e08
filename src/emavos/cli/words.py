"""Words for messages: counts, and untrusted text made safe for a terminal."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """ "1 frame", "2 frames"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shown(text: str, but: str = "") -> str:
    """A text with terminal control characters (such as ESC) escaped; `but` lists characters to keep."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in but else c.encode("unicode_escape").decode() for c in text)


def plain(text: str, most: int = 2000) -> str:
    """One line of a text, shortened if long, with terminal control characters (such as ESC) escaped."""
    line = " ".join(text.split())
    return shown(line) if len(line) <= most else f"{shown(line[:most])[:most]} ..."
