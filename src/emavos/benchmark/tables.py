"""The tables of docs/performance.md that need no data, measured anew on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence

# Of each table the module and its arguments.
TABLES: Sequence[tuple[str, Sequence[str]]] = (
    ("Stages and frames a second", ("emavos", "bench", "--objects", "1", "3")),
    ("Beside the reference's method", ("emavos.benchmark.reference", "--near", "--backend", "native")),
    (
        "The readout",
        ("emavos.benchmark.readout", "--backends", "auto", "native", "--dense-up-to", "20"),
    ),
    (
        "The readout, keys of a clip",
        (
            "emavos.benchmark.readout",
            "--keys",
            "clip",
            "--backends",
            "auto",
            "native",
            "--dense-up-to",
            "20",
        ),
    ),
    ("Files read and written in threads", ("emavos.benchmark.files",)),
    ("Attention", ("emavos.benchmark.attention",)),
    ("Attention's share of a frame", ("emavos.benchmark.attention", "--share")),
)
COMPUTED = ("Bounds of a readout on a GPU", ("emavos.benchmark.roofline",))


def sections(options: Sequence[str]) -> Iterator[str]:
    """Markdown of each table: its title, its command and what that printed.

    options: further arguments of all that measure, such as --threads 2. Raises RuntimeError where one fails.
    """
    for title, command in (*((title, (*words, *options)) for title, words in TABLES), COMPUTED):
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"python -m {' '.join(command)} failed: {done.stderr[-2000:]}")
        shown = done.stdout if "\n| ---" in done.stdout else f"```\n{done.stdout}```\n"
        yield f"## {title}\n\n```\npython -m {' '.join(command)}\n```\n\n{shown}"
