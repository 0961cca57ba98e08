"""Objects, directions, the review and accessibility of the page, in a real browser."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from browsing import (
    CONTROL,
    DOWN,
    ENTER,
    ESCAPE,
    LEFT,
    RIGHT,
    SHIFT,
    SIZE,
    UP,
    ActionChains,
    Page,
    middle,
    serving,
    started,
)
from emavos.io import write_mask, write_video
from emavos.ui import Project
from emavos.ui.switches import Switches

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"  # npm install --no-save axe-core
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    with started() as driver:
        yield driver


@contextmanager
def given(browser, clip, folder, *options):
    """The page with a mask of frame 4."""
    write_video(folder / "clip.mp4", clip[0], fps=10)
    write_mask(folder / "mask.png", clip[1][4])
    with serving(str(folder / "clip.mp4"), *options, XDG_DATA_HOME=str(folder / "home")) as address:
        page = Page(browser, address, "clip.mp4")
        page.until("frame", "frame 0 of 7")
        for frame in range(1, 5):
            page.press("\ue014")
            page.until("frame", f"frame {frame} of 7")
        page["mask"].send_keys(str(folder / "mask.png"))
        page.until("kind", "edited")
        page.click("keep")
        page.until("kind", "given by you")
        yield page
        browser.get("about:blank")


@pytest.fixture
def page(browser, clip, tmp_path):
    """The page with a mask of frame 4."""
    with given(browser, clip, tmp_path) as page:
        yield page


@pytest.fixture
def slow(browser, clip, tmp_path):
    """The page with a mask of frame 4, and frames so large for the network that a pass can be watched."""
    with given(browser, clip, tmp_path, "--size", "800") as page:
        yield page


def test_objects_are_named_hidden_and_locked_and_tracked_backward_and_both_ways(page, clip, tmp_path):
    folder = tmp_path / "home" / "emavos" / "projects" / "clip"
    page.press(LEFT)
    page.until("kind", "no mask yet")  # nor are masks outdated that are still to be tracked backward
    page.press(RIGHT)
    page.until("kind", "given by you")
    page["label"].send_keys("ball\ue007")
    page.until("objects", "1 · ball")
    assert Project.open(folder).labels == {1: "ball"}
    page.press("k")
    page.click("tool-brush")
    page.click_at(*middle(clip[1][4]))
    page.until("told", "is locked")
    page.press("k")
    page.press("h")
    page.click_at(*middle(clip[1][4]))
    page.until("told", "is hidden")
    page.browser.refresh()
    hidden = "#objects [aria-label^='hide, object 1'][aria-pressed='true']"
    page.wait.until(lambda browser: browser.find_elements("css selector", hidden), "it is shown again")
    page.press("h")

    page["way"].send_keys("backward")
    page.click("track")
    page.wait.until(lambda _: sorted(Project.open(folder).confidence) == [0, 1, 2, 3])
    page.wait.until(lambda _: page.data("job") == "")
    assert page["outdated"].get_attribute("hidden"), "the masks tracked backward are said to be outdated"
    page.press("\ue011")  # Home
    page.until("kind", "tracked")
    page.press("i")
    page["way"].send_keys("both")
    page.click("track")
    page.wait.until(lambda _: len(Project.open(folder).confidence) == 8)
    page.wait.until(lambda _: page.data("job") == "")
    page.click("fix")
    page.wait.until(lambda _: "to fix" in page["told"].text or "no frame looks wrong" in page["told"].text)
    page.control("z")
    page.until("told", "undone: tracked both ways")
    page.press("1")
    page.click("remove")
    page.until("told", "object 1 · ball is removed from all frames")


# The widths of the bands that a pass backward has drawn on the timeline, in frames.
BANDS = """
const line = document.getElementById("timeline"), to = line.getContext("2d"), fill = to.fillRect;
const probe = document.createElement("canvas").getContext("2d");
probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--passed");
window.bands = [];
to.fillRect = function (x, y, w, h) {
  const frames = [x, w].map((one) => Math.round(8 * one / line.clientWidth));
  if (this.fillStyle === probe.fillStyle) bands.push(frames);
  return fill.call(this, x, y, w, h);
};
"""


# What the page says of the frame, each time it says something else.
NOTED = """
window.kinds = [];
const kind = document.getElementById("kind");
new MutationObserver(() => window.kinds.push(kind.textContent)).observe(kind, { childList: true });
"""


@pytest.mark.parametrize("way", ["backward", "both"])
def test_masks_are_shown_while_the_page_tracks_backward(slow, way):
    slow.browser.execute_script(NOTED)
    slow.browser.execute_script(BANDS)
    slow["way"].send_keys(way)
    slow.click("track")
    slow.until("kind", "tracked backward, not stored yet")
    slow.wait.until(lambda _: slow.data("job") == "")
    slow.wait.until(lambda _: slow["kind"].text == "tracked")
    kinds = slow.browser.execute_script("return kinds")
    assert kinds.count("tracked backward, not stored yet") > 1
    bands = slow.browser.execute_script("return bands")
    assert len({start for start, _ in bands}) > 1
    assert {start + width for start, width in bands} == {5}  # after the mask that was given


def test_a_pass_backward_that_is_stopped_says_that_its_masks_are_gone(slow, tmp_path):
    slow["way"].send_keys("backward")
    slow.click("track")
    slow.until("kind", "tracked backward, not stored yet")
    slow.click("stop")
    slow.until("told", "none of its masks is kept")
    slow.until("kind", "no mask yet")
    assert Project.open(tmp_path / "home" / "emavos" / "projects" / "clip").confidence == {}
    slow.click("track")
    slow.wait.until(lambda _: slow["kind"].text == "tracked")
    slow.until("told", "done: tracked backward from frame 4")


# The page is in the background, or in front again; the titles that it has had.
BACKGROUND = """
Object.defineProperty(document, "hidden", { value: arguments[0], configurable: true });
document.dispatchEvent(new Event("visibilitychange"));
window.titles = [];
const title = document.querySelector("title");
new MutationObserver(() => titles.push(document.title)).observe(title, { childList: true });
"""


def test_who_looks_away_learns_from_the_title_and_the_words_that_tracking_has_ended(slow):
    browser = slow.browser
    assert browser.title == "clip.mp4 · emavos"
    browser.execute_script(BACKGROUND, True)
    slow.click("track")
    slow.until("told", "done: tracked to frame 7")
    assert slow["told"].get_attribute("role") == "status"
    assert any(
        re.match(r"\d+% · clip\.mp4 · emavos", title) for title in browser.execute_script("return titles")
    )
    slow.wait.until(lambda _: browser.title == "done · clip.mp4 · emavos")
    browser.execute_script(BACKGROUND, False)
    assert browser.title == "clip.mp4 · emavos"
    slow["way"].send_keys("backward")
    slow.click("track")
    slow.until("told", "done: tracked backward from frame 4")
    assert browser.title == "clip.mp4 · emavos"  # for who looks on
    slow["way"].send_keys("both")
    slow.click("track")
    slow.until("told", "done: tracked both ways")


def test_a_lasso_that_ends_where_it_began_is_filled_however_fast_it_is_drawn(page):
    page.press("\ue010")  # End
    page.until("frame", "frame 7 of 7")
    page.press("l")
    chain = ActionChains(page.browser, 0).move_to_element(page["canvas"]).click_and_hold()
    for across, down in ((90, 0), (0, 90), (-90, 0), (0, -90)):
        chain = chain.move_by_offset(across, down)
    chain.release().perform()
    page.until("kind", "edited")
    page.click("undo")
    page.until("kind", "no mask yet")
    for across, down in ((0, 0), (90, 0), (0, 90)):  # clicks still are the corners of a polygon
        chain = ActionChains(page.browser, 0).move_to_element_with_offset(page["canvas"], across, down)
        chain.click().perform()
    assert "no mask yet" in page["kind"].text
    page.press(ENTER)
    page.until("kind", "edited")


@pytest.mark.parametrize("keys", ["b", LEFT])
def test_a_polygon_that_was_begun_ends_with_its_tool_and_its_frame(page, keys):
    page.press("\ue010", "l")  # End
    page.until("frame", "frame 7 of 7")
    ActionChains(page.browser, 0).move_to_element_with_offset(page["canvas"], 90, 90).click().perform()
    assert page.browser.execute_async_script(RING) > 0  # its first corner is seen
    ActionChains(page.browser, 0).send_keys(keys).perform()
    if keys == LEFT:
        page.until("frame", "frame 6 of 7")
    ActionChains(page.browser, 0).send_keys("b").drag_and_drop_by_offset(page["canvas"], 60, 20).perform()
    page.until("kind", "edited")  # the brush paints
    ActionChains(page.browser, 0).send_keys(ENTER).perform()
    page.until("kind", "given by you")


def test_downloads_are_named_like_their_video_and_follow_one_another(browser, clip, tmp_path):
    write_video(tmp_path / "Grüße 鱼.mp4", clip[0], fps=10)
    taken = {"behavior": "allow", "downloadPath": str(tmp_path / "taken")}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", taken)
    with serving(XDG_DATA_HOME=str(tmp_path / "home")) as address:
        page = Page(browser, address)
        page["video"].send_keys(str(tmp_path / "Grüße 鱼.mp4"))
        page.until("name", "Grüße 鱼.mp4")
        page.until("frame", "frame 0 of 7")
        page.paint(60, 20)
        page.click("keep")
        page.until("kind", "given by you")
        page.click("downloads")
        page.until("exports-part", "0 of 8 frames are tracked. Only frames with an up-to-date mask")
        page.download("masks.json", tmp_path / "taken" / "Grüße 鱼-masks.json")
        focused = page.browser.switch_to.active_element
        assert focused.get_attribute("data-download") == "masks.json"
        page.download("masks.zip", tmp_path / "taken" / "Grüße 鱼-masks.zip")  # the dialog stays open
        page.press(ESCAPE)
        page.wait.until(lambda _: not page["exports"].is_displayed())
        browser.get("about:blank")


# Which parts of the ring around the pointer are drawn.
RING = """
const [done] = arguments, marks = document.getElementById("marks"), to = marks.getContext("2d");
requestAnimationFrame(() => {
  const seen = to.getImageData(0, 0, marks.width, marks.height).data;
  done(seen.filter((value, i) => i % 4 === 3 && value > 100).length);
});
"""


@pytest.fixture
def brushed(page):
    """The page at frame 7 with the brush and one stroke that was not kept."""
    page.press("\ue010")  # End
    page.until("frame", "frame 7 of 7")
    page.paint(-60, -20)
    return page


def held(page, *keys):
    """A stroke of the brush with keys pressed in the middle of it, until it is let go."""
    chain = ActionChains(page.browser, 0).move_to_element(page["canvas"]).click_and_hold()
    return chain.move_by_offset(40, 0).send_keys(*keys).move_by_offset(40, 0)


DRAWN = "return document.getElementById('canvas').toDataURL()"


TEXT = "return document.body.innerText"
OTHERS = [ENTER, RIGHT, LEFT, "\ue011", " ", *"2clehkgn?x"]


def test_a_key_in_the_middle_of_a_stroke_does_nothing(brushed):
    page, before = brushed, brushed.browser.execute_script(TEXT)
    for key in OTHERS:
        held(page, key).perform()
        assert page.browser.execute_script(TEXT) == before, key
        ActionChains(page.browser, 0).release().perform()
        assert page.browser.execute_script(TEXT) == before, key
        assert not page["keys"].is_displayed()
    for _ in [*OTHERS, "the first"]:  # the halves of a stroke are undone together
        page.until("kind", "edited, not kept yet")
        page.click("undo")
    page.until("kind", "no mask yet")


def test_escape_in_the_middle_of_a_stroke_takes_back_only_this_stroke(brushed):
    before = brushed.browser.execute_script(DRAWN)
    held(brushed, ESCAPE).release().perform()
    assert brushed.browser.execute_script(DRAWN) == before
    brushed.until("kind", "edited, not kept yet")
    brushed.press("x")
    ActionChains(brushed.browser, 0).key_down(" ").send_keys(RIGHT, RIGHT, ESCAPE, RIGHT).key_up(
        " "
    ).perform()
    assert brushed.browser.execute_script(DRAWN) == before
    assert brushed.browser.switch_to.active_element == brushed["canvas"]  # a second time leaves
    held(brushed, CONTROL + "z").release().perform()
    assert brushed.browser.execute_script(DRAWN) != before  # Undo waits for the end of the stroke


def test_a_box_and_a_lasso_are_dropped_by_escape_in_the_middle(page):
    page.press("\ue010")  # End
    page.until("frame", "frame 7 of 7")
    for tool in "cl":
        page.press(tool)
        held(page, ESCAPE).move_by_offset(0, 40).release().perform()
        assert page["kind"].text == "no mask yet"
    assert page.browser.execute_script(SENT) == []


def test_a_mask_that_another_finger_keeps_in_the_middle_of_a_stroke_loses_nothing(touched):
    touched.press("b")
    tap(touched, (-60, 0))
    touched.until("kind", "edited, not kept yet")
    touch(touched, "Start", (-60, 40))
    touch(touched, "Move", (-20, 40))
    touched.browser.execute_script("document.getElementById('keep').click()")
    touched.until("kind", "given by you")
    touch(touched, "Move", (60, 40))
    touch(touched, "End")
    touched.until("kind", "edited, not kept yet")


def test_the_ring_and_the_words_say_that_the_eraser_is_on(page):
    page.press("b")
    page.until("guide", "Paint the object")
    ActionChains(page.browser, 0).move_to_element(page["canvas"]).perform()
    whole = page.browser.execute_async_script(RING)
    page.press("e")
    page.until("guide", "Erase what is not part")
    dashed = page.browser.execute_async_script(RING)
    assert 0 < dashed < 0.8 * whole
    page.press("2")  # another object is painted
    assert page.browser.execute_async_script(RING) == whole
    page.press("e")
    page.press("l")
    page.until(
        "guide", "to erase" if page["eraser"].get_attribute("aria-pressed") == "true" else "Right button"
    )


def touch(page, kind, *places):
    """Fingers begin to touch, move, or end, at these places from the middle of the stage."""
    box = page["stage"].rect
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    points = [{"x": middle[0] + x, "y": middle[1] + y, "id": i} for i, (x, y) in enumerate(places)]
    page.browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})


def tap(page, place):
    touch(page, "Start", place)
    touch(page, "End")


def scale(page):
    return page.browser.execute_script(
        "return new DOMMatrix(getComputedStyle(document.getElementById('canvas')).transform).a"
    )


@pytest.fixture
def touched(page):
    """The page on a touch screen, at a frame without a mask."""
    page.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 3})
    page.press("\ue010")  # End
    page.until("frame", "frame 7 of 7")
    yield page
    page.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def pinch(page, third=()):
    """Two fingers zoom three times, and `third` are put down and lifted after them."""
    touch(page, "Start", (-40, 0))
    touch(page, "Start", (-40, 0), (40, 0))
    touch(page, "Move", (-120, 0), (120, 0))
    if third:
        touch(page, "Start", (-120, 0), (120, 0), third)
        touch(page, "Move", (-120, 0), (120, 0), (third[0] + 30, third[1]))
    touch(page, "End")


@pytest.mark.parametrize("tool", ["b", "l", "c"])
def test_two_fingers_zoom_and_a_third_changes_nothing(touched, tool):
    touched.press(tool)
    pinch(touched, third=(0, 60))
    touched.wait.until(lambda _: scale(touched) > 2)
    assert "edited" not in touched["kind"].text
    assert "proposal" not in touched["kind"].text
    touched.press("f")
    touched.wait.until(lambda _: scale(touched) == 1)


def test_corners_of_a_polygon_stay_while_two_fingers_zoom(touched):
    touched.press("l")
    for corner in ((-60, -40), (60, -40)):
        tap(touched, corner)
    pinch(touched)
    touched.wait.until(lambda _: scale(touched) > 2)
    tap(touched, (0, 60))
    touched.press(ENTER)
    touched.until("kind", "edited")


def wheel(page, by, ctrl):
    box = page["stage"].rect
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    event = {"type": "mouseWheel", "deltaX": 0, "deltaY": by, "modifiers": 2 * ctrl, **place}
    page.browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)


def test_the_wheel_zooms_with_ctrl_and_else_changes_the_size_of_the_brush(page):
    page.press("b")
    size = int(page["size"].get_attribute("value"))
    wheel(page, -120, ctrl=False)
    page.wait.until(lambda _: int(page["size"].get_attribute("value")) == size + 2)
    assert scale(page) == 1
    wheel(page, -120, ctrl=True)
    page.wait.until(lambda _: scale(page) > 1.3)
    wheel(page, 480, ctrl=True)
    page.wait.until(lambda _: scale(page) == 1)


def test_the_keyboard_alone_reaches_all_buttons_and_keeps_its_place(page):
    def keys(*pressed):
        ActionChains(page.browser, 0).send_keys(*pressed).perform()

    def focused():
        return page.browser.switch_to.active_element.get_attribute("id")

    def focus(name):
        page.browser.execute_script("document.getElementById(arguments[0]).focus()", name)

    focus("track")
    keys(ENTER)
    page.until_reached(8)
    page.wait.until(lambda _: focused() == "track")
    enabled = page.browser.execute_script(
        "return [...document.querySelectorAll('button, input, select, #timeline')]"
        ".filter((one) => one.id && !one.disabled && one.checkVisibility()).map((one) => one.id)"
    )
    seen = {}
    for _ in range(60):
        keys("\ue004")  # Tab
        style = "return getComputedStyle(document.activeElement).outlineStyle"
        seen.setdefault(focused(), page.browser.execute_script(style))
    assert {*enabled} <= {*seen}
    assert {seen[name] for name in enabled} == {"solid"}
    focus("clips")
    keys(ENTER)
    card = "return Boolean(document.activeElement.closest('.clip'))"
    page.wait.until(lambda browser: browser.execute_script(card))
    keys(ESCAPE)
    page.wait.until(lambda _: focused() == "clips")
    page.browser.execute_script("document.activeElement.blur()")
    keys("be")
    page.wait.until(lambda _: page["eraser"].get_attribute("aria-pressed") == "true")
    assert focused() == ""  # a key without a button takes the focus nowhere


@pytest.fixture
def crosshair(page):
    """The page at a frame without a mask, with the crosshair in the middle: 80.5, 48.5."""
    page.press("\ue010")  # End
    page.until("frame", "frame 7 of 7")
    page.press("x")
    page.until("told", "Arrow keys move the crosshair")
    yield page
    ActionChains(page.browser, 0).send_keys(ESCAPE, LEFT).perform()
    page.until("frame", "frame 6 of 7")  # the keys are those of the page again


def hold_space(page, *keys):
    ActionChains(page.browser, 0).key_down(" ").send_keys(*keys).key_up(" ").perform()


def kept(page, tmp_path):
    """Rows and columns of the mask after Enter."""
    ActionChains(page.browser, 0).send_keys(ENTER).perform()
    page.until("kind", "given by you")
    return Project.open(tmp_path / "home" / "emavos" / "projects" / "clip").mask(7).nonzero()


def test_the_brush_paints_and_erases_by_the_keyboard(crosshair, tmp_path):
    page = crosshair
    page.browser.execute_script("document.getElementById('size').value = 12")
    ActionChains(page.browser, 0).send_keys("b", " ").perform()
    page.until("kind", "edited")
    rows, columns = kept(page, tmp_path)
    dab = len(rows)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (43, 54, 75, 86)
    hold_space(page, *[RIGHT] * 10)
    page.until("kind", "edited")
    rows, columns = kept(page, tmp_path)
    assert (rows.min(), rows.max(), columns.min()) == (43, 54, 75)
    assert columns.max() > 86 + 10
    stroke = len(rows)
    ActionChains(page.browser, 0).key_down(SHIFT).send_keys(LEFT, " ").key_up(SHIFT).perform()
    page.until("kind", "edited")
    left = kept(page, tmp_path)
    assert 0 < stroke - len(left[0]) <= dab, (columns.max(), left[1].min(), left[1].max())


def test_a_click_and_a_box_are_made_by_the_keyboard(crosshair, clip):
    page, (x, y) = crosshair, middle(clip[1][7])
    across, down = (RIGHT if x > 80 else LEFT, DOWN if y > 48 else UP)
    chain = ActionChains(page.browser, 0).send_keys("c").key_down(SHIFT)
    chain.send_keys(*[across] * abs(x - 80), *[down] * abs(y - 48)).key_up(SHIFT).send_keys(" ").perform()
    page.until("guide", "match about")
    assert f'"points":[[{x},{y}]],"labels":[1]' in page.browser.execute_script(SENT)[-1]
    ActionChains(page.browser, 0).key_down(SHIFT).send_keys(UP, " ").key_up(SHIFT).perform()
    page.wait.until(lambda browser: f'[{x},{y - 1}]],"labels":[1,0]' in browser.execute_script(SENT)[-1])
    hold_space(page, LEFT, LEFT, UP, UP)
    page.wait.until(lambda browser: '"box":[' in browser.execute_script(SENT)[-1])


def test_corners_of_a_polygon_are_set_by_the_keyboard(crosshair, tmp_path):
    ActionChains(crosshair.browser, 0).send_keys("l", " ", *[RIGHT] * 8, " ", *[DOWN] * 4, " ").perform()
    crosshair.control("z")  # takes back the last corner only
    ActionChains(crosshair.browser, 0).send_keys(*[DOWN] * 4, " ", ENTER).perform()
    crosshair.until("kind", "edited")
    rows, columns = kept(crosshair, tmp_path)
    assert rows.min() == 48
    assert columns.max() - columns.min() == rows.max() - rows.min()
    ActionChains(crosshair.browser, 0).send_keys(LEFT, " ", ESCAPE).perform()  # drops only the polygon
    assert crosshair.browser.switch_to.active_element == crosshair["canvas"]


def test_the_crosshair_stays_in_view_when_the_picture_is_zoomed(crosshair):
    wheel(crosshair, -400, ctrl=True)
    crosshair.wait.until(lambda _: scale(crosshair) > 2)

    def edge():
        """Left edge of the video in the stage, in pixels of the screen."""
        height, width = SIZE
        box, zoomed = crosshair["stage"].rect, scale(crosshair)
        wide = width * min(box["width"] / width, box["height"] / height)
        return crosshair["canvas"].rect["x"] - box["x"] + (box["width"] - wide) / 2 * zoomed

    assert edge() < -100
    ActionChains(crosshair.browser, 0).send_keys(*[LEFT] * 90).perform()
    crosshair.wait.until(lambda _: 0 <= edge() < 30)


def test_a_click_on_the_picture_leaves_the_arrow_keys_to_the_frames(page):
    page["label"].click()
    ActionChains(page.browser, 0).send_keys("b").perform()  # the name
    page.click_at(3, 3)
    page.until("told", "")
    ActionChains(page.browser, 0).send_keys(LEFT).perform()
    page.until("frame", "frame 3 of 7")
    page.until("objects", "1 · b")


# A long queue and a range of frames, for as long as the page does not look; and the texts that are cut.
QUEUED = """
const texts = { doing: "tracking: 1234 of 5678, seconds left", queue: "19 other clips in the queue",
  range: "1234-5678 x", frame: "frame 1234 of 5678" };
