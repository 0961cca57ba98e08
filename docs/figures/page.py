"""Take the screenshots of the web page for the docs: `python docs/figures/page.py [--out docs/images]`.

The script operates `emavos ui` like a person, in chromium with selenium (the extra `dev`), on the demo's
clip.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.wait import WebDriverWait

from emavos.demo import synthetic_clip
from emavos.io import write_mask, write_video

sys.path.append(str(Path(__file__).parents[1] / "measure" / "speed"))
from waiting import browser_at

FRAMES, MENDED = 32, 24


def take(browser: Any, address: str, clip: Path, masks: dict[int, Path], out: Path) -> None:
    """Open a clip, track its objects, and correct a frame with another mask; save two screenshots."""
    wait = WebDriverWait(browser, 300, poll_frequency=0.1)

    def element(name: str) -> Any:
        return browser.find_element("id", name)

    def save(name: str) -> None:
        picture = Image.open(BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        picture.quantize(256).save(out / f"{name}.png", optimize=True)
        print(out / f"{name}.png")

    browser.get(address)
    wait.until(lambda _: element("empty").is_displayed())
    element("video").send_keys(str(clip))
    wait.until(lambda _: f"frame 0 of {FRAMES - 1}" in element("frame").text)
    element("mask").send_keys(str(masks[0]))
    wait.until(lambda _: element("keep").is_enabled())
    element("keep").click()
    wait.until(lambda _: "given by you" in element("kind").text)
    element("track").click()
    body = browser.find_element("tag name", "body")
    wait.until(lambda _: body.get_attribute("data-reached") == str(FRAMES))
    wait.until(lambda _: body.get_attribute("data-job") == "")
    wait.until(lambda _: f"frame {FRAMES - 1} of" in element("frame").text)
    save("ui")
    line = element("timeline")
    across = line.size["width"] * ((MENDED + 0.5) / FRAMES - 0.5)
    ActionChains(browser).move_to_element_with_offset(line, round(across), 0).click().perform()
    wait.until(lambda _: f"frame {MENDED} of" in element("frame").text)
    body.send_keys("2")
    element("mask").send_keys(str(masks[MENDED]))
    wait.until(lambda _: element("keep").is_enabled())
    element("keep").click()
    wait.until(lambda _: "given by you" in element("kind").text)
    save("ui-mended")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "images")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        frames, truth = synthetic_clip(frames=FRAMES)
        clip = Path(folder, "reef.mp4")
        write_video(clip, frames, fps=12)
        masks = {index: Path(folder, f"{index}.png") for index in (0, MENDED)}
        for index, path in masks.items():
            write_mask(path, truth[index])
        with browser_at(Path(folder, "work"), window="1280,943") as (browser, address):
            take(browser, address, clip, masks, args.out)


if __name__ == "__main__":
    main()
