"""The tables of docs/performance.md that need no data, measured anew: `python tables.py FILE`.

The program runs for about ten minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from emavos.io.whole import replacing

HERE = Path(__file__).resolve().parent

# Of each table the program of this folder, or the command, and its arguments.
TABLES: Sequence[tuple[str, Sequence[str]]] = (
    ("Stages and frames a second", ("emavos", "bench", "--objects", "1", "3")),
    ("Beside the reference's method", ("reference.py", "--near", "--backend", "native")),
    (
        "The readout",
        ("readout.py", "--backends", "auto", "native", "--dense-up-to", "20"),
    ),
    (
        "The readout, keys of a clip",
        (
            "readout.py",
            "--keys",
            "clip",
            "--backends",
            "auto",
            "native",
            "--dense-up-to",
            "20",
        ),
    ),
    ("Files read and written in threads", ("files.py",)),
    ("Attention", ("attention.py",)),
    ("Attention's share of a frame", ("attention.py", "--share")),
)
COMPUTED = ("Bounds of a readout on a GPU", ("roofline.py",))


def sections(options: Sequence[str]) -> Iterator[str]:
    """Markdown of each table: its title, its command and the output of the command.

    options: further arguments of all programs, such as --threads 2.

    Raises RuntimeError if a program fails.
    """
    for title, command in (*((title, (*words, *options)) for title, words in TABLES), COMPUTED):
        program, *rest = command
        way = [f"docs/measure/speed/{program}"] if program.endswith(".py") else ["-m", program]
        run = [str(HERE / program)] if program.endswith(".py") else way
        done = subprocess.run([sys.executable, *run, *rest], capture_output=True, text=True, check=False)
        line = " ".join(["python", *way, *rest])
        if done.returncode != 0:
            raise RuntimeError(f"{line} failed: {done.stderr[-2000:]}")
        shown = done.stdout if "\n| ---" in done.stdout else f"```\n{done.stdout}```\n"
        yield f"## {title}\n\n```\n{line}\n```\n\n{shown}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/tables.py", description=__doc__)
    parser.add_argument("file", type=Path, metavar="MD", help="what is written")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of torch (its default)")
    args = parser.parse_args(argv)
    options = [] if args.threads is None else ["--threads", str(args.threads)]
    parts = ["# Measured on this machine"]
    for part in sections(options):
        parts.append(part)
        print(part, flush=True)
    with replacing(args.file) as partial:
        partial.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
