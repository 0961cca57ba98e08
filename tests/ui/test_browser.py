"""The whole path, from a video that is sent to masks that are downloaded, in a real browser."""

from __future__ import annotations

import json
import re
import time
import zipfile

import numpy as np
import pytest

from browsing import ENTER, LEFT, RIGHT, ActionChains, Page, middle, serving, started
from emavos.io import open_frames, write_mask, write_video
from emavos.ui import Project
from emavos.visualize import colour

# Each answer of the page's server takes two seconds.
SLOW = """
window.quickly = window.fetch;
window.pending = 0;
window.fetch = async (...asked) => {
  if (asked[1].method === "GET") {
    window.pending++;
    await new Promise((done) => setTimeout(done, 2000));
    window.pending--;
  }
  return window.quickly(...asked);
};
"""


@pytest.fixture
def address(tmp_path):
    with serving("--project", str(tmp_path / "project")) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with started() as driver:
        yield driver


@pytest.fixture
def empty(browser, address, tmp_path):
    """The page before there is a video."""
    taken = {"behavior": "allow", "downloadPath": str(tmp_path / "taken")}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", taken)
    browser.get("about:blank")
    browser.get_log("browser")
    yield Page(browser, address)
    severe = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    refused = "409 (Conflict)"  # as a stale tab is
    assert not [line for line in severe if refused not in line["message"]]
    browser.get("about:blank")  # the server ends now, and a page would look for it


@pytest.fixture
def page(empty, clip, tmp_path):
    """The page with a clip of eight frames."""
    write_video(tmp_path / "clip.mp4", clip[0], fps=10)
    empty["video"].send_keys(str(tmp_path / "clip.mp4"))
    empty.until("frame", "frame 0 of 7")
    return empty


def test_from_a_video_to_its_masks(page, tmp_path):
    page.paint(60, 20)
    page.track()
    page.until("frame", "frame 7 of 7")
    page.until("kind", "tracked")
    page.press("\ue012")  # the left arrow
    page.until("frame", "frame 6 of 7")
    page.download("masks.zip", tmp_path / "taken" / "clip-masks.zip")
    with zipfile.ZipFile(tmp_path / "taken" / "clip-masks.zip") as archive:
        assert archive.namelist() == [f"{i:05d}.png" for i in range(8)]
    page.download("masks.json", tmp_path / "taken" / "clip-masks.json")
    page.download("overlay.mp4", tmp_path / "taken" / "clip-overlay.mp4")
    assert len(list(open_frames(tmp_path / "taken" / "clip-overlay.mp4"))) == 8
    assert json.loads((tmp_path / "taken" / "clip-masks.json").read_text())["annotations"]


def test_a_frame_is_mended_and_tracked_on_from_there(page, tmp_path):
    page.paint(60, 20)
    page.track()
    before = [Project.open(tmp_path / "project").mask(i) for i in range(8)]
    width = page["timeline"].size["width"]
    ActionChains(page.browser).move_to_element_with_offset(
        page["timeline"], width // 8 // 2, 0
    ).click().perform()
    page.until("frame", "frame 4 of 7")
    page.press("2")
    page.paint(-80, -40)
    page.click("keep")
    page.until("kind", "given by you")
    assert page.data("reached") == "4"
    page.press("\ue014")  # the right arrow
    page.until("kind", "outdated")
    page.track()
    project = Project.open(tmp_path / "project")
    assert 2 in project.given[4]
    for index in range(8):
        same = np.array_equal(project.mask(index), before[index])
        assert same == (index < 4), index


def test_who_goes_to_the_next_frame_while_a_mask_is_being_kept_gets_there(page):
    page.paint(60, 20)
    page.browser.execute_script(SLOW)
    page.press(ENTER)
    page.press(RIGHT)
    page.until("frame", "frame 1 of 7")
    page.wait.until(lambda browser: browser.execute_script("return window.pending === 0"))
    time.sleep(0.2)  # what is shown next would be shown now
    assert "frame 1 of 7" in page["frame"].text


