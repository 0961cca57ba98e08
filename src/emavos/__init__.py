"""Semi-supervised video object segmentation: STCN with external memory attention."""

from emavos.memory import MemoryPolicy
from emavos.predictor import Predictor
from emavos.session import Result, Session

__version__ = "0.1.0"

__all__ = ["MemoryPolicy", "Predictor", "Result", "Session", "__version__"]
