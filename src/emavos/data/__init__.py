"""Training data: folders of images or clips with masks, cut into short clips."""

from emavos.data.clips import BL30K, Clips, Davis, YouTubeVOS
from emavos.data.mixed_samples import MixedSamples
from emavos.data.samples import ClipSamples, Sample
from emavos.data.static import StaticImages
from emavos.data.video_samples import VideoSamples
from emavos.data.videos import Joined, Remembered, Videos

__all__ = [
    "BL30K",
    "ClipSamples",
    "Clips",
    "Davis",
    "Joined",
    "MixedSamples",
    "Remembered",
    "Sample",
    "StaticImages",
    "VideoSamples",
    "Videos",
    "YouTubeVOS",
]
