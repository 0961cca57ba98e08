"""Semi-supervised video object segmentation: STCN with external memory attention."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emavos.memory import MemoryPolicy
    from emavos.predictor import Predictor
    from emavos.session import Result, Session
    from emavos.settings import Settings, Shortcuts
    from emavos.weights import ModelCard

__version__ = "0.1.0"

__all__ = [
    "MemoryPolicy",
    "ModelCard",
    "Predictor",
    "Result",
    "Session",
    "Settings",
    "Shortcuts",
    "__version__",
]

_HOMES = {
    "MemoryPolicy": "memory",
    "ModelCard": "weights",
    "Predictor": "predictor",
    "Result": "session",
    "Session": "session",
    "Settings": "settings",
    "Shortcuts": "settings",
}
_PARTS = (
    "annotations",
    "batch",
    "bridges",
    "clicks",
    "confidence",
    "data",
    "demo",
    "doctor",
    "evaluation",
    "export",
    "frames",
    "io",
    "machine",
    "memory",
    "models",
    "notebook",
    "review",
    "training",
    "visualize",
    "weights",
)


def __getattr__(name: str) -> Any:
    """Load a public name on first use: torch takes seconds to load, and `emavos --help` should not wait."""
    if name in _PARTS:
        return import_module(f"emavos.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'emavos' has no attribute {name!r}")
    return getattr(import_module(f"emavos.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_PARTS})
