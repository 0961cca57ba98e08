from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{i}")
    for page in PAGES
    for i, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    )
]


def run(arguments, folder):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_offline_from_any_folder(path, tmp_path, request):
    arguments = [str(request.getfixturevalue("onnx_graphs"))] if path.stem == "onnx_stream" else []
    assert run([str(path), *arguments], tmp_path)


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_of_the_documents_run(block, tmp_path):
    run(["-c", block], tmp_path)


def test_links_between_documents_lead_somewhere():
    for page in [*PAGES, ROOT / "src/emavos/weights/README.md"]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
