"""The whole path, from a video that is sent to masks that are downloaded, in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from emavos.io import write_video

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytest.importorskip("av")
pytest.importorskip("uvicorn")

if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("there is no chromium with chromedriver", allow_module_level=True)

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402


@pytest.fixture
def address(tmp_path):
    """A page of its own, as the command line serves it."""
    command = [sys.executable, "-m", "emavos", "ui", "--port", "0", "--size", "96", "--device", "cpu"]
    command += ["--project", str(tmp_path / "project")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield re.search(r"http\S+", server.stdout.readline()).group()
        finally:
            server.terminate()


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,800"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "taken")})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def test_from_a_video_to_its_masks(address, browser, clip, tmp_path):
    write_video(tmp_path / "clip.mp4", clip[0], fps=10)
    wait = WebDriverWait(browser, 120)

    def click(name):
        wait.until(lambda d: d.find_element("id", name).is_enabled())
        browser.find_element("id", name).click()

    def wait_for(name, text):
        wait.until(lambda d: text in d.find_element("id", name).text)

    browser.get(address)
    wait_for("name", "no video yet")
    browser.find_element("id", "video").send_keys(str(tmp_path / "clip.mp4"))
    wait_for("frame", "frame 0 of 7")
    canvas = browser.find_element("id", "canvas")
    ActionChains(browser).drag_and_drop_by_offset(canvas, 60, 20).perform()
    wait_for("kind", "edited")
    click("track")
    wait.until(lambda d: d.find_element("tag name", "body").get_attribute("data-reached") == "8")
    wait_for("frame", "frame 7 of 7")
    wait_for("kind", "tracked")
    if folder := os.environ.get("EMAVOS_SCREENSHOTS"):
        browser.save_screenshot(os.path.join(folder, "ui.png"))
    browser.find_element("tag name", "body").send_keys("\ue012")  # the left arrow
    wait_for("frame", "frame 6 of 7")
    browser.find_element("css selector", "[data-download='masks.zip']").click()
    file = tmp_path / "taken" / "clip-masks.zip"
    wait.until(lambda _: file.exists())
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == [f"{i:05d}.png" for i in range(8)]
    severe = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert not [line for line in severe if "favicon" not in line["message"]]