# Masks reach the page only when the next mask has reached the server.
LATE = """
const quickly = window.fetch, soon = (wait) => new Promise((done) => setTimeout(done, wait));
window.held = [];
window.kept = 0;
window.fetch = async (url, options) => {
  const answer = await quickly(url, options);
  if (!url.startsWith("/api/masks/")) return answer;
  if (options.method === "GET") await new Promise((done) => window.held.push(done));
  else {
    window.held.splice(0).forEach((done) => done());
    await soon(200);
    window.kept++;
  }
  return answer;
};
"""


def test_a_mask_that_comes_late_does_not_hide_strokes_that_are_kept_meanwhile(page, tmp_path):
    page.paint(60, 20)
    page.browser.execute_script(LATE)
    page.press(ENTER)
    page.until("kind", "given by you")
    for count, (across, down) in enumerate([(60, -40), (-60, 40)], 2):
        page.wait.until(lambda browser: browser.execute_script("return held.length"))
        page.paint(across, down)
        time.sleep(0.5)  # the strokes are stored now
        page.press(ENTER)
        page.wait.until(lambda browser, count=count: browser.execute_script("return kept") == count)
        page.until("kind", "given by you")
    mask = Project.open(tmp_path / "project").mask(0)
    assert mask[:40, 90:].any(), "the second stroke is gone"
    assert mask[56:, :70].any()


def test_strokes_are_undone_and_erased(page, tmp_path):
    page.paint(60, 20)
    page.click("undo")
    page.until("kind", "no mask yet")
    page.paint(60, 20)
    page.click("keep")
    page.until("kind", "given by you")
    painted = np.count_nonzero(Project.open(tmp_path / "project").mask(0))
    page.click("eraser")
    page.paint(20, 7)
    page.press("\ue007")  # Enter
    page.until("kind", "given by you")
    assert 0 < np.count_nonzero(Project.open(tmp_path / "project").mask(0)) < painted


def test_a_mask_is_loaded_with_colours_of_the_library_and_an_object_removed(page, clip, tmp_path):
    mask = clip[1][0] * 17  # ids 17 and 34
    write_mask(tmp_path / "mask.png", mask)
    page["mask"].send_keys(str(tmp_path / "mask.png"))
    page.until("kind", "edited")
    page.click("keep")
    page.until("kind", "given by you")
    np.testing.assert_array_equal(Project.open(tmp_path / "project").mask(0), mask)
    buttons = {b.text: b for b in page["objects"].find_elements("css selector", ".pick")}
    for id in (17, 34):
        style = buttons[str(id)].get_attribute("style")
        assert [int(x) for x in re.findall(r"\d+", style)] == [*colour(id)]
    buttons["34"].click()
    page.click("remove")
    page.wait.until(lambda _: "34" not in page["objects"].text)
    assert Project.open(tmp_path / "project").ids == (17,)


def test_tracking_that_is_stopped_keeps_its_masks_and_goes_on_from_there(empty, clip, tmp_path):
    frames = [clip[0][i % 8] for i in range(400)]  # too many to be done before a click
    write_video(tmp_path / "long.mp4", frames, fps=10)
    empty["video"].send_keys(str(tmp_path / "long.mp4"))
    empty.until("frame", "frame 0 of 399")
    empty.paint(60, 20)
    empty.click("track")
    empty.wait.until(lambda _: int(empty.data("reached") or 0) > 0)
    empty.click("stop")
    empty.wait.until(lambda _: empty.data("job") == "")
    assert not empty["stop"].is_enabled()
    reached = int(empty.data("reached"))
    assert 0 < reached < 400
    empty.until("told", f"stopped: tracked to frame {reached - 1}; Track continues")
    masks = [Project.open(tmp_path / "project").mask(i) for i in range(reached)]
    assert all(mask.any() for mask in masks[:2])
    assert Project.open(tmp_path / "project").kind(reached) == "none"
    empty.click("track")
    empty.wait.until(lambda _: int(empty.data("reached")) > reached)
    empty.click("stop")
    empty.wait.until(lambda _: empty.data("job") == "")
    again = Project.open(tmp_path / "project")
    assert again.reached > reached
    np.testing.assert_array_equal([again.mask(i) for i in range(reached)], masks)


