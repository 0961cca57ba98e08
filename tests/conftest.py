"""What all tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of outputs of the reference implementations, which is not part of this repository."""
    if not (folder := os.environ.get("EMAVOS_PARITY")):
        pytest.skip("EMAVOS_PARITY is not set: it names the folder with the outputs of the references")
    return Path(folder)
