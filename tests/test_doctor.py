from __future__ import annotations

import importlib.metadata
import json
import sys

import pytest
import torch

from emavos import doctor
from emavos.cli import main
from emavos.memory import native_readout

# Of this library, as an installer writes it; and of a package that it may need.
OURS = """\
Provides-Extra: small
Provides-Extra: large
Provides-Extra: all
Provides-Extra: fine
Provides-Extra: parts
Requires-Dist: torch>=2.6
Requires-Dist: emavos-nowhere>=3 ; extra == "small"
Requires-Dist: torch>=999 ; extra == "large"
Requires-Dist: numpy>=1.24 ; extra == "fine"
Requires-Dist: emavos-elsewhere ; python_version < "3" and extra == "fine"
Requires-Dist: emavos[small,fine] ; extra == "all"
Requires-Dist: pillow>=1 ; extra == "all"
Requires-Dist: emavos-other[data]>=1 ; extra == "parts"
"""
OTHER = """\
Provides-Extra: data
Provides-Extra: more
Requires-Dist: emavos-nowhere
Requires-Dist: emavos-lost ; extra == "data"
Requires-Dist: emavos-elsewhere ; extra == "more"
"""


@pytest.fixture
def declared(monkeypatch, tmp_path):
    """This library as an installed package, with extras that the tests know."""
    monkeypatch.setattr(doctor, "_PYPROJECT", tmp_path / "pyproject.toml")
    for name, content in (("emavos", OURS), ("emavos-other", OTHER)):
        folder = tmp_path / "site" / f"{name.replace('-', '_')}-1.5.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.5\n{content}")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def test_extras_are_those_of_the_package_and_say_what_they_lack(declared):
    extras = {extra.name: extra for extra in doctor.extras()}
    assert list(extras) == ["small", "large", "all", "fine", "parts"]
    assert extras["fine"].missing == ()
    assert extras["small"].missing == ("emavos-nowhere>=3",)
    assert extras["all"].missing == extras["small"].missing
    (old,) = extras["large"].missing
    assert old == f"torch>=999 (found {importlib.metadata.version('torch')})"
    assert extras["parts"].missing == ("emavos-lost",)  # of the extra that is asked of the other, alone
    assert extras["small"].install == 'pip install ".[small]"'


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TOML is read from Python 3.11 on")
def test_a_checkout_is_asked_for_its_extras_and_not_what_was_installed_of_it(declared, tmp_path):
    (tmp_path / "pyproject.toml").write_text("""
[project]
name = "emavos"

[project.optional-dependencies]
newer = ["emavos-nowhere>=4", "torch>=2", "emavos-elsewhere ; python_version < '3'"]
all = ["emavos[newer]"]
""")
    extras = {extra.name: extra for extra in doctor.extras()}
    assert list(extras) == ["newer", "all"]
    assert extras["newer"].missing == extras["all"].missing == ("emavos-nowhere>=4",)
    assert extras["all"].install == f'pip install -e "{tmp_path}[all]"'
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "thesis"\n')
    assert [extra.name for extra in doctor.extras()] == ["small", "large", "all", "fine", "parts"]


def test_a_package_that_is_not_installed_has_no_extras():
    assert doctor.extras("emavos-nowhere") == ()


def test_the_report_is_printed_in_lines_and_says_how_to_install_what_is_missing(declared, capsys):
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"torch {importlib.metadata.version('torch')}" in out
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert lines["model"].endswith("embedded, works")
    assert lines["dtype auto"].endswith("for base")
    for backend in ("dense", "blocks"):
        assert lines[f"readout {backend}"].endswith("works")
    assert lines["extra small"].endswith('lacks emavos-nowhere>=3: pip install ".[small]"')
    assert lines["extra fine"].endswith("installed")


def test_the_report_is_json_for_programs(declared, capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert report["threads"] == torch.get_num_threads()
    assert set(report["readouts"]) == {"dense", "blocks", "native", "triton"}
    assert set(report["dtypes"]) == {"tiny", "base"}
    assert set(report["dtypes"].values()) <= ({"float32", "bfloat16"} if report["bfloat16"] else {"float32"})
    assert report["extras"][0] == {
        "name": "small",
        "missing": ["emavos-nowhere>=3"],
        "install": 'pip install ".[small]"',
    }


def test_what_is_not_needed_is_told_as_such(monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(native_readout, "_loaded", [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["doctor"]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    readouts = {line[1]: line[2] for line in lines if line[0] == "readout"}
    assert readouts["triton"] == "not here, and not needed: it runs on CUDA devices, and there is none"
    assert readouts["native"].startswith("not here, and not needed: no C++ compiler is found; install g++ or")
    assert "backend=" not in readouts["native"]


def test_a_machine_without_extras_is_well(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(native_readout, "_loaded", [])
    report = doctor.examine()
    assert report.ok
    assert report.video == "folders of images alone"
    assert "no C++ compiler is found" in (report.readouts["native"] or "")


def test_weights_that_cannot_be_used_are_told_with_exit_code_1(monkeypatch, capsys):
    def damaged(name):
        raise ValueError("model.safetensors has another sha256")

    monkeypatch.setattr(doctor, "load_model", damaged)
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert "model.safetensors has another sha256" in out
    assert "does not work; it is named above" in err


def test_a_readout_that_is_wrong_is_told(monkeypatch):
    right = doctor.topk_readout
    monkeypatch.setattr(
        doctor,
        "topk_readout",
        lambda *x, backend: right(*x, backend=backend) + (backend == "blocks"),
    )
    report = doctor.examine()
    assert report.readouts["blocks"] == "it differs from the definition by 1.0e+00"
    assert not report.ok