def test_the_work_of_two_tabs_and_of_two_videos_is_kept(browser, clip, tmp_path):
    for name in ("one.mp4", "two.mp4"):
        write_video(tmp_path / name, clip[0], fps=10)
    projects = tmp_path / "home" / "emavos" / "projects"
    with serving(XDG_DATA_HOME=str(tmp_path / "home")) as address:
        first, tab = Page(browser, address), browser.current_window_handle
        first["video"].send_keys(str(tmp_path / "one.mp4"))
        first.until("frame", "frame 0 of 7")
        assert "token" not in browser.current_url
        first.paint(60, 20)
        project = projects / "one"
        first.wait.until(lambda _: Project.open(project).drafts == {0})
        browser.switch_to.new_window("tab")
        second = Page(browser, address, "one.mp4")
        second.until("kind", "edited")  # what was not kept is seen here too
        second.press("2")
        second.paint(-60, -20)
        second.click("keep")
        second.until("kind", "given by you")
        assert Project.open(project).given == {0: (1, 2)}
        browser.close()
        browser.switch_to.window(tab)
        browser.execute_script(SLOW)  # so that the page looks for news while it mends this
        first.press(ENTER)  # on the mask as it was
        first.until("told", "under your strokes: keep it again")
        browser.execute_script("window.fetch = window.quickly")
        first.wait.until(lambda _: browser.execute_script("return window.pending") == 0)
        first.until("kind", "edited")
        first.click("keep")
        first.until("kind", "given by you")
        assert Project.open(project).given == {0: (1, 2)}
        assert set(np.unique(Project.open(project).mask(0))) == {0, 1, 2}
        browser.refresh()
        first.until("kind", "given by you")
        first["video"].send_keys(str(tmp_path / "two.mp4"))
        first.until("name", "two.mp4")
        first.until("told", "one.mp4 is kept")
        first.click("clips")
        first.wait.until(lambda _: "one.mp4" in first["all-clips"].text)
        first.open_clip("one.mp4")
        first.until("name", "one.mp4")
        first.until("kind", "given by you")
    assert Project.open(project).given == {0: (1, 2)}
    assert sorted(path.name for path in projects.iterdir()) == ["one", "two"]
    with serving(str(tmp_path / "two.mp4"), XDG_DATA_HOME=str(tmp_path / "home")) as address:
        Page(browser, address, "two.mp4")  # known as another, since it is read from its own path
        browser.get("about:blank")
    assert sorted(path.name for path in projects.iterdir()) == ["one", "two", "two-2"]


@pytest.mark.slow
def test_clips_are_added_together_painted_and_tracked_one_after_another(browser, clip, tmp_path):
    names = ["one.mp4", "two.mp4", "three.mp4"]
    for name in names:
        write_video(tmp_path / name, clip[0], fps=10)
    projects = tmp_path / "home" / "emavos" / "projects"
    with serving(XDG_DATA_HOME=str(tmp_path / "home")) as address:
        page = Page(browser, address)
        page["video"].send_keys("\n".join(str(tmp_path / name) for name in names))
        page.until("name", "one.mp4")
        page.until("clips", "Clips (3)")
        for name in names[:2]:
            if name != "one.mp4":
                page.click("clips")
                page.open_clip(name)
                page.until("name", name)
            page.paint(60, 20)
            page.click("keep")
            page.until("kind", "given by you")
        page.click("clips")
        page.click("track-all")
        page.wait.until(lambda _: Project.open(projects / "two").reached == 8)
        page.wait.until(lambda _: Project.open(projects / "one").reached == 8)
        page.wait.until(lambda _: page["all-clips"].text.count("\ntracked") == 2)
        assert "no mask yet" in page["all-clips"].text
        browser.get("about:blank")
    with serving(XDG_DATA_HOME=str(tmp_path / "home")) as address:
        page = Page(browser, address)
        page.wait.until(lambda _: "three.mp4" in page["recent"].text)
        page.open_clip("two.mp4", "recent")
        page.until("name", "two.mp4")
        page.until("kind", "given by you")
        browser.get("about:blank")


def test_a_page_without_a_video_says_how_to_begin_and_offers_nothing_else(empty):
    empty.wait.until(lambda _: empty["empty"].is_displayed())
    assert "Open a video" in empty["empty"].text
    for name in ("track", "stop", "play", "add", "remove", "eraser", "undo", "keep", "back", "mask"):
        assert not empty[name].is_enabled(), name
    for button in empty.browser.find_elements("css selector", "[data-download]"):
        assert not button.is_enabled()
    assert empty["video"].is_enabled()


