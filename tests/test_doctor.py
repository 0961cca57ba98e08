from __future__ import annotations

import importlib.metadata
import json
import sys
from email.message import Message

import pytest
import torch

from emavos import doctor
from emavos.cli import main

METADATA = """\
Provides-Extra: small
Provides-Extra: large
Provides-Extra: all
Provides-Extra: fine
"""
REQUIRES = [
    "torch>=2.6",
    'emavos-nowhere>=3 ; extra == "small"',
    'torch>=999 ; extra == "large"',
    'numpy>=1.24 ; extra == "fine"',
    'emavos-elsewhere ; python_version < "3" and extra == "fine"',
    'emavos[small,fine] ; extra == "all"',
    'pillow>=1 ; extra == "all"',
]


@pytest.fixture
def declared(monkeypatch):
    """This library, with extras that the tests know."""
    message = Message()
    for line in METADATA.splitlines():
        message.add_header(*line.split(": "))
    metadata, requires = importlib.metadata.metadata, importlib.metadata.requires
    monkeypatch.setattr(importlib.metadata, "metadata", lambda n: message if n == "emavos" else metadata(n))
    monkeypatch.setattr(importlib.metadata, "requires", lambda n: REQUIRES if n == "emavos" else requires(n))


def test_extras_are_those_of_the_package_and_say_what_they_lack(declared):
    extras = {extra.name: extra for extra in doctor.extras()}
    assert list(extras) == ["small", "large", "all", "fine"]
    assert extras["fine"].missing == ()
    assert extras["small"].missing == ("emavos-nowhere>=3 (not installed)",)
    assert extras["all"].missing == extras["small"].missing
    (old,) = extras["large"].missing
    assert old == f"torch>=999 (found {importlib.metadata.version('torch')})"
    assert extras["small"].install == 'pip install "emavos[small]"'


def test_a_package_that_is_not_installed_has_no_extras():
    assert doctor.extras("emavos-nowhere") == ()


def test_the_report_is_printed_in_lines_and_says_how_to_install_what_is_missing(declared, capsys):
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"torch {importlib.metadata.version('torch')}" in out
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert lines["model"].endswith("embedded, works")
    for backend in ("dense", "blocks"):
        assert lines[f"readout {backend}"].endswith("works")
    assert lines["extra small"].endswith(
        'lacks emavos-nowhere>=3 (not installed): pip install "emavos[small]"'
    )
    assert lines["extra fine"].endswith("installed")


def test_the_report_is_json_for_programs(declared, capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert report["threads"] == torch.get_num_threads()
    assert set(report["readouts"]) == {"dense", "blocks", "native", "triton"}
    assert report["extras"][0] == {
        "name": "small",
        "missing": ["emavos-nowhere>=3 (not installed)"],
        "install": 'pip install "emavos[small]"',
    }


def test_a_machine_without_extras_is_well(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setenv("CXX", "no-such-compiler")
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