for (const id in texts) Object.assign(document.getElementById(id), { hidden: false, textContent: texts[id] });
document.getElementById("progress").hidden = false;
const cut = Object.keys(texts).filter((id) => {
  const one = document.getElementById(id);
  const outside = one.getBoundingClientRect().right > innerWidth;
  return outside || one.clientWidth && one.scrollWidth > one.clientWidth;
});
const box = (name) => document.querySelector(name).getBoundingClientRect();
return [box(".bar").height, box("#track").right, box("#progress").width, cut];
"""


def test_no_text_of_the_bar_below_the_frame_is_cut_while_a_queue_is_tracked(page):
    heights = {1440: 50, 1280: 50, 1200: 50, 1024: 90, 820: 90, 390: 180}
    try:
        for width, most in heights.items():
            page.resize(width, 900)
            height, right, progress, cut = page.browser.execute_script(QUEUED)
            assert (height < most, right <= width, progress > 30, cut) == (True, True, True, []), width
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# The words of a proposal that needs more clicks, for as long as the page does not describe itself.
PROPOSED = """
const guide = document.getElementById("guide"), keep = document.getElementById("keep");
const top = () => keep.getBoundingClientRect().top, before = top();
guide.textContent = "Object 12: match about 38%: click more. "
  + "Right or Alt click: not part of it. Enter keeps, Esc discards.";
