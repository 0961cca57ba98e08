"""Training data: folders of images or clips with masks, made into short clips."""

from emavos.data.clips import Clips
from emavos.data.samples import ClipSamples, Sample
from emavos.data.static import StaticImages

__all__ = ["ClipSamples", "Clips", "Sample", "StaticImages"]
