"""What a person does at the page, in a real browser. Importing this skips a test file without chromium."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytest.importorskip("av")
pytest.importorskip("uvicorn")

if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("there is no chromium with chromedriver", allow_module_level=True)

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

SIZE = (96, 160)  # of the clip
LEFT, UP, RIGHT, DOWN = "\ue012", "\ue013", "\ue014", "\ue015"
ENTER, ESCAPE, CONTROL, SHIFT = "\ue007", "\ue00c", "\ue009", "\ue008"


@contextmanager
def serving(*options, **variables):
    """A page of its own, as the command line serves it."""
    command = [
        sys.executable,
        "-m",
        "emavos",
        "ui",
        "--port",
        "0",
        "--size",
        "96",
        "--device",
        "cpu",
        *options,
    ]
    environment = os.environ | variables
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            address = Address(re.search(r"http\S+", server.stdout.readline()).group())
            address.server = server
            yield address
        finally:
            server.terminate()


class Address(str):
    """The printed address, and the process that serves it."""

    server: subprocess.Popen


@contextmanager
def started():
    """A headless browser."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,800"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """What a person does at the page."""

    def __init__(self, browser, address, name="no video yet"):
        self.browser = browser
        self.address = address
        self.wait = WebDriverWait(browser, 120, poll_frequency=0.05)
        browser.get(address)
        self.until("name", name)

    def __getitem__(self, name):
        return self.browser.find_element("id", name)

    def until(self, name, text):
        self.wait.until(lambda _: text in self[name].text, f"{name} never said {text!r}")

    def click(self, name):
        self.wait.until(lambda _: self[name].is_enabled(), f"{name} stays disabled")
        self[name].click()

    def paint(self, x, y):
        """A stroke with the brush from the middle of the frame."""
        self.press("b")
        ActionChains(self.browser, 50).drag_and_drop_by_offset(self["canvas"], x, y).perform()
        self.until("kind", "edited")

    def click_at(self, x, y, right=False):
        """Click on a pixel of the video."""
        box = self.browser.execute_script(
            "const b = document.getElementById('canvas').getBoundingClientRect();"
            "return [b.left, b.top, b.width, b.height]"
        )
        height, width = SIZE
        scale = min(box[2] / width, box[3] / height)
        left, top = box[0] + (box[2] - width * scale) / 2, box[1] + (box[3] - height * scale) / 2
        chain = ActionChains(self.browser, 20)
        chain.w3c_actions.pointer_action.move_to_location(
            round(left + (x + 0.5) * scale), round(top + (y + 0.5) * scale)
        )
        (chain.context_click() if right else chain.click()).perform()

    def control(self, key, shift=False):
        chain = ActionChains(self.browser).key_down(CONTROL)
        if shift:
            chain = chain.key_down(SHIFT)
        chain = chain.send_keys(key).key_up(CONTROL)
        (chain.key_up(SHIFT) if shift else chain).perform()

    def resize(self, width, height):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def press(self, *keys):
        self.browser.find_element("tag name", "body").send_keys(*keys)

    def data(self, name):
        return self.browser.find_element("tag name", "body").get_attribute(f"data-{name}")

    def open_clip(self, name, among="all-clips"):
        def cards(_):
            shown = self[among].find_elements("css selector", ".clip > button:first-child")
            return [one for one in shown if name in one.text]

        self.wait.until(cards)[0].click()

    def track(self):
        self.click("track")
        self.until_reached(8)

    def until_reached(self, frames):
        self.wait.until(lambda _: (self.data("reached"), self.data("job")) == (str(frames), ""))

    def download(self, name, file):
        if not self["exports"].is_displayed():
            self.click("downloads")
        self.browser.find_element("css selector", f"[data-download='{name}']").click()
        self.wait.until(lambda _: _whole(file), f"{file.name} never came")
        self.until("exports-told", f"{file.name} is downloaded")


def _whole(file):
    """Whether a download is complete: the browser makes its name first, and writes beside it."""
    return file.exists() and file.stat().st_size > 0 and not [*file.parent.glob("*.crdownload")]


def middle(truth):
    """(x, y) on object 1, near its middle."""
    ys, xs = (truth == 1).nonzero()
    at = np.argmin((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2)
    return int(xs[at]), int(ys[at])
