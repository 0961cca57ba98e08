"""Shows results in a notebook while a video is tracked."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image

from emavos.io import open_frames
from emavos.machine import how_to_install
from emavos.visualize import overlay

if TYPE_CHECKING:
    from emavos.session import Result


class show:
    """Results with a live preview: a progress bar, and a picture every few frames.

    results: of `predictor.propagate`.
    frames: the same frames, to draw the objects on: a folder, a video file, or any iterable of (H, W, 3)
        uint8. Read in step with the results. If None, the preview shows only masks.
    every: frames between two previews.

    Loop over `show(...)` once to get the results. As the last line of a cell, `show(...)` runs by itself.
    Past frames are not kept. Outside a notebook, results pass through without a preview. Needs IPython (extra
    `notebook`).

    >>> for result in show(predictor.propagate("video/", "first.png"), "video/"):
    ...     write_mask(f"masks/{result.index:05d}.png", result.mask)
    """

    def __init__(self, results: Iterable[Result], frames: Any = None, every: int = 5) -> None:
        if every < 1:
            raise ValueError(f"every is a whole number of at least 1, not {every!r}")
        try:
            from IPython import get_ipython
            from IPython.display import HTML, display
        except ImportError as error:
            raise ImportError(f"show needs IPython: {how_to_install('notebook')}") from error
        tools: tuple[Any, Any, Any] = HTML, display, get_ipython()
        self._page, self._display, self._shell = tools
        self._results, self._every = results, every
        self._frames = None if frames is None else open_frames(frames)
        self.total = None if self._frames is None else self._frames.count

    def __iter__(self) -> Iterator[Result]:
        if self._shell is None:
            yield from self._results
            return
        handle = self._display(self._page("<p>frame ...</p>"), display_id=True)
        frames = None if self._frames is None else iter(self._frames)
        count, text = 0, "<p>no frames</p>"
        for result in self._results:
            frame = None if frames is None else next(frames, None)
            if frame is None and frames is not None:
                raise ValueError(
                    f"frames end before result {count}; pass the frames that were tracked, not their iterator"
                )
            count += 1
            if (count - 1) % self._every == 0:
                text = self._shown(result, frame)
                handle.update(self._page(text))
            last = result, frame
            yield result
        if count:
            text = self._shown(*last)
        handle.update(self._page(f"{text}<p>{count} frame{'' if count == 1 else 's'}</p>"))

    def _ipython_display_(self) -> None:
        for _ in self:
            pass

    def _shown(self, result: Result, frame: Any) -> str:
        done, total = result.index + 1, self.total
        bar = "" if total is None else f'<progress value="{done}" max="{total}"></progress> '
        place = f"frame {done}" + ("" if total is None else f" of {total}")
        if frame is None:
            return f"<p>{bar}{place}</p>{result._repr_html_()}"
        image, file = Image.fromarray(overlay(frame, result.mask)), BytesIO()
        image.thumbnail((640, 640))
        image.save(file, format="PNG")
        return f'<p>{bar}{place}</p><img src="data:image/png;base64,{b64encode(file.getvalue()).decode()}">'
