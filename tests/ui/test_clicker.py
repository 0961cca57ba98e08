"""Clicks at the page become masks, and each frame is encoded once."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from emavos import Predictor
from emavos.io import open_frames
from emavos.ui import Desk
from emavos.ui.ahead import Ahead
from emavos.ui.clicker import Clicker


@pytest.fixture(scope="module")
def clicker(predictor):
    return Clicker(predictor)


@pytest.fixture(scope="module")
def middle(clip):
    """(x, y) on object 1 of the first frame."""
    ys, xs = (clip[1][0] == 1).nonzero()
    at = np.argmin((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2)
    return int(xs[at]), int(ys[at])


def test_clicks_refine_the_answers_before_them_and_the_frame_is_encoded_once(predictor, clip, middle):
    frames = []

    def frame():
        frames.append(clip[0][0])
        return clip[0][0]

    clicker, seen = Clicker(predictor), predictor.look(clip[0][0])
    clicker.look("a", frame)
    first = clicker.click("a", frame, [middle], [1])
    second = clicker.click("a", frame, [middle, (1, 1)], [1, 0])
    np.testing.assert_array_equal(first.mask, (expected := seen.click([middle])).mask)
    np.testing.assert_array_equal(second.mask, seen.click([middle, (1, 1)], [1, 0], mask=expected).mask)
    assert clicker.click("a", frame, [middle], [1]) is first  # a click that was taken back costs nothing
    assert len(frames) == 1
    assert first.mask[middle[1], middle[0]]


def test_a_mask_that_was_there_changes_near_the_clicks_alone(clicker, clip, middle):
    before = np.zeros(clip[1][0].shape, bool)
    before[-12:, -12:] = True  # far from the click
    answer = clicker.click("b", lambda: clip[0][0], [middle], [1], before=before)
    assert answer.mask[-6:, -6:].all()
    assert answer.mask[middle[1], middle[0]]


def test_a_box_is_enough(clicker, clip):
    ys, xs = (clip[1][0] == 1).nonzero()
    box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
    assert clicker.click("c", lambda: clip[0][0], [], [], box).mask.any()


def test_without_a_click_head_the_page_says_why(predictor, tmp_path, video):
    desk = Desk(Predictor(predictor.model, size=96), tmp_path / "work", keeps=True)
    desk.open_video(video, "clip")
    desk.job.join()
    assert "no click head" in desk.state()["clicks"]["problem"]
    with pytest.raises(ValueError, match="no click head"):
        desk.click(0, [(3, 3)], [1])
    desk.close()


def test_another_tool_is_asked_for_the_masks(predictor, clip):
    asked = []

    def prompter(frame, prompt):
        asked.append((frame.shape, prompt.points.tolist()))
        return np.ones(frame.shape[:2], bool)

    clicker = Clicker(Predictor(predictor.model, size=96, prompter=prompter))
    assert clicker.problem is None
    assert clicker.click("a", lambda: clip[0][0], [(3, 4)], [1]).mask.all()
    assert asked == [((96, 160, 3), [[3.5, 4.5]])]


def test_a_frame_that_a_person_looks_at_is_encoded_once_for_clicks_and_tracking(
    project, predictor, clip, middle, monkeypatch
):
    encoded = []
    encode = predictor.network.encode_key
    monkeypatch.setattr(predictor.network, "encode_key", lambda x: encoded.append(x) or encode(x))
    desk = Desk(predictor, project.folder, keeps=True)
    desk.warm_up()
    encoded.clear()
    desk.look(0)
    desk.look(0)
    assert len(encoded) == 2  # the frame, and the next
    desk.click(0, [middle], [1])
    desk.give(0, clip[1][0])
    desk.track()
    desk.queue.join()
    assert len(encoded) == 8
    expected = predictor.propagate(open_frames(project.folder / "frames"), clip[1][0])
    for index, result in enumerate(expected):
        np.testing.assert_array_equal(desk.project.mask(index), result.mask)
    desk.close()


@pytest.mark.parametrize(
    ("given", "reached", "at", "ahead"),
    [
        ([], 0, 3, [3, 4]),  # the first mask will be given here
        ([2], 0, 5, [0, 1]),
        ([0], 5, 3, [3, 4]),  # a mask mended here
        ([0], 5, 6, [5, 6]),  # tracking goes on from where it ended
        ([2], 5, 1, [1, 2]),
        ([], 0, 7, [7]),
    ],
)
def test_the_frames_are_encoded_ahead_that_tracking_will_begin_with(project, clip, given, reached, at, ahead):
    for index in given:
        project.give(index, clip[1][index])
    for index in range(given[0] if given else 0, reached):
        project.store(index, clip[1][index], np.zeros((96, 160), np.float32), {})
    assert [*project.next_to_track(at)] == ahead


def test_a_frame_that_could_not_be_encoded_is_tried_again(predictor, clip):
    ahead = Ahead(predictor)

    def broken():
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="is gone"):
        ahead.encoded("a", broken)
    assert ahead.peek("a") is None
    assert ahead.encoded("a", lambda: clip[0][0]) is ahead.peek("a")
    for name in "bcde":
        ahead.encoded(name, lambda: clip[0][0])
    assert ahead.peek("a") is None  # only the last few are kept


def test_a_frame_that_is_being_encoded_is_waited_for(predictor, clip):
    ahead, begun, go_on = Ahead(predictor), threading.Event(), threading.Event()

    def slow():
        begun.set()
        go_on.wait(60)
        return clip[0][0]

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ahead.encoded, "a", slow)
        assert begun.wait(60)
        others = [pool.submit(ahead.encoded, "a", slow), pool.submit(ahead.peek, "a")]
        go_on.set()
        assert all(other.result() is first.result() for other in others)


def test_a_clip_with_the_folder_of_a_deleted_one_is_clicked_on_anew(tmp_path, predictor, video, clip):
    desk = Desk(predictor, tmp_path / "clips", keeps=False)
    for name in ("one", "other"):
        desk.open_video(video, name)
        desk.job.join()
        desk.look(0)
    desk.remove_clip("one")
    for path in video.iterdir():
        Image.new("RGB", (160, 96)).save(path)
    desk.open_video(video, "one")
    desk.job.join()
    black = predictor.look(desk.project.frame(0)).click([(80, 48)])
    np.testing.assert_array_equal(desk.click(0, [(80, 48)], [1]).prob, black.prob)
    desk.close()


@pytest.fixture
def client(project, predictor):
    pytest.importorskip("httpx")
    testclient = pytest.importorskip("starlette.testclient")
    from emavos.ui.server.app import make_app

    desk = Desk(predictor, project.folder, keeps=True)
    client = testclient.TestClient(make_app(desk, "secret"), base_url="http://127.0.0.1:8321")
    client.headers |= {"x-emavos-token": "secret", "x-project": desk.key}
    yield client
    desk.close()


def test_the_page_is_given_masks_and_nothing_is_stored(client, middle):
    prompt = quote(json.dumps({"points": [middle], "labels": [1], "box": None}))
    assert client.post("/api/looks/0").status_code == 200
    assert client.post("/api/looks/0?long=1").status_code == 200
    assert client.post("/api/looks/99?long=1").status_code == 400
    answer = client.post(f"/api/clicks/0?prompt={prompt}")
    mask = np.frombuffer(answer.content, np.uint8).reshape(96, 160)
    assert mask[middle[1], middle[0]] == 1
    assert 0 < float(answer.headers["x-score"]) <= 1
    assert client.get("/api/state").json()["project"]["given"] == {}


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "a prompt is JSON"),
        ("[" * 9999, "a prompt is JSON"),
        ('{"points": [[1]], "labels": [1]}', "a prompt is JSON"),
        ('{"points": [[1e999, 1]], "labels": [1]}', "not in the frame"),
        ('{"points": [[1, 1]], "labels": [7]}', "labels are 1"),
        ('{"points": [[1, 1]], "labels": []}', "1 points and 0 labels"),
        ('{"points": [], "labels": []}', "nothing says where"),
        ('{"points": [], "labels": [], "box": [5, 5, 1, 1]}', "box is"),
        (json.dumps({"points": [[1, 1]] * 201, "labels": [1] * 201}), "201 clicks"),
    ],
)
def test_a_prompt_that_fits_no_frame_is_refused_with_a_reason(client, prompt, words):
    answer = client.post(f"/api/clicks/0?prompt={quote(prompt)}")
    assert (answer.status_code, words in answer.json()["error"]) == (400, True), answer.text


def test_drafts_undo_and_redo_are_of_the_page_that_saw_the_state(client, clip):
    mask = clip[1][0].astype(np.uint8).tobytes()
    tag = {"if-match": client.get("/api/masks/0").headers["etag"]}
    assert client.put("/api/drafts/0", content=mask, headers=tag).status_code == 200
    assert client.get("/api/masks/0").headers["x-draft"] == "1"
    assert client.get("/api/drafts/0").content == mask
    assert client.get("/api/state").json()["project"]["drafts"] == [0]
    assert client.put("/api/masks/0", content=mask, headers=tag).status_code == 200
    assert client.get("/api/masks/0").headers["x-draft"] == "0"
    assert client.put("/api/drafts/0", content=mask, headers=tag).status_code == 409
    state = client.get("/api/state").json()["project"]
    assert (state["undo"], state["redo"]) == (True, False)
    edits = {"if-match": str(state["edits"])}
    assert client.post("/api/undo", headers=edits).json() == {"what": "mask given", "frame": 0}
    stale = client.post("/api/redo", headers=edits)
    assert (stale.status_code, stale.json()["outdated"]) == (409, True)
    assert client.post("/api/undo").status_code == 428
    assert client.get("/api/drafts/0").status_code == 204  # kept or dropped meanwhile
    now = {"if-match": str(client.get("/api/state").json()["project"]["edits"])}
    assert client.post("/api/redo", headers=now).status_code == 200
    assert client.get("/api/masks/0").content == mask
