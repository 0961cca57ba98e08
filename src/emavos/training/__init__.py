"""Training of STCN on still images and clips."""

from emavos.training.config import TrainConfig
from emavos.training.loop import Progress, train

__all__ = ["Progress", "TrainConfig", "train"]
