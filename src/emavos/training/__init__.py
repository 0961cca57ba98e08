"""Train STCN on still images and video clips."""

from emavos.training.config import TrainConfig
from emavos.training.log import Progress
from emavos.training.loop import train
from emavos.training.stages import HELD_OUT, STAGES
from emavos.training.start import start_from_imagenet

__all__ = ["HELD_OUT", "STAGES", "Progress", "TrainConfig", "start_from_imagenet", "train"]
