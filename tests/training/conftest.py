from pathlib import Path

import pytest

from trees import training_tree


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data sets of training."""
    return training_tree(tmp_path_factory.mktemp("data"))
