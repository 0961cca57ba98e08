"""Track a video with a progress bar on the terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emavos.io import FrameSource, IdMask, Pixels
    from emavos.predictor import Predictor
    from emavos.session import Result, Session
    from emavos.session.both_ways import Direction

FPS = 25.0  # frame rate of overlay videos, if the source has none


def track(
    predictor: Predictor,
    frames: FrameSource,
    mask: IdMask | dict[int, IdMask] | None,
    quiet: bool,
    direction: Direction = "forward",
    session: Session | None = None,
) -> Iterator[tuple[Pixels, Result]]:
    """Yield each frame with its result, and show a progress bar.

    predictor: tracks the objects.
    frames: source of frames.
    mask: mask of the first frame, or masks by frame index.
    quiet: whether to hide the progress bar.
    direction: direction to track in, see `Predictor.propagate`.
    session: session to continue, whose index is that of the first frame yielded.
    """
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    from emavos.io.source import FrameSource
    from emavos.machine import is_out_of_memory

    read: deque[Pixels] = deque()

    class Source(FrameSource):
        """The frames, each remembered when read, possibly in a thread."""

        stored, holds = frames.stored, frames.holds

        def stands_in(self, index: int) -> bool:
            return frames.stands_in(index)

        def __iter__(self) -> Iterator[Pixels]:
            for index, frame in enumerate(frames):
                if index >= first:
                    read.append(frame)
                yield frame

    done = first = 0 if session is None else session.index
    try:
        if direction == "forward":
            results = predictor.propagate(Source(), mask, session=session)
        else:  # both ways, frames are read in another order
            read_again = iter(frames)
            results = predictor.propagate(frames, mask, direction=direction)
        # disable=None: only on a terminal
        bar = tqdm(
            results, total=frames.count, initial=first, unit="frame", leave=False, disable=quiet or None
        )
        for result in bar:
            yield read.popleft() if direction == "forward" else next(read_again), result
            done += 1
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(f"out of memory at frame {done}; try a smaller --size or --max-frames") from error
    except ValueError as error:
        raise ValueError(f"{error}; nothing was written" if done else str(error)) from error
