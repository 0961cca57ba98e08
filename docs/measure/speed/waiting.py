"""Measure the waiting times at `emavos ui`: `python docs/measure/speed/waiting.py` (chromium; extra: dev).

The script tracks a drawn clip in a headless browser, then paints, keeps masks, jumps between frames, and
clicks on an object. A wait lasts from a mouse or key event until the browser begins the picture after the one
that shows the result, so at most 17 ms longer than the eye waits. Jumps go to frames new to the browser,
while the network is idle; clicks go to a frame that the network has encoded before.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from emavos.demo import synthetic_clip
from emavos.io import write_mask, write_video
from emavos.machine import describe

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

WAITS = {
    "first": "Track shows the first tracked mask",
    "again": "the same from a mended frame",
    "click": "a click on an object shows its mask",
    "move": "the brush moves",
    "up": "the mouse is let go",
    "keep": "Enter keeps the mask",
    "jump": "a click on the timeline",
    "keep and jump": "the same from an edited mask",
}
_WATCH = """
window.waits = [];
const names = ["canvas", "timeline", "frame", "kind", "guide", "track"];
const [canvas, line, frame, kind, guide, track] = names.map((id) => document.getElementById(id));
let asked = null; // [what, when, the frame then]
const shownFrame = () => parseInt(frame.textContent.split(" ")[1]);
const shown = (name, since) => requestAnimationFrame(() => requestAnimationFrame(
    () => waits.push([name, performance.now() - since])));
