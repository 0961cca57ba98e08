"""Docstrings of this library as Markdown, for the pages of the API: an extension that `mkdocs.yml` names.

They are written to be read in an editor: a paragraph begins with the names of the arguments it is about, and
examples stand as they would be typed. Here the former become a list, and the latter blocks of code. Comments
beside the fields of a dataclass become a list too.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ARGUMENTS = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): (?=\S)")


class Docstrings(griffe.Extension):
    """Rewrites each docstring of an object when it is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = markdown(obj.docstring.value)
            obj.docstring.value = text + fields(obj) if "dataclass" in obj.labels else text


def fields(obj: griffe.Object) -> str:
    """A list of the fields of a dataclass, by the comments behind them."""
    source, items = obj.lines_collection[obj.filepath], []
    for name, member in obj.members.items():
        if member.is_attribute and member.lineno is not None and "  # " in source[member.lineno - 1]:
            items.append(f"* `{name}`: {source[member.lineno - 1].partition('  # ')[2]}")
            for line in source[member.lineno :]:  # a comment that goes on
                if not line.strip().startswith("# "):
                    break
                items[-1] += line.strip().removeprefix("#")
    return "\n\n" + "\n".join(items).replace("[", r"\[") if items else ""  # intervals are no links


def markdown(text: str) -> str:
    """A docstring as Markdown."""
    lines, block = [], ""  # block: what the line before belonged to
    for line in text.splitlines():
        kind = _kind(line, block)
        if kind != block:
            lines += ["```"] * (block == "example") + [""] + ["```pycon"] * (kind == "example")
        if kind == "arguments" and not line.startswith(" "):
            line = "* " + re.sub(r"\w+", r"`\g<0>`", line[: line.index(":")]) + line[line.index(":") :]
        lines.append(line)
        block = kind
    return "\n".join([*lines, *["```"] * (block == "example")])


def _kind(line: str, block: str) -> str:
    if not line.strip():
        return ""
    if line.startswith(">>>") or block == "example":
        return "example"
    if (_ARGUMENTS.match(line) and block != "text") or (block == "arguments" and line.startswith(" ")):
        return "arguments"
    return "code" if line.startswith("    ") and block in ("", "code") else "text"