return [before, top()];
"""


def test_the_button_that_keeps_a_mask_stays_in_place_when_there_is_a_proposal(page):
    try:
        for width in (1440, 1280, 1024):
            page.resize(width, 900)
            page.press("c")  # describes itself again
            before, after = page.browser.execute_script(PROPOSED)
            assert after == before, width
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_clips_are_listed_by_name_with_2_before_10(page, clip, tmp_path):
    for name in ("clip10.mp4", "Clip2.mp4"):
        write_video(tmp_path / name, clip[0], fps=10)
        page["video"].send_keys(str(tmp_path / name))
        page.until("name", name)
        page.until("frame", "of 7")
    page.click("clips")
    page.wait.until(lambda _: page["all-clips"].text.count("8 frames") == 3)
    page.click("track-all")  # says so in the list, behind which other words are not seen
    page.until("clips-told", "1 clip to track, one after another")
    page.until("clips-told", "the other clips are done")
    lines = page["all-clips"].text.splitlines()
    assert [line for line in lines if ".mp4" in line] == ["clip.mp4", "Clip2.mp4", "clip10.mp4"]


# Frames take a while to come.
SLOW_FRAMES = """
const quickly = window.fetch, soon = (wait) => new Promise((done) => setTimeout(done, wait));
window.fetch = async (...asked) => {
  if (asked[0].startsWith("/api/frames/")) await soon(500);
  return quickly(...asked);
};
"""
HOLD_LEFT = """
const done = arguments[0];
let presses = 0;
const timer = setInterval(() => {
  const key = { key: "ArrowLeft", repeat: presses > 0, bubbles: true };
  document.body.dispatchEvent(new KeyboardEvent("keydown", key));
  if (++presses === 3) clearInterval(timer), done();
}, 20);
"""


def test_each_press_of_an_arrow_key_counts_while_frames_load_and_a_held_key_skips_none(page):
    page.browser.execute_script(SLOW_FRAMES)
    page.press(LEFT, LEFT, LEFT)
    page.until("frame", "frame 1 of 7")
    page.press(*[RIGHT] * 9, LEFT)  # beyond the last frame presses do not count
    page.until("frame", "frame 6 of 7")
    page.browser.execute_async_script(HOLD_LEFT)
    page.until("frame", "frame 5 of 7")
    page.press(LEFT)
    page.until("frame", "frame 4 of 7")


# Switches reach the server only when `release` is called.
HELD = """
const quickly = window.fetch, held = new Promise((done) => { window.release = done; });
window.answers = [];
window.fetch = async (...asked) => {
  if (asked[0] !== "/api/switches") return quickly(...asked);
  await held;
  const answer = await quickly(...asked);
  window.answers.push(answer.status);
  return answer;
};
"""


def test_a_video_is_opened_after_the_switches_that_wait_are_stored(page, clip, tmp_path):
    projects = tmp_path / "home" / "emavos" / "projects"
    write_video(tmp_path / "two.mp4", clip[0], fps=10)
    page.browser.execute_script(HELD)
    page.press("h")
    page.press("k")  # waits until the first was answered
    page["video"].send_keys(str(tmp_path / "two.mp4"))
    page.browser.execute_script("release()")
    page.until("name", "two.mp4")
    page.until("told", "clip.mp4 is kept")
    assert page.browser.execute_script("return answers") == [200, 200]
    assert Project.open(projects / "clip").switches == Switches((1,), (1,))
    assert Project.open(projects / "two").switches == Switches()

    page.browser.execute_script(HELD)
    page.press("k")
    page.click("clips")
    page.open_clip("clip.mp4")
    page.browser.execute_script("release()")
    page.until("name", "clip.mp4")
    assert Project.open(projects / "two").switches == Switches(locked=(1,))
    assert page["told"].text == ""


def test_switches_refused_because_another_window_opened_a_video_are_named(page, clip, tmp_path):
    write_video(tmp_path / "two.mp4", clip[0], fps=10)
    browser, first = page.browser, page.browser.current_window_handle
    browser.execute_script(HELD)
    page.press("h")
    page.press("k")
    browser.switch_to.new_window("tab")
    try:
        other = Page(browser, page.address, "clip.mp4")
        other["video"].send_keys(str(tmp_path / "two.mp4"))
        other.until("name", "two.mp4")
    finally:
        browser.close()
        browser.switch_to.window(first)
    browser.execute_script("release()")
    page.wait.until(lambda browser: browser.execute_script("return answers") == [409, 409])
    page.until("told", "object 1 of clip.mp4 was not locked, because another video was opened")
    page.until("name", "two.mp4")
    assert Project.open(tmp_path / "home" / "emavos" / "projects" / "two").switches == Switches()


def test_switches_of_an_object_that_an_undo_took_are_off_after_a_reload(page, tmp_path):
    folder = tmp_path / "home" / "emavos" / "projects" / "clip"
    page.press("3")
    page.paint(60, 20)
    page.click("keep")
    page.until("kind", "given by you")
    page.press("h")
    page.press("k")
    page.wait.until(lambda _: Project.open(folder).switches == Switches((3,), (3,)))
    page.control("z")
    page.until("told", "undone")
    page.press("2")
    page.paint(60, 20)
    page.press("1")
    page.browser.refresh()
    page.until("frame", "frame 4 of 7")  # where it was, with the object that was chosen
    page.press("h")
    page.wait.until(lambda _: Project.open(folder).switches == Switches(hidden=(1,)))


@pytest.mark.skipif(not AXE.exists(), reason="npm install --no-save axe-core brings what this needs")
def test_no_serious_fault_of_accessibility_is_found(page):
    def faults():
        page.browser.execute_script(AXE.read_text())
        found = page.browser.execute_async_script(
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(done)"
        )
        return [
            (one["id"], node["html"][:120])
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]

    def check(state):
        assert not (found := faults()), f"{state}: {json.dumps(found, indent=1)}"

    check("a frame")
    for name in ("clips", "downloads", "help"):
        page.click(name)
        check(name)
        page.browser.execute_script("document.querySelector('dialog[open]').close()")
    for theme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        check(theme)
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


# The colour that the system chose for what is chosen, and colours on the page.
FORCED = """
const probe = document.body.appendChild(document.createElement("i"));
probe.style.cssText = "background: Highlight; forced-color-adjust: none";
const of = (query) => getComputedStyle(document.querySelector(query));
document.querySelector(".pick[aria-pressed='true']").append(document.createElement("small"));
const answer = {
  highlight: getComputedStyle(probe).backgroundColor,
  pressed: of("#tool-brush").backgroundColor, other: of("#tool-lasso").backgroundColor,
  object: of(".pick[aria-pressed='true']").backgroundColor,
  share: of(".pick[aria-pressed='true'] small").color, name: of(".pick[aria-pressed='true']").color,
  current: of("#all-clips [aria-current='true']").outlineStyle, ink: of(":root").getPropertyValue("--text"),
};
probe.remove();
return answer;
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_forced_colours_show_what_is_chosen(page, theme):
    colours = {"name": "forced-colors", "value": "active"}
    media = {"features": [colours, {"name": "prefers-color-scheme", "value": theme}]}
    page.press("b")
    page.click("clips")
    page.wait.until(lambda browser: browser.find_elements("css selector", "#all-clips [aria-current='true']"))
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        seen = page.browser.execute_script(FORCED)
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert seen["pressed"] == seen["object"] == seen["highlight"] != seen["other"]
    assert seen["share"] == seen["name"]
    assert (seen["current"], seen["ink"]) == ("solid", "CanvasText")