canvas.addEventListener("pointermove", (event) => event.buttons && shown("move", event.timeStamp));
canvas.addEventListener("pointerup", (event) => {
  if (canvas.dataset.tool === "click") asked = ["click", event.timeStamp];
  else shown("up", event.timeStamp);
}, true);
let tracks = 0, mended = 0;
track.addEventListener("click", (event) => {
  mended = shownFrame();
  asked = [tracks++ ? "again" : "first", event.timeStamp];
}, true);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter") asked = ["keep", event.timeStamp];
}, true);
line.addEventListener("pointerdown", (event) => {
  const edited = kind.textContent.startsWith("edited");
  asked = [edited ? "keep and jump" : "jump", event.timeStamp, frame.textContent];
}, true);
const done = {
  keep: () => kind.textContent === "given by you",
  first: () => kind.textContent === "tracked",
  again: () => kind.textContent === "tracked" && shownFrame() > mended,
  click: () => guide.textContent.includes("match about"),
};
new MutationObserver(() => {
  if (!asked || (asked[2] ? frame.textContent === asked[2] : !done[asked[0]]())) return;
  shown(...asked);
  asked = null;
}).observe(document.body, { subtree: true, childList: true });
"""


@contextmanager
def browser_at(project: Path, *options: str, window: str = "1280,800") -> Iterator[tuple[Chrome, str]]:
    """Context with headless chromium and the address of an `emavos ui` in a new folder.

    project: folder of the project.
    options: further arguments of the command.
    window: size of the window.

    Raises ImportError or RuntimeError if selenium or chromium is missing.
    """
    try:
        from selenium import webdriver
    except ImportError as error:
        raise ImportError('a browser is led by selenium: pip install ".[dev]"') from error
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        raise RuntimeError("there is no chromium with chromedriver; install both")
    chosen = webdriver.ChromeOptions()
    chosen.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={window}"):
        chosen.add_argument(argument)
    command = [sys.executable, "-m", "emavos", "ui", "--port", "0", "--device", "cpu", "--quiet", *options]
    command += ["--project", str(project)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"http\S+", server.stdout.readline())
            if address is None:
                raise RuntimeError("emavos ui did not start")
            browser = webdriver.Chrome(chosen, webdriver.ChromeService(driver))
            try:
                yield browser, address.group()
            finally:
                browser.quit()
        finally:
            server.send_signal(signal.SIGINT)  # the usual way to stop


def measure(
    height: int, width: int, repeats: int, brush: int, size: int, pause: float = 3
) -> dict[str, list[float]]:
    """Milliseconds of each of `WAITS`, in order of measurement.

    pause: seconds between the first or the mended mask and Track.
    """
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.wait import WebDriverWait

    count = 3 * repeats + 1
    with TemporaryDirectory() as place:
        frames, truth = synthetic_clip(count, (height, width))
        write_video(Path(place, "clip.mp4"), frames, fps=25)
        write_mask(Path(place, "first.png"), truth[0])
        with browser_at(Path(place, "work"), f"{place}/clip.mp4", "--size", str(size)) as (browser, address):
            wait = WebDriverWait(browser, 60, poll_frequency=0.02)

            def element(name: str) -> WebElement:
                return browser.find_element("id", name)

            def seen() -> dict[str, list[float]]:
                waits: list[tuple[str, float]] = browser.execute_script("return waits")
                return {name: [ms for kind, ms in waits if kind == name] for name in WAITS}

            def until(name: str, act: Callable[[], None]) -> None:
                before = len(seen()[name])
                act()
                wait.until(lambda _: len(seen()[name]) > before)

            def paint() -> None:
                across, down = (canvas.size[side] // 8 for side in ("width", "height"))
                chain = ActionChains(browser, 20).move_to_element_with_offset(canvas, -across, -down)
                chain.click_and_hold()
                for _ in range(10):
                    chain.move_by_offset(across // 5, down // 5)
                chain.release().perform()

            def jump(index: int) -> None:
                at = round(line.size["width"] * ((index + 0.5) / count - 0.5))
                ActionChains(browser, 0).move_to_element_with_offset(line, at, 0).click().perform()

            def click(across: float, down: float) -> None:
                """A click on a part of the canvas, in sides of the frame from its middle."""
                scale = min(canvas.size["width"] / width, canvas.size["height"] / height)
                x, y = round(across * width * scale), round(down * height * scale)
                ActionChains(browser, 0).move_to_element_with_offset(canvas, x, y).click().perform()

            def until_tracked() -> None:
                tracked = (str(count), "")
                wait.until(
                    lambda _: tuple(body.get_attribute(f"data-{x}") for x in ("reached", "job")) == tracked
                )

            browser.get(address)
            wait.until(lambda _: f"of {count - 1}" in element("frame").text)
            element("mask").send_keys(f"{place}/first.png")
            wait.until(lambda _: element("keep").is_enabled())
            browser.execute_script(_WATCH)
            time.sleep(pause)
            until("first", element("track").click)
            body, canvas, line = (
                browser.find_element("tag name", "body"),
                element("canvas"),
                element("timeline"),
            )
            until_tracked()
            element("tool-brush").click()
            browser.execute_script("document.getElementById('size').value = arguments[0]", brush)
            browser.execute_cdp_cmd("Network.clearBrowserCache", {})
            mended = min(count * 3 // 4, count - 2)
            until("jump", partial(jump, mended))
            until("up", paint)
            time.sleep(pause)
            until("again", element("track").click)
            until_tracked()
            browser.execute_cdp_cmd("Network.clearBrowserCache", {})
            for index in range(0, count - 1, 3):
                until("jump", partial(jump, index))
                until("up", paint)
                until("keep", lambda: body.send_keys("\ue007"))
                until("jump", partial(jump, index + 1))
                until("up", paint)
                until("keep and jump", partial(jump, index + 2))
            element("tool-click").click()
            rows, columns = (truth[count - 2] == 1).nonzero()  # of the frame that is shown now
            for place_of in range(repeats + 1):
                at = len(rows) * (place_of + 1) // (repeats + 2)
                until("click", partial(click, columns[at] / width - 0.5, rows[at] / height - 0.5))
                body.send_keys("\ue00c")
            waits = seen()
            del waits["click"][0]  # it also encoded the frame
            return waits


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/waiting.py", description=__doc__)
    parser.add_argument(
        "--frame", nargs="+", default=["480x854", "1080x1920"], metavar="HxW", help="of the clip (two sizes)"
    )
    parser.add_argument("--brush", type=int, default=12, help="its size, in pixels of the video (12)")
    parser.add_argument("--size", type=int, default=480, help="short side for the network (480)")
    parser.add_argument("--repeats", type=int, default=10, help="of each, and twice of some (10)")
    parser.add_argument("--pause", type=float, default=3, help="seconds between a mask and Track (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    rows = {}
    for frame in args.frame:
        height, width = map(int, frame.split("x"))
        rows[frame] = measure(height, width, args.repeats, args.brush, args.size, args.pause)
    machine = describe(torch.device("cpu"))
    print(f"{machine}; a brush of {args.brush} pixels; ms, the median and the longest\n")
    print(f"| | {' | '.join(rows)} |\n|{' --- |' * (1 + len(rows))}")
    for name, title in WAITS.items():
        cells = [f"{median(row[name]):.0f}, {max(row[name]):.0f}" for row in rows.values()]
        print(f"| {title} | {' | '.join(cells)} |")
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": machine, "ms": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
