"""Track an object in an endless stream, in constant memory: `python examples/camera.py [DEVICE]`.

DEVICE is the number of a camera (extra `video`). If you leave DEVICE out, a drawn scene plays at the pace of
a camera: frames that arrive while another frame is processed are lost.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np

from emavos import MemoryPolicy, Predictor
from emavos.demo import synthetic_clip
from emavos.io import IdMask, Pixels, open_frames


def scene(seconds: float = 2.0, fps: float = 25.0) -> tuple[Iterator[Pixels], IdMask]:
    """The frames of a scene that plays in real time, and the mask of the first frame."""
    video, truth = synthetic_clip(frames=round(seconds * fps), size=(144, 256))

    def play() -> Iterator[Pixels]:
        start = time.monotonic()
        while (now := int((time.monotonic() - start) * fps)) < len(video):
            yield video[now]

    return play(), truth[0]


def main() -> None:
    predictor = Predictor.from_pretrained(size=144, policy=MemoryPolicy(max_frames=8))
    if len(sys.argv) > 1:
        camera = iter(open_frames(f"camera:{sys.argv[1]}"))
        frame = next(camera)
        height, width = np.array(frame).shape[:2]
        mask = np.zeros((height, width), np.int32)
        mask[height // 3 : -height // 3, width // 3 : -width // 3] = 1  # the middle of the picture
    else:
        camera, mask = scene()
        frame = next(camera)
    session = predictor.session()
    result = session.step(frame, mask)
    start = time.monotonic()
    for frame in camera:
        result = session.step(frame)
        shares = [f"{id}: {(result.mask == id).mean():.1%}" for id in result.ids]
        if result.index % 10 == 0:
            print(f"frame {result.index:4d}  {session.nbytes / 1e6:.1f} MB of memory  {', '.join(shares)}")
    rate = result.index / (time.monotonic() - start)
    print(f"{rate:.1f} frames per second; {session.nbytes / 1e6:.1f} MB of memory at the end")


if __name__ == "__main__":
    main()
