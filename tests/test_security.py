"""What docs/security.md promises of the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import emavos

SOURCE = Path(emavos.__file__).parent
FORBIDDEN = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_can_run_what_it_reads(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not MODULES & {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in MODULES
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN, f"line {node.lineno}"
        elif isinstance(node, ast.Call):
            words = {word.arg: word.value for word in node.keywords}
            if ast.unparse(node.func) == "torch.load":
                assert path.name == "convert.py"
                assert ast.unparse(words["weights_only"]) == "True"
            assert "trust_remote_code" not in words
            assert not ("shell" in words and ast.unparse(words["shell"]) != "False"), f"line {node.lineno}"
            if "allow_pickle" in words:
                assert ast.unparse(words["allow_pickle"]) == "False"
