"""The kinds of faults that people met, what holds now, and how many cases of each the tests try.

    python docs/measure/quality/kinds.py

Runs the tests of each kind and rewrites the table of docs/reliability.md. A case is one test with one set of
its values. Nothing is written if one fails. `--count` counts the cases and runs none.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "reliability.md"
HEADER = "| what goes wrong | what holds | tried by | cases |"


@dataclass(frozen=True)
class Kind:
    """One row: the fault, the promise against it, and the test files (or files::tests) that try it."""

    fault: str
    promise: str
    tests: tuple[str, ...]


KINDS = (
    Kind(
        "a score counts ids that the truth lacks, or skips some",
        "every scorer counts the ids of the truth, as vos-benchmark and DAVIS do",
        ("evaluation/test_scoring.py", "evaluation/test_metrics.py", "evaluation/test_layouts.py"),
    ),
    Kind(
        "a folder has a mask or other pictures among its frames, or an odd order",
        "one line says what is left out, added or ordered oddly, or the folder is refused",
        ("test_folders.py", "hostile/test_files.py"),
    ),
    Kind(
        "a video is cut, damaged, mirrored or late, or its header is wrong",
        "frames are upright and all there, or the command says which are not",
        ("hostile/test_videos.py", "hostile/test_damage.py"),
    ),
    Kind(
        "a mask is smoothed, coloured, compressed or of another size",
        "ids are what was drawn, or the mask is refused by name",
        ("hostile/test_masks.py", "test_masks.py"),
    ),
    Kind(
        "an edit harms other objects, stays half done, or stores a guess for ever",
        "an edit changes what it names, wholly or not at all, and is undone to the bit",
        ("test_editing.py", "test_direction.py", "test_saved_session.py"),
    ),
    Kind(
        "NaN, infinity and numbers too large",
        "an error names the frame and the object",
        ("hostile/test_numbers.py",),
    ),
    Kind(
        "outputs appear in part, a disk is full, a stream is closed",
        "outputs appear together or not at all, and printing never fails",
        ("test_outputs.py", "test_whole.py"),
    ),
    Kind(
        "a run is killed",
        "the next run continues to the same bytes, and removes leftovers",
        ("test_kills.py", "ui/test_desk.py", "ui/test_project.py", "ui/test_clips.py"),
    ),
    Kind(
        "weights, sessions and checkpoints of strangers",
        "they are refused by name before they take memory; nothing in them is run",
        ("hostile/test_models.py", "hostile/test_runs.py", "test_security.py"),
    ),
    Kind(
        "small files that declare gigabytes, end in a traceback or steer a terminal",
        "every reader is bounded, and an error is one line without escapes",
        ("hostile/test_bombs.py", "hostile/test_commands.py", "test_fuzz.py"),
    ),
    Kind(
        "other programs, pages and people reach the page",
        "a request without the token learns nothing, and an outdated page changes nothing",
        ("ui/test_server.py",),
    ),
    Kind(
        "a project folder from a stranger has links, or numbers at their limits",
        "no link is followed, every number has a bound, and the project opens after every edit",
        ("ui/test_stranger.py",),
    ),
    Kind(
        "another model is loaded than the one you named",
        "known names come first, and files lie within the Hub's cache",
        ("test_pretrained.py", "test_hub.py"),
    ),
    Kind(
        "threads, forks and defaults of the caller",
        "results are the same, or an error comes at once",
        ("test_fork.py", "test_concurrency.py", "test_global_state.py"),
    ),
    Kind(
        "one video of many fails, or a worker of Ray is killed",
        "the others are done, and the batch says which failed and what was odd",
        ("batch/test_run.py", "batch/test_jobs.py", "batch/test_ray.py"),
    ),
)


class _Cases:
    """A plugin of pytest: how many cases each file has, and how they ended."""

    def __init__(self) -> None:
        self.cases: Counter[str] = Counter()
        self.failed: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.cases = Counter(str(item.path.relative_to(ROOT / "tests")) for item in session.items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def count(run: bool) -> Mapping[str, int]:
    """The cases of each test file. Raises RuntimeError if one fails or a file cannot be read."""
    plugin = _Cases()
    files = sorted({str(ROOT / "tests" / file) for kind in KINDS for file in kind.tests})
    code = pytest.main(["-q", *([] if run else ["--collect-only", "-qq"]), *files], plugins=[plugin])
    if code != 0:
        raise RuntimeError(f"pytest ended with {int(code)}; nothing is written: {' '.join(plugin.failed)}")
    return plugin.cases


def table(cases: Mapping[str, int]) -> str:
    """The rows, with a header."""
    rows = [HEADER, "| --- | --- | --- | --- |"]
    for kind in KINDS:
        tests = ", ".join(f"`{test}`" for test in kind.tests)
        rows.append(f"| {kind.fault} | {kind.promise} | {tests} | {sum(cases[t] for t in kind.tests)} |")
    return "\n".join(rows) + "\n"


def rewritten(page: str, rows: str) -> str:
    """The page with these rows instead of those it has."""
    before, header, rest = page.partition(HEADER)
    if not header:
        raise ValueError(f"the page has no table that begins with {HEADER}")
    _, gap, after = rest.partition("\n\n")
    return before + rows + gap[1:] + after


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", action="store_true", help="count the cases only")
    args = parser.parse_args(argv)
    rows = table(count(run=not args.count))
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    print(rows, end="")


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "tests")]
    main()
