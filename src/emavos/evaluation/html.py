"""An evaluation report as one HTML file with all pictures inside, readable offline."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from emavos.evaluation.report import Cell, Table, shown
from emavos.io import Pixels


@dataclass(frozen=True)
class Section:
    """A heading, followed by tables and pictures with their captions."""

    title: str
    tables: Sequence[tuple[str, Table]] = ()
    pictures: Sequence[tuple[str, Pixels]] = ()
    text: str = ""  # preformatted


def html_report(title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """The text of an HTML page with embedded pictures. Names and texts are escaped."""
    terms = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    body = "\n".join(map(_section, sections))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n<dl>{terms}</dl>\n{body}\n</body></html>\n"
    )


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #46484e; background: #fafaf8; max-width: 1280px;
       margin: 2em auto; padding: 0 1.5em; }
h1, h2 { font-weight: 600; color: #222; } h2 { margin-top: 2em; }
table { border-collapse: collapse; margin: .5em 0 1.5em; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .9em; border-bottom: 1px solid #e0e0dc; text-align: right; }
th { border-bottom: 2px solid #bbb; color: #222; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
dl { display: grid; grid-template-columns: max-content auto; gap: .1em 1.2em; }
dt { color: #888; } dd { margin: 0; } pre { overflow-x: auto; font-size: 13px; }
figure { margin: 1em 0; } img { max-width: 100%; height: auto; } figcaption { color: #777; }
.wide { overflow-x: auto; }
"""


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<pre>{escape(section.text)}</pre>")
    for caption, table in section.tables:
        parts.append(f"<p>{escape(caption)}</p>" if caption else "")
        parts.append(_table(table))
    for caption, picture in section.pictures:
        parts.append(
            f'<figure><img alt="{escape(caption)}" src="{_data_uri(picture)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return "\n".join(part for part in parts if part)


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    return f'<div class="wide"><table><tr>{head}</tr>\n{rows}</table></div>'


def _cell(cell: Cell) -> str:
    return f"<td>{escape(shown(cell))}</td>"


def _data_uri(picture: Pixels) -> str:
    """A picture as a data URI: flat drawings as PNG, photographs as JPEG because JPEG is smaller."""
    image, file = Image.fromarray(picture), io.BytesIO()
    kind = "jpeg" if image.getcolors(4096) is None else "png"
    image.save(file, kind, quality=88)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