# The clicks that were sent, oldest first.
SENT = """return performance.getEntriesByType("resource")
  .map((one) => decodeURIComponent(one.name)).filter((one) => one.includes("/api/clicks/"))"""


def test_one_button_says_what_is_not_part_of_an_object_where_there_is_no_right_button(page, clip):
    page.press("c")
    page.until("eraser", "Not part")
    page.click_at(*middle(clip[1][4]))
    page.until("guide", "match about")
    page.click("eraser")
    page.click_at(3, 3)
    page.wait.until(lambda browser: '"labels":[1,0]' in browser.execute_script(SENT)[-1])
    page.press("b")
    page.until("eraser", "Eraser")
    assert page["eraser"].get_attribute("aria-pressed") == "false"  # it would erase now


# Clicks are answered with an empty mask.
EMPTY = """
const quickly = window.fetch;
window.fetch = async (...asked) => {
  if (!asked[0].startsWith("/api/clicks/")) return quickly(...asked);
  return new Response(new Uint8Array(96 * 160), { headers: { "x-score": "0" } });
};
"""


def test_the_page_says_if_nothing_was_found_where_a_person_clicked(page):
    page.browser.execute_script(EMPTY)
    page.press("3", "c")
    page.click_at(3, 3)
    page.until("guide", "Object 3: nothing was found: click on the middle of the object.")
    page.press(ESCAPE)
    page.until("guide", "Click on the object")


def test_a_small_picture_shows_the_frame_below_the_mouse_on_the_timeline(page):
    place = ActionChains(page.browser, 0).move_to_element_with_offset
    at = round(page["timeline"].size["width"] * (2.5 / 8 - 0.5))
    place(page["timeline"], at, 0).perform()
    page.until("peek", "frame 2")
    page.until("frame", "frame 4 of 7")  # nothing else has changed
    ActionChains(page.browser, 0).move_to_element(page["stage"]).perform()
    page.wait.until(lambda _: not page["peek"].is_displayed())


def test_a_mask_painted_roughly_is_cleaned_up_as_a_proposal(page):
    page.press("3", "g")
    page.until("told", "paint the object roughly")
    page.paint(30, 20)
    page.click("clean")
    page.until("kind", "proposal, not kept yet")
    page.until("guide", "Object 3: match about")
    assert '"points":[],"labels":[],"box":[' in page.browser.execute_script(SENT)[-1]
    page.press("\ue00c")  # Escape
    page.until("kind", "edited, not kept yet")  # the strokes are still there
