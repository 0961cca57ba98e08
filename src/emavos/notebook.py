"""Shows results in a notebook while a video is tracked, and plays them at the end."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from io import BytesIO
from string import Template
from typing import TYPE_CHECKING, Any

from PIL import Image

from emavos.io import open_frames
from emavos.machine import how_to_install

if TYPE_CHECKING:
    from emavos.session import Result

# Plays in a saved notebook too: nothing is fetched. If scripts are not run, the last picture is shown.
# A page may hold the output twice, so a script starts all players of its key that do not run yet.
# With data-lm-suppress-shortcuts, JupyterLab leaves the keys to the button and the slider. Otherwise the left
# arrow closes the section of the notebook.
# Words on the button, because many fonts have no sign for a pause.
_PLAYER = Template("""<div class="emavos-player" data-key="$key" role="group" aria-label="player"
style="display: inline-block; min-width: min(320px, 100%); max-width: 100%">
<img src="$last" alt="$text" style="display: block; max-width: 100%">
<div style="display: none; gap: 0.5em; align-items: center; margin-top: 4px">
<button type="button" data-lm-suppress-shortcuts style="width: 4.5em">Play</button>
<input type="range" min="0" max="$most" value="$most" aria-label="Frame" data-lm-suppress-shortcuts
style="flex: 1; min-width: 0">
<output aria-live="off" style="min-width: ${wide}ch; font-variant-numeric: tabular-nums"></output></div>
<p>$text</p>
<script>
document.querySelectorAll('.emavos-player[data-key="$key"]:not([data-runs])').forEach((root) => {
  const pictures = $pictures, names = $names;
  const find = (tag) => root.querySelector(tag);
  const [image, button, slider, name] = ["img", "button", "input", "output"].map(find);
  let timer = 0;
  const show = (place) => {
    slider.value = place;
    image.src = pictures[place];
    image.alt = name.textContent = names[place];
    slider.setAttribute("aria-valuetext", names[place]); // not the number of the picture
  };
  const stop = () => { clearInterval(timer); timer = 0; button.textContent = "Play"; };
  const play = () => {
    button.textContent = "Pause";
    timer = setInterval(() => {
      if (!root.isConnected) stop();
      else show((Number(slider.value) + 1) % pictures.length);
    }, $pause);
  };
  button.onclick = () => (timer ? stop() : play());
  slider.oninput = () => { stop(); show(Number(slider.value)); };
  root.dataset.runs = "";
  button.parentElement.style.display = "flex";
  show(pictures.length - 1);
});
</script></div>""")


class show:
    """Results with a live preview: a progress bar, a picture every few frames, and at the end a player.

    results: of `predictor.propagate`.
    frames: the same frames, to draw the objects on: a folder, a video file, or any iterable of (H, W, 3)
        uint8. Read in step with the results. If None, the preview shows only masks.
    every: frames between two previews.
    pictures: most pictures in the player, evenly spaced; 0 for no player. They are kept in memory, and in the
        saved notebook.

    Loop over `show(...)` once to get the results. As the last line of a cell, `show(...)` runs by itself.
    Past frames are not kept. Outside a notebook, results pass through without a preview. Needs IPython (extra
    `notebook`).

    >>> for result in show(predictor.propagate("video/", "first.png"), "video/"):
    ...     write_mask(f"masks/{result.index:05d}.png", result.mask)
    """

    def __init__(
        self, results: Iterable[Result], frames: Any = None, every: int = 5, *, pictures: int = 100
    ) -> None:
        if every < 1:
            raise ValueError(f"every is a whole number of at least 1, not {every!r}")
        if pictures < 0 or pictures == 1:
            raise ValueError(f"pictures is 0, or a whole number of at least 2, not {pictures!r}")
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
        fps = None if self._frames is None else self._frames.fps
        self._player = _Player(pictures, fps or 10.0)

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
            self._player.add(count - 1, result, frame)
            last = result, frame
            yield result
        counted = f"{count} frame{'' if count == 1 else 's'}"
        if self._player.plays:
            handle.update(self._page(self._player.page(counted)))
            return
        if count:
            text = self._shown(*last)
        handle.update(self._page(f"{text}<p>{counted}</p>"))

    def _ipython_display_(self) -> None:
        for _ in self:
            pass

    def _shown(self, result: Result, frame: Any) -> str:
        done, total = result.index + 1, self.total
        bar = f'<progress aria-label="tracked" value="{done}" max="{total}"></progress> ' if total else ""
        place = f"frame {done}" + ("" if total is None else f" of {total}")
        if frame is None:
            return f"<p>{bar}{place}</p>{result._repr_html_()}"
        picture = _picture(result, frame, "PNG")
        return f'<p>{bar}{place}</p><img src="{picture}" alt="{place}" style="max-width: 100%">'


class _Player:
    """Pictures of a video, evenly spaced: if there are too many, every second one is dropped.

    most: most pictures to keep; 0 keeps none.
    fps: frames per second of the video.
    """

    def __init__(self, most: int, fps: float) -> None:
        self._most, self._fps, self._step = most, fps, 1
        self._pictures: list[str] = []  # addresses with their content
        self._names: list[str] = []

    @property
    def plays(self) -> bool:
        """Whether there are at least two pictures."""
        return len(self._pictures) > 1

    def add(self, place: int, result: Result, frame: Any) -> None:
        """Keep the picture of a frame, if it is due. `place` counts the results from 0."""
        if not self._most or place % self._step:
            return
        if len(self._pictures) == self._most:
            self._pictures, self._names = self._pictures[::2], self._names[::2]
            self._step *= 2
            if place % self._step:
                return
        self._pictures.append(_picture(result, frame, "JPEG"))
        self._names.append(f"frame {result.index}")

    def page(self, text: str) -> str:
        """The player as HTML that fetches nothing."""
        return _PLAYER.substitute(
            key=sha256("".join(self._pictures).encode()).hexdigest()[:16],
            last=self._pictures[-1],
            most=len(self._pictures) - 1,
            pause=max(40, round(1000 * self._step / self._fps)),
            pictures=json.dumps(self._pictures),
            names=json.dumps(self._names),
            wide=max(map(len, self._names)),
            text=text,
        )


def _picture(result: Result, frame: Any, kind: str) -> str:
    """A frame with its objects, or the mask if there is no frame, as an address with the content."""
    if frame is None:
        content, kind = result._repr_png_(), "PNG"
    else:
        image, file = Image.fromarray(result.overlay(frame)), BytesIO()
        image.thumbnail((640, 640))
        image.save(file, format=kind)
        content = file.getvalue()
    return f"data:image/{kind.lower()};base64,{b64encode(content).decode()}"
