"""What all tests share."""

import builtins
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import local_hub

_HUB = local_hub.install()

# No cache: a build in the user's cache would decide which readout "auto" is, in subprocesses too.
os.environ["EMAVOS_CACHE"] = ""

with suppress(ImportError):  # .ci/gpu needs no hypothesis
    from hypothesis import Phase, settings

    # A failing state machine shrinks for minutes, so a run reports the first example that fails.
    settings.register_profile("shrink", settings.default)
    settings.register_profile("fast", phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.target])
    settings.load_profile("fast")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[local_hub.LocalHub]:
    """An empty Hub on this machine, which is the one that is asked; without this user's token and cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    _HUB.start()
    yield _HUB
    _HUB.clear()


def pytest_unconfigure() -> None:
    _HUB.close()


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that makes a package impossible to import, as if its extra were not installed."""
    real = builtins.__import__

    def hide(package: str) -> None:
        def without(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.partition(".")[0] == package:
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)

    return hide


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of outputs of the reference implementations, which is not part of this repository."""
    if not (folder := os.environ.get("EMAVOS_PARITY")):
        pytest.skip("EMAVOS_PARITY is not set: it names the folder with the outputs of the references")
    return Path(folder)


@pytest.fixture(scope="session")
def onnx_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as ONNX graphs, made once: it takes twenty seconds of a core."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the extra 'onnx' is not installed")
    from emavos.export import export_onnx
    from emavos.weights import load_model

    folder = tmp_path_factory.mktemp("graphs")
    export_onnx(load_model(), folder)
    return folder
