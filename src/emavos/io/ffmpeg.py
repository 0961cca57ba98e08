"""What FFmpeg may open, through PyAV (extra `video`)."""

from __future__ import annotations

from typing import Any

from emavos.io.images import MAX_PIXELS
from emavos.machine import how_to_install, is_out_of_memory, keep_garbage_after_fork

# Containers with their own streams. Playlists (HLS, concat) refer to other files, which FFmpeg would open.
_CONTAINERS = (
    "3g2,3gp,apng,asf,av1,avi,dv,flv,gif,h264,hevc,ivf,m4a,m4v,matroska,mj2,mjpeg,mov,mp4,mpeg,mpegts,mpegvideo,"
    "mxf,nut,obu,ogg,rm,webm,yuv4mpegpipe"
)
LIMIT = {"max_pixels": str(MAX_PIXELS)}  # limit on the size declared by each frame
SAFE = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", **LIMIT}


def import_av(purpose: str) -> Any:
    """The package `av`, or an ImportError that names the extra."""
    try:
        import av
    except ImportError as error:
        if is_out_of_memory(error):
            raise
        raise ImportError(f"{purpose} needs PyAV: {how_to_install('video')}") from error
    keep_garbage_after_fork()
    return av
