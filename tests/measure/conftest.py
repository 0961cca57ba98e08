"""A clip that is long enough to drift."""

from pathlib import Path

import pytest

from trees import davis_tree


@pytest.fixture(scope="session")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return davis_tree(tmp_path_factory.mktemp("data"), {"one": 24}, size=(48, 64))
