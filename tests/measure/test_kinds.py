from __future__ import annotations

import pytest

import kinds


def test_every_test_of_a_kind_is_there_and_the_page_has_a_row_for_each_kind():
    page = kinds.PAGE.read_text(encoding="utf-8")
    for kind in kinds.KINDS:
        assert all((kinds.ROOT / "tests" / file).is_file() for file in kind.tests), kind.fault
        assert f"| {kind.fault} | {kind.promise} | " in page


def test_only_the_table_of_the_page_is_rewritten():
    rows = kinds.table({"test_masks.py": 3, "hostile/test_masks.py": 4} | dict.fromkeys(FILES, 1))
    old = f"a\n\n{kinds.HEADER}\n| --- |\n| old |\n\nb | c\n\n| d |\n"
    assert kinds.rewritten(old, rows) == f"a\n\n{rows}\nb | c\n\n| d |\n"
    assert kinds.rewritten(f"a\n\n{rows}", rows) == f"a\n\n{rows}"
    with pytest.raises(ValueError, match="no table"):
        kinds.rewritten("a\n", rows)


FILES = {file for kind in kinds.KINDS for file in kind.tests} - {"test_masks.py", "hostile/test_masks.py"}