@pytest.mark.slow
def test_from_clicks_to_masks_with_a_stray_click_undone(page, clip, tmp_path):
    assert page["tool-click"].get_attribute("aria-pressed") == "true"  # as there is no mask yet
    page.until("guide", "Click on the object")
    page.click_at(*middle(clip[1][0]))
    page.until("guide", "match about")
    page.until("kind", "proposal")
    page.click_at(1, 1, right=True)
    page.wait.until(lambda _: "proposal" in page["kind"].text)
    page.control("z")
    page.press(ENTER)
    page.until("kind", "given by you")
    page.track()
    before = [Project.open(tmp_path / "project").mask(i) for i in range(8)]
    page.click("tool-brush")
    page.click_at(3, 3)  # a stray click
    page.until("kind", "edited")
    page.press(LEFT)  # leaving the frame drops nothing
    page.until("frame", "frame 6 of 7")
    page.until("drafts", "frame 7")
    assert page.data("reached") == "8"
    page.browser.refresh()
    page.until("frame", "frame 7 of 7")
    page.until("kind", "edited")
    page.click("keep")
    page.until("kind", "given by you")
    assert page.data("reached") == "7"
    page.control("z")
    page.until("told", "undone: mask given, frame 7")
    page.until_reached(8)
    assert all(np.array_equal(Project.open(tmp_path / "project").mask(i), before[i]) for i in range(8))
    page.control("z", shift=True)
    page.until("told", "done again")
    page.control("z")
    page.until_reached(8)
    page.download("masks.zip", tmp_path / "taken" / "clip-masks.zip")
    with zipfile.ZipFile(tmp_path / "taken" / "clip-masks.zip") as archive:
        assert archive.namelist() == [f"{i:05d}.png" for i in range(8)]


@pytest.mark.slow
def test_a_server_that_was_killed_is_told_of_and_the_next_goes_on(page, address, tmp_path):
    page.paint(60, 20)
    page.click("keep")
    page.until("kind", "given by you")
    page.press("2")
    page.paint(-60, -20)
    page.wait.until(lambda _: Project.open(tmp_path / "project").drafts == {0})
    address.server.kill()
    page.wait.until(lambda _: page["lost"].is_displayed())
    assert f"emavos ui --project {tmp_path / 'project'}" in page["again"].text
    assert "--size 96" in page["again"].text
    with serving(
        "--project", str(tmp_path / "project"), str(tmp_path / "clip.mp4")
    ) as again:  # as documented
        second = Page(page.browser, again, "clip.mp4")
        second.until("kind", "edited")
        chosen = page.browser.find_element("css selector", ".pick[aria-pressed='true']")
        assert chosen.text == "2"  # the object of the strokes that were not kept
        second.press(ENTER)
        second.until("kind", "given by you")
        assert Project.open(tmp_path / "project").given == {0: (1, 2)}
        page.browser.get("about:blank")
    page.browser.get_log("browser")  # of the server that was killed


def test_the_list_of_keys_begins_at_its_top_on_a_small_screen(empty):
    empty.resize(390, 500)
    try:
        empty.click("help")
        empty.wait.until(lambda _: empty["keys-title"].is_displayed())
        top = "return [keys.scrollTop, keys.scrollHeight > keys.clientHeight]"
        assert empty.browser.execute_script(top) == [0, True]
    finally:
        empty.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(390, 844), (820, 1180), (1280, 720)])
def test_every_control_is_on_the_screen_of_a_phone_and_of_a_tablet(page, width, height):
    page.resize(width, height)
    try:
        page.wait.until(lambda d: d.execute_script("return innerWidth") == width)
        wide = page.browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        for name in ("canvas", "tool-click", "keep", "track", "stop", "play", "timeline", "undo", "help"):
            box = page[name].rect
            assert box["x"] >= 0, name
            assert box["x"] + box["width"] <= width, name
            assert box["y"] + box["height"] <= height, name
        assert page["canvas"].size["height"] > 100
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
