from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from emavos.weights import load_model, save_model
from local_hub import TOKEN

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS = {"import supervision": "supervision", "emavos.notebook": "IPython"}  # words of a block, its package


def blocks(kind):
    """The blocks of Python of all pages: those of "", and those of " {.hub}", which talk to the Hub."""
    return [
        pytest.param(block, id=f"{page.name}-{i}")
        for page in PAGES
        for i, (found, block) in enumerate(
            re.findall(r"^```python(.*?)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        )
        if found == kind
    ]


def run(arguments, folder):
    filters = "error,ignore:OpenCV"  # supervision would rather have it
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": filters}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_offline_from_any_folder(path, tmp_path, request):
    arguments = [str(request.getfixturevalue("onnx_graphs"))] if path.stem == "onnx_stream" else []
    assert run([str(path), *arguments], tmp_path)


@pytest.mark.parametrize("block", blocks(""))
def test_python_blocks_of_the_documents_run(block, tmp_path, monkeypatch):
    for words, package in NEEDS.items():
        if words in block:
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "OpenCV")  # supervision would rather have it
        exec(block, {})  # a new process would load torch again


@pytest.mark.parametrize("block", blocks(" {.hub}"))
def test_blocks_that_talk_to_the_hub_run_with_one_on_this_machine(block, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for folder in ("folder", "runs/2/model"):
        save_model(load_model(), folder)
    files = {path.name: path.read_bytes() for path in Path("folder").iterdir()}
    hub.create("user/name", files).commit(files, "v1.0")
    exec(block.replace("hf_...", TOKEN), {})


def test_every_block_of_python_of_the_documents_is_run():
    opened = [block for page in PAGES for block in re.findall(r"(?sm)^```(.*?)^```", page.read_text())]
    python = [block for block in opened if re.match(r"py|\n(from|import) ", block)]
    assert len(python) == len(blocks("")) + len(blocks(" {.hub}"))


def test_links_between_documents_lead_somewhere():
    for page in [*PAGES, *(ROOT / "src/emavos/weights").glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
