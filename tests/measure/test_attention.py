from __future__ import annotations

import json

import attention


def test_the_cost_of_attention_is_printed_and_written_for_each_size(tmp_path, capsys):
    attention.main(
        ["--channels", "16", "--sides", "2", "4", "--repeats", "1", "--json", str(tmp_path / "x.json")]
    )
    rows = json.loads((tmp_path / "x.json").read_text())
    assert [row["positions"] for row in rows] == [4, 16]
    assert all(row["external"] > 0 and row["self"] > 0 for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_share_of_attention_is_what_its_modules_take():
    row = attention.share("stcn-external-both", 64, 64, repeats=1)
    whole = row["encode_key"] + row["decode"] + row["encode_value"] / 5
    assert row["share"] == (row["key_attention"] + row["value_attention"] / 5) / whole
    assert 0 < row["share"] < 0.5
