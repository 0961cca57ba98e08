"""The public surface changes when somebody means it to."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import pytest

import surface

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_name("surface.txt")


def test_the_public_surface_is_the_one_that_was_written_down():
    recorded, found = RECORD.read_text(encoding="utf-8").splitlines(), surface.surface().splitlines()
    changes = list(difflib.unified_diff(recorded, found, "written down", "found", n=2, lineterm=""))
    if changes:
        lines = "\n".join(changes)
        pytest.fail(
            f"the public surface has changed:\n\n{lines}\n\nIf that is meant, tell of it in "
            "docs/changelog.md (docs/compatibility.md says what may change when) and write it down:\n\n"
            "    python tests/surface.py > tests/surface.txt\n",
            pytrace=False,
        )


def test_what_pages_and_examples_import_is_public():
    names = surface.public()
    known = {*names, *(name.rpartition(".")[0] for name in names)}
    files = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.py")]
    for file in files:
        text = file.read_text(encoding="utf-8")
        used = set(re.findall(r"^::: (\S+)", text, re.MULTILINE))
        for module, names in re.findall(r"^ *from (emavos[\w.]*) import ([\w, ]+)$", text, re.MULTILINE):
            used |= {f"{module}.{name.split(' as ')[0].strip()}" for name in names.split(",")}
        assert used <= known, file
