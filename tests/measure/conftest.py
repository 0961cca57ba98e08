"""What the tests of the programs behind the documents' figures share. They are slow; no user runs them."""

from pathlib import Path

import pytest

from trees import davis_tree


@pytest.hookimpl(tryfirst=True)  # before slow ones are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that is long enough to drift."""
    return davis_tree(tmp_path_factory.mktemp("data"), {"one": 24}, size=(48, 64))
