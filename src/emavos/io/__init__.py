"""Read frames and masks from folders, videos and cameras; write palette PNGs and mp4 videos."""

from emavos.io.ahead import ahead, behind, read_ahead
from emavos.io.animation import AnimationWriter
from emavos.io.ids import IdMask, davis_palette, palette
from emavos.io.images import Pixels, read_frame, read_mask
from emavos.io.notices import InputWarning
from emavos.io.opening import list_images, open_frames
from emavos.io.png import write_image, write_mask, write_matte
from emavos.io.remote import fetch
from emavos.io.sound import Sound
from emavos.io.source import FrameSource, Reel, open_reel
from emavos.io.spool import Spool
from emavos.io.video_writer import VideoWriter, write_video

__all__ = [
    "AnimationWriter",
    "FrameSource",
    "IdMask",
    "InputWarning",
    "Pixels",
    "Reel",
    "Sound",
    "Spool",
    "VideoWriter",
    "ahead",
    "behind",
    "davis_palette",
    "fetch",
    "list_images",
    "open_frames",
    "open_reel",
    "palette",
    "read_ahead",
    "read_frame",
    "read_mask",
    "write_image",
    "write_mask",
    "write_matte",
    "write_video",
]
