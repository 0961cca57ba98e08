"""What helps with typing a command: tab completion, and the nearest word for a wrong one."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from emavos.cli import main


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["segmnt"], "segment"),
        (["evalute", "--data", "x"], "evaluate"),
        (["masks", "covert", "a"], "convert"),
        (["segment", "v", "--out", "o", "--maks", "m"], "--mask"),
        (["segment", "v", "--out", "o", "--drop-abs=3", "--drop-absend=3"], "--drop-absent"),
        (["segment", "v", "--out", "o", "--direction", "forwards"], "forward"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest(capsys, words, meant):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"; did you mean {meant}? (see emavos" in err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["segment", "v", "--out", "o", "--qqqqq"], "emavos segment"),
        (["masks", "info", "m", "--qqqqq"], "emavos masks info"),
        (["segment", "v"], "emavos segment"),
        (["masks", "covert"], "emavos masks"),
        (["--qqqqq"], "emavos"),
        (["segmnt"], "emavos"),
    ],
)
def test_an_error_names_the_help_of_its_command(capsys, words, named):
    assert main(words) == 2
    assert capsys.readouterr().err.endswith(f" (see {named} --help)\n")


@pytest.mark.parametrize("words", [["xyzzy"], ["segment", "v", "--out", "o", "--qqqqq"], ["segment"]])
def test_a_word_that_is_near_to_none_gets_no_suggestion(capsys, words):
    assert main(words) == 2
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_completes_commands_options_and_files(capsys, tmp_path, shell):
    pytest.importorskip("shtab")
    assert main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    assert "drop-absent" in script
    assert "youtube-vis" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", tmp_path / "script"], check=True)


def test_bash_completes(capsys, tmp_path):
    pytest.importorskip("shtab")
    if not shutil.which("bash"):
        pytest.skip("there is no bash here")
    assert main(["--print-completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "first.png").touch()
    for words, expected in (
        ("emavos seg", "segment"),
        ("emavos segment --drop", "--drop-absent"),
        ("emavos segment --mask fi", "first.png"),
    ):
        *_, last = words.split()
        line = f"""source ./script
COMP_WORDS=({words}) COMP_CWORD={len(words.split()) - 1} COMP_LINE='{words}' COMP_POINT={len(words)}
_shtab_emavos; printf '%s\\n' "${{COMPREPLY[@]}}"; compgen -f -- {last}"""
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert expected in done.stdout.split(), done.stderr


def test_without_shtab_the_extra_is_named(capsys, without_package):
    without_package("shtab")
    assert main(["--print-completion", "bash"]) == 1
    assert "[completion]" in capsys.readouterr().err
    assert main(["--print-completion", "basch"]) == 2
    assert "did you mean bash?" in capsys.readouterr().err
