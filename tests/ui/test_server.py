from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from emavos.ui import Desk
from emavos.ui.server import make_app

HOME = "http://127.0.0.1:8321"


@pytest.fixture
def desk(project, predictor):
    desk = Desk(predictor, project.folder, keeps=True)
    yield desk
    desk.close()


@pytest.fixture
def client(desk):
    client = TestClient(make_app(desk, "secret", upload_limit=1000), base_url=HOME)
    assert client.get("/?token=secret").status_code == 200
    return client


def postscript():
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, format="EPS")
    return file.getvalue()


def png(mask):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1].evil.example:8321x"])
def test_a_foreign_host_is_refused(client, host):
    answer = client.get("/api/state", headers={"host": host})
    assert answer.status_code in (400, 403)
    assert "project" not in answer.text


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
def test_another_page_is_refused(client, origin):
    assert client.post("/api/track", headers={"origin": origin}).status_code == 403
    assert client.post("/api/stop", headers={"origin": HOME}).status_code == 200


def test_nothing_is_told_without_the_token(desk):
    stranger = TestClient(make_app(desk, "secret"), base_url=HOME)
    for path in ("/", "/api/state", "/?token=", "/?token=wrong", "/page.js"):
        assert stranger.get(path).status_code == 403


def test_the_page_loads_nothing_from_elsewhere(client):
    for path in ("/", "/page.css", "/page.js"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "://" not in answer.text
        assert "default-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/../project.json",
        "/%2e%2e/project.json",
        "/..%2fproject.json",
        "/api/frames/../../project.json",
        "/api/downloads/..%2fproject.json",
        "/api/downloads/project.json",
        "/api/frames/-1",
        "/api/frames/99",
        "/api/masks/8",
    ],
)
def test_no_path_leads_out(client, path):
    answer = client.get(path)
    assert answer.status_code in (400, 404)
    assert "format" not in answer.text
    assert "Traceback" not in answer.text


def test_what_is_too_large_is_refused(client):
    answer = client.put("/api/video?name=a.mp4", content=b"0" * 1001)
    assert (answer.status_code, "limit" in answer.json()["error"]) == (413, True)
    assert client.put("/api/masks/0", content=bytes(96 * 160 + 1)).status_code == 413
    assert "has 15360 bytes" in client.put("/api/masks/0", content=b"00").json()["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not an image"),
        (postscript(), "not an image"),  # Pillow is not asked to look into it
        (png(np.zeros((4, 4), np.uint8)), "the mask is 4x4 but the video is 96x160"),
        (png(np.full((96, 160), 300, np.uint16)), "ids from 1 to 255"),
        (png(np.full((96, 160, 3), 9, np.uint8)), "a mask holds ids"),
    ],
)
def test_a_mask_file_that_is_none_is_told_as_such(client, body, words):
    answer = client.post("/api/mask-file", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_a_playlist_is_no_video(predictor, tmp_path):
    desk = Desk(predictor, tmp_path, keeps=False)
    client = TestClient(make_app(desk, "secret"), base_url=HOME)
    client.get("/?token=secret")
    answer = client.put("/api/video?name=../../a.mp4", content=b"#EXTM3U\n/etc/passwd\n")
    assert answer.json()["error"].startswith("a.mp4 is no video")


def test_masks_are_given_tracked_and_downloaded(client, desk, clip):
    given = clip[1][0].astype(np.uint8)
    assert client.post("/api/mask-file", content=png(given)).content == given.tobytes()
    assert client.put("/api/masks/0", content=given.tobytes()).json() == {"ids": [1, 2]}
    assert client.post("/api/track").status_code == 200
    desk.job.join()
    state = client.get("/api/state").json()
    assert (state["project"]["reached"], state["job"]["error"], state["job"]["done"]) == (8, None, 8)
    assert len(client.get("/api/confidence?start=3").json()) == 5
    assert client.get("/api/masks/0").content == given.tobytes()
    for name in ("masks.zip", "masks.json", "overlay.mp4"):
        client.post(f"/api/downloads/{name}")
        desk.job.join()
        assert desk.job.error is None
        assert client.get(f"/api/downloads/{name}").content
    assert client.delete("/api/masks/0").status_code == 200
    assert client.delete("/api/masks/0").json()["error"] == "no mask was given for frame 0"
