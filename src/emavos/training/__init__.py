"""Training of STCN on still images and clips."""

from emavos.training.config import STAGES, TrainConfig
from emavos.training.loop import Progress, train
from emavos.training.start import start_from_imagenet

__all__ = ["STAGES", "Progress", "TrainConfig", "start_from_imagenet", "train"]
