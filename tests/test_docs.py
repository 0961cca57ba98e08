"""The site of docs/: every page is reached, and all that the pages name exists."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from emavos.cli import main
from emavos.machine import INSTALL, how_to_install

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def test_the_navigation_names_every_page_once_and_no_other():
    named = re.findall(r"\b[\w/-]+\.md\b", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2])
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


def test_the_page_on_compatibility_names_the_least_versions_of_the_project():
    project, page = (path.read_text() for path in (ROOT / "pyproject.toml", DOCS / "compatibility.md"))
    least = re.findall(r'^  "([a-z_]+)>=([\d.]+)",$', project, re.MULTILINE)
    assert len(least) == 6
    assert re.findall(r"^\| ([a-z_]+) \| ([\d.]+) \|", page, re.MULTILINE) == least
    python = re.search(r'requires-python = ">=([\d.]+)"', project)[1]
    assert f"Python from {python} on" in page


_NUMBER = r"(\d+|(twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|dozen)\b)"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.stem)
def test_no_page_counts_lines_of_code_which_change_with_every_edit(page):
    text = " ".join(page.read_text().split())
    counted = re.findall(
        rf"{_NUMBER} lines( of (code|script|ours|Python|NumPy|C\+\+|JavaScript)|, tested)", text
    )
    assert not counted


def test_what_bfloat16_costs_is_the_same_on_every_page():
    decisions, performance = ((DOCS / name).read_text() for name in ("decisions.md", "performance.md"))
    rows = re.findall(
        r"^\| `(?:tiny|base)` \| \d+ \| ([\d.]+) \| ([\d.]+) \| (-[\d.]+) \|", performance, re.M
    )
    assert len(rows) == 2
    for single, half, difference in rows:
        assert f"{float(half) - float(single):.4f}" == difference
    most = 100 * max(float(single) - float(half) for single, half, _ in rows)
    said = re.search(
        r"costs\s+([\d.]+)\s+points\s+of\s+J&F\s+or\s+less\s+on\s+the\s+held-out\s+suite", decisions
    )
    assert said[1] == f"{most:.2f}"


def test_nothing_of_the_site_is_fetched_from_elsewhere():
    assert "font: false" in (ROOT / "mkdocs.yml").read_text()
    for page in PAGES:
        assert not re.search(r"!\[[^\]]*\]\(https?:|<(script|img|iframe)\b", page.read_text()), page


def test_what_the_pages_of_the_api_name_can_be_imported():
    for page in (DOCS / "api").glob("*.md"):
        for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE):
            parts = name.split(".")
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(".".join(parts[:-1])), parts[-1]), f"{page}: {name}"


def test_every_picture_is_used_and_those_that_are_drawn_are_there():
    shown = "".join(page.read_text() for page in [*PAGES, ROOT / "README.md"])
    for picture in (DOCS / "images").iterdir():
        assert f"images/{picture.name}" in shown, picture.name


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_commands_of_the_pages_exist(page, capsys):
    text = page.read_text()
    blocks = re.findall(r"^```(?s:.*?)^```|^ {4}.*", text, re.MULTILINE)  # a sentence may begin with emavos
    named = re.findall(r"`emavos ([a-z]+)", text)
    for command in {*named, *re.findall(r"^ *emavos ([a-z]+)", "\n".join(blocks), re.MULTILINE)}:
        assert main([command, "--help"]) == 0
    capsys.readouterr()


def test_docstrings_become_lists_of_arguments_and_blocks_of_code():
    pytest.importorskip("griffe", reason="the extra 'docs' is not installed")
    code = f"""
import sys
sys.path.insert(0, {str(DOCS)!r})
from docstrings import markdown
print(markdown('''What it gives, and some
more: it goes on.

    S = k q

x, y: two numbers,
    of one kind. z: more.
other: text

>>> f(1)
2

Raises ValueError: never.'''))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if line] == [
        "What it gives, and some",
        "more: it goes on.",
        "    S = k q",
        "* `x`, `y`: two numbers,",
        "    of one kind. z: more.",
        "* `other`: text",
        "```pycon",
        ">>> f(1)",
        "2",
        "```",
        "Raises ValueError: never.",
    ]


def test_every_text_installs_emavos_from_the_place_that_errors_name():
    """The day emavos is published, `emavos.machine.INSTALL` changes; this test then lists what else does."""
    place = re.search(r'"(.+)\[', INSTALL)[1]
    patterns = ("*.md", "docs/**/*.md", "docs/**/*.py", "examples/**/*", "src/**/*.py", "src/**/*.md")
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    texts = [path for path in files if path.suffix in (".md", ".py", ".ipynb")]
    named = re.compile(r"""pip (?:install|download)\b[^\n`]*?[ '"](\.|emavos)(?:\[|['"\s]|$)""", re.MULTILINE)
    installs = {path: set(named.findall(path.read_text(encoding="utf-8"))) for path in texts}
    assert len([path for path, places in installs.items() if places]) > 8
    assert {path: places for path, places in installs.items() if places - {place}} == {}
    assert how_to_install("ui") == 'run pip install ".[ui]" in your clone of emavos'
