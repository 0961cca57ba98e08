import pytest

from emavos.evaluation.published import TABLES, Measured, compare_with_paper
from emavos.models import PRESETS

EXTERNAL = Measured("mine", "efficientnet-lite0", ("external", "external"), 0.816, 0.806, 0.826, 4.7)


@pytest.mark.parametrize("table", TABLES)
def test_published_j_and_f_lie_on_both_sides_of_their_mean(table):
    for row in TABLES[table]:
        assert abs(row.JF - (row.J + row.F) / 2) < 0.1001  # as printed, in tenths


def test_every_attention_of_the_tables_is_a_preset():
    attention = {row.attention for rows in TABLES.values() for row in rows} - {None}
    presets = {(c.key_attention, c.value_attention) for c in PRESETS.values() if c.trunk == "resnet"}
    assert attention == presets


@pytest.mark.parametrize("table", TABLES)
def test_what_was_not_measured_is_said_to_be_so(table):
    text = compare_with_paper(table)
    assert text.count("published ") == text.count("never measured here") == len(TABLES[table])
    assert "measured:  nothing, in this run" in text


def test_what_was_measured_stands_below_its_published_line():
    text = compare_with_paper(2, [EXTERNAL], "davis-like, 8 sequences")
    lines = text.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("external attention"))
    assert lines[place].split()[-5:] == ["published", "85.6", "82.6", "88.6", "24.0"]
    assert " ".join(lines[place + 1].split()) == "mine (efficientnet-lite0) measured 81.6 80.6 82.6 4.7"
    assert text.count("never measured here") == 2
    assert "davis-like, 8 sequences" in text


def test_bounds_are_printed_as_bounds():
    assert "<6.0" in compare_with_paper(4)


def test_another_table_is_refused():
    with pytest.raises(ValueError, match="the tables are 2, 3, 4, not 1"):
        compare_with_paper(1)
