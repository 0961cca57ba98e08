"""Reference outputs: the full files where `EMAVOS_PARITY` names their folder, otherwise the reduced ones."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emavos.models import STCN
from emavos.weights.convert import from_stcn
from golden.fill import fill_state_dict

HERE = Path(__file__).parent


def load(name: str) -> dict[str, Any]:
    """The arrays of a file, its `meta` decoded, and `stride`: how far its dense outputs were thinned."""
    full = os.environ.get("EMAVOS_PARITY")
    path = Path(full or HERE) / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{name}.npz is not in the repository; set EMAVOS_PARITY to the folder of the full files")
    with np.load(path) as file:
        arrays: dict[str, Any] = {key: file[key] for key in file.files}
    if "meta" in arrays:
        arrays["meta"] = json.loads(str(arrays["meta"]))
    arrays["stride"] = int(arrays.get("stride", 1))
    return arrays


def shapes() -> dict[str, tuple[int, ...]]:
    """Key and shape of each tensor of the published checkpoint layout."""
    table = json.loads((HERE / "stcn_keys.json").read_text())
    return {entry["key"]: tuple(entry["shape"]) for entry in table["eval"]}


@cache
def model() -> STCN:
    """The full STCN with the weights that the reference outputs were made with."""
    return from_stcn(fill_state_dict(shapes()))


def relative_error(ours: Any, reference: Any) -> float:
    """Largest error over largest value."""
    ours, reference = torch.as_tensor(ours).double(), torch.as_tensor(reference).double()
    assert ours.shape == reference.shape
    return float((ours - reference).abs().max() / reference.abs().max())
