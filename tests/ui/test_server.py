from __future__ import annotations

import asyncio
import io
import socket
import threading
from contextlib import ExitStack, contextmanager, suppress
from itertools import product
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from emavos.ui import Desk
from emavos.ui.job import Job
from emavos.ui.server.answers import attachment
from emavos.ui.server.app import make_app
from emavos.ui.server.requests import plain_name, shown_name

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
    client.headers["x-project"] = desk.key
    return client


def seen(client, index):
    """What a page that shows the mask of a frame sends with a change of it."""
    return {"if-match": client.get(f"/api/masks/{index}").headers["etag"]}


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


@pytest.mark.parametrize("path", ["/api/frames/{}", "/api/masks/{}", "/api/confidence?start={}", "/{}"])
def test_numbers_of_thousands_of_digits_are_refused(client, path):
    assert client.get(path.format("0" * 6000)).status_code in (400, 404)
    assert client.get(path.format("9" * 6000)).status_code in (400, 404)
    assert client.get("/api/state").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/api/masks/0"), ("PUT", "/api/video"), ("POST", "/api/mask-file")]
)
def test_a_tab_that_is_closed_during_an_upload_is_no_error(desk, caplog, method, path):
    names = {"host": "127.0.0.1", "x-emavos-token": "secret", "x-project": desk.key, "if-match": "x"}
    headers = [(name.encode(), value.encode()) for name, value in names.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        assert message.get("status", 400) == 400

    asyncio.run(make_app(desk, "secret")(scope, receive, send))
    assert not caplog.records


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
def test_another_page_is_refused(client, origin):
    assert client.post("/api/track", headers={"origin": origin}).status_code == 403
    assert client.post("/api/stop", headers={"origin": HOME}).status_code == 200


def test_nothing_is_told_without_the_token(desk):
    stranger = TestClient(make_app(desk, "secret"), base_url=HOME)
    for path in ("/", "/api/state", "/?token=", "/?token=wrong", "/page.js"):
        assert stranger.get(path).status_code == 403


def test_names_of_files_that_are_no_utf8_are_told(client, desk):
    desk.notes = ["caf\udce9.txt is left out"]
    desk.folder = Path("caf\udce9")
    state = client.get("/api/state")
    assert (state.status_code, state.json()["notes"]) == (200, desk.notes)
    desk.the_project().frame_bytes = lambda index: (_ for _ in ()).throw(OSError("caf\udce9 is missing"))
    answer = client.get("/api/frames/0")
    assert (answer.status_code, answer.json()["error"]) == (400, "caf\udce9 is missing")


BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64)"}


def test_what_a_browser_hands_to_other_servers_of_this_host_opens_nothing(desk):
    browser = TestClient(make_app(desk, "secret"), base_url=HOME, headers=BROWSER, follow_redirects=False)
    answer = browser.get("/?token=secret")
    assert (answer.status_code, answer.headers["location"]) == (303, "/#secret")
    assert "secret" not in answer.headers["set-cookie"]
    assert "HttpOnly; SameSite=Lax" in answer.headers["set-cookie"]  # also from a link in a web terminal
    for path in ("/", "/page.js", "/page.css"):
        assert browser.get(path).status_code == 200
    for path in ("/api/state", "/api/frames/0", "/api/masks/0", "/api/downloads/masks.zip"):
        assert browser.get(path).status_code == 403
    assert browser.post("/api/track").status_code == 403
    assert browser.get("/api/state", headers={"x-emavos-token": "secret"}).status_code == 200
    assert browser.get("/api/state", headers={"x-emavos-token": "other"}).status_code == 403


def test_a_cookie_of_one_port_opens_no_other(desk):
    one = TestClient(make_app(desk, "secret"), base_url=HOME)
    one.get("/?token=secret")
    ((name, value),) = one.cookies.items()
    assert name == "emavos-8321"
    assert "secret" not in value
    other = TestClient(make_app(desk, "secret"), base_url="http://127.0.0.1:9999")
    assert other.get("/api/state", headers={"cookie": f"emavos-9999={value}"}).status_code == 403
    assert one.get("/api/state").status_code == 200


@pytest.mark.parametrize(
    "foreign",
    ['prefs={"theme":"dark"}', "user=Ada Lovelace", "flag", "=x", "a[b]=1", "me@host=1", "a=b=c", "é=1"],
)
def test_cookies_of_other_programs_are_passed_over(client, foreign):
    ours = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    client.cookies.clear()
    for cookie in (f"{foreign}; {ours}", f"{ours}; {foreign}", f"emavos-8321=old; {foreign};{ours}"):
        assert client.get("/api/state", headers={"cookie": cookie.encode("latin-1")}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "127.1.2.3:9", "[::1]:8321", "localhost"])
def test_all_addresses_of_this_machine_alone_are_its_own(desk, host):
    client = TestClient(make_app(desk, "secret", host="127.0.0.2"), base_url=HOME)
    assert client.get("/", headers={"host": host, "x-emavos-token": "secret"}).status_code == 200


def test_whoever_may_not_come_in_is_not_kept_on_the_line(desk):
    stranger = TestClient(make_app(desk, "secret"), base_url=HOME)
    for headers in ({}, {"host": "evil.example"}, {"origin": "http://evil.example"}):
        assert stranger.get("/api/state", headers=headers).headers["connection"] == "close"


def test_frames_are_kept_under_an_address_that_no_other_project_has(client, desk):
    kept = client.get(f"/api/frames/0?project={desk.key}")
    assert kept.headers["cache-control"] == "private, max-age=86400"
    del client.headers["x-project"]
    assert client.get("/api/frames/0").headers["cache-control"] == "no-store"
    before = desk.key
    desk.close()
    desk._take(desk.project.folder)  # as a later `emavos ui` of the same folder would
    assert desk.key != before
    answer = client.get(f"/api/frames/0?project={before}")
    assert answer.status_code == 409
    assert "another video was opened" in answer.json()["error"]


def test_a_preview_is_the_newest_mask_with_its_frame_and_of_the_project_shown(
    client, desk, clip, monkeypatch
):
    assert client.get("/api/preview").status_code == 204
    job = Job("track", iter(()), None, desk.project.folder)
    monkeypatch.setattr(desk, "shown_job", lambda: job)
    job.show(2, lambda: clip[1][2])
    job.show(1, lambda: clip[1][1])
    answer = client.get("/api/preview")
    assert answer.headers["x-frame"] == "1"
    assert answer.content == clip[1][1].astype(np.uint8).tobytes()
    job.show(0)  # written
    assert client.get("/api/preview").status_code == 204
    client.headers["x-project"] = "of another"
    assert client.get("/api/preview").status_code == 409


def test_what_a_tab_shows_of_another_video_changes_nothing(client, desk):
    mask, headers = bytes([1]) * 96 * 160, seen(client, 0)
    client.headers["x-project"] = "of another"
    changes = [
        ("PUT", "/api/masks/0"),
        ("DELETE", "/api/masks/0"),
        ("DELETE", "/api/objects/1"),
        ("PUT", "/api/video?name=a.mp4"),
        ("POST", "/api/track"),
        ("POST", "/api/downloads/masks.zip"),
    ]
    for method, path in changes:
        answer = client.request(
            method, path, content=mask[:1000] if "video" in path else mask, headers=headers
        )
        assert (answer.status_code, path) == (409, path)
    assert not desk.project.given
    assert desk.job is None


def test_a_stroke_on_a_mask_that_another_tab_changed_is_refused(client, desk, clip):
    old, first = seen(client, 0), clip[1][0].astype(np.uint8)
    assert (
        client.put("/api/masks/0", content=(first * (first == 2)).tobytes(), headers=old).status_code == 200
    )
    answer = client.put("/api/masks/0", content=(first * (first == 1)).tobytes(), headers=old)
    assert (answer.status_code, desk.project.given) == (409, {0: (2,)})
    assert "changed meanwhile" in answer.json()["error"]
    assert client.delete("/api/masks/0", headers=old).status_code == 409
    assert client.delete("/api/objects/2", headers={"if-match": "0"}).status_code == 409
    answer = client.put("/api/masks/0", content=first.tobytes(), headers=seen(client, 0))
    assert answer.json() == {"ids": [1, 2]}
    assert answer.headers["etag"] == seen(client, 0)["if-match"]
    edits = client.get("/api/state").json()["project"]["edits"]
    assert client.delete("/api/objects/2", headers={"if-match": str(edits)}).status_code == 200


def test_a_stroke_is_tagged_as_it_was_made_whatever_another_tab_does_meanwhile(
    client, desk, clip, monkeypatch
):
    first, mended = clip[1][0].astype(np.uint8), desk.mended

    def another_tab(project, index):  # comes in just after the edit
        monkeypatch.setattr(desk, "mended", mended)
        desk.give(index, clip[1][0])

    monkeypatch.setattr(desk, "mended", another_tab)
    answer = client.put("/api/masks/0", content=(first * (first == 1)).tobytes(), headers=seen(client, 0))
    assert answer.json() == {"ids": [1]}
    assert desk.the_project().given == {0: (1, 2)}
    tag = {"if-match": answer.headers["etag"], "x-project": desk.key}
    assert client.put("/api/masks/0", content=bytes(first.size), headers=tag).status_code == 409
    assert desk.the_project().given == {0: (1, 2)}
    np.testing.assert_array_equal(desk.the_project().mask(0), clip[1][0])


def test_a_change_that_does_not_say_what_it_was_made_on_is_refused(client, desk):
    mask = bytes([1]) * 96 * 160
    for method, path in (("PUT", "/api/masks/0"), ("DELETE", "/api/masks/0"), ("DELETE", "/api/objects/1")):
        assert client.request(method, path, content=mask).status_code == 428
    del client.headers["x-project"]
    assert client.put("/api/masks/0", content=mask, headers={"if-match": "x"}).status_code == 428
    assert client.put("/api/video?name=a.mp4", content=b"x").status_code == 428
    assert not desk.project.given


@contextmanager
def listening(desk, **patience):
    """A page that other programs reach; yields a function that connects and sends."""
    uvicorn = pytest.importorskip("uvicorn")
    from emavos.ui.patience import impatient

    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        app = make_app(desk, "secret")
        protocol = impatient(**patience)
        config = uvicorn.Config(app, http=protocol, lifespan="off", ws="none", log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        stack.callback(thread.join)
        stack.callback(setattr, server, "should_exit", True)

        def connect(sent):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            line.sendall(sent)
            return line

        yield connect


def read_to_the_end(line):
    """All that comes on a connection until the server ends it; nothing after a reset."""
    came = b""
    with suppress(ConnectionResetError):
        while piece := line.recv(1 << 16):
            came += piece
    return came


def test_connections_that_ask_for_nothing_do_not_stop_the_page(desk):
    def ended(line):
        return read_to_the_end(line) == b""

    with listening(desk, seconds=4, most=3) as connect:
        idle = [connect(b"GET / HTTP/1.1\r\nHost:") for _ in range(8)]
        assert ended(idle[0])  # more than three wait: the first was ended
        head = b"GET /api/state HTTP/1.1\r\nHost: 127.0.0.1\r\nx-emavos-token: secret\r\n\r\n"
        ours = connect(head)
        for _ in range(2):  # and again on the same connection
            assert ours.recv(12) == b"HTTP/1.1 200"
            while b'"upload_limit"' not in ours.recv(1 << 16):
                pass
            ours.sendall(head)
        assert all(map(ended, idle))  # those that are left after four seconds


@pytest.mark.parametrize("key", ["x-project: other\r\n", ""], ids=["refused", "unsaid"])
def test_a_body_that_is_no_http_is_refused_once_and_leaves_no_traceback(desk, caplog, key):
    head = f"PUT /api/masks/0 HTTP/1.1\r\nHost: 127.0.0.1\r\nx-emavos-token: secret\r\n{key}"
    with listening(desk) as connect:
        bodies = ("Transfer-Encoding: chunked", b"no chunk\r\n"), ("Content-Length: 5", b"1")
        for late, (coding, body) in product((False, True), bodies):
            begin = f"{head}{coding}\r\n\r\n".encode()
            line = connect(begin if late else begin + body)
            answers = line.recv(1 << 16) if late else b""  # the body comes after its answer
            with suppress(OSError):
                if late:
                    line.sendall(body)
                line.shutdown(socket.SHUT_WR)
            answers += read_to_the_end(line)
            assert answers.count(b"HTTP/1.1 ") == 1
            assert answers[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 409", b"HTTP/1.1 428")
        asked = connect(b"GET /favicon.svg HTTP/1.1\r\nHost: 127.0.0.1\r\nx-emavos-token: secret\r\n\r\n")
        assert asked.recv(12) == b"HTTP/1.1 200"
    assert not [record for record in caplog.records if record.exc_info]


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
    headers = seen(client, 0)
    assert client.put("/api/masks/0", content=bytes(96 * 160 + 1), headers=headers).status_code == 413
    assert "has 15360 bytes" in client.put("/api/masks/0", content=b"00", headers=headers).json()["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not an image"),
        (postscript(), "not an image"),  # Pillow is not asked to look into it
        (png(np.zeros((4, 4), np.uint8)), "the mask is 4x4 but the video is 96x160"),
        (png(np.full((96, 160), 300, np.uint16)), "ids from 1 to 255"),
        (png(np.full((96, 160, 3), (9, 8, 7), np.uint8)), "a mask holds ids"),
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
    playlist, key = b"#EXTM3U\n/etc/passwd\n", {"x-project": ""}
    answer = client.put("/api/video?name=../../a.mp4", content=playlist, headers=key)
    assert answer.json()["error"].startswith("a.mp4 is not a video")


def test_masks_are_given_tracked_and_downloaded(client, desk, clip):
    given = clip[1][0].astype(np.uint8)
    assert client.post("/api/mask-file", content=png(given)).content == given.tobytes()
    answer = client.put("/api/masks/0", content=given.tobytes(), headers=seen(client, 0))
    assert answer.json() == {"ids": [1, 2]}
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
        assert (desk.job.done, desk.job.total) == (8, 8)  # so the page shows how much is left
        assert client.get(f"/api/downloads/{name}").content
    assert client.delete("/api/masks/0", headers=seen(client, 0)).status_code == 200
    answer = client.delete("/api/masks/0", headers=seen(client, 0))
    assert answer.json()["error"] == "no mask was given for frame 0"


@pytest.mark.parametrize(
    ("sent", "shown", "plain"),
    [
        ("a.mp4", "a.mp4", "a.mp4"),
        ("C:\\\\Käfer & Co.mp4", "Käfer & Co.mp4", "K_fer_Co.mp4"),
        ("../../a b.mp4", "a b.mp4", "a_b.mp4"),
        ("x/\ud800\n.mp4", "__.mp4", "_.mp4"),
        ("", "video", "video"),
        ("folder/", "video", "video"),
    ],
)
def test_a_sent_video_is_shown_by_its_name_and_stored_under_a_plain_one(sent, shown, plain):
    assert (shown_name(sent), plain_name(sent)) == (shown, plain)


@pytest.mark.parametrize(
    ("name", "plain", "saved"),
    [
        ("clip-masks.zip", "clip-masks.zip", "clip-masks.zip"),
        ("Käfer & Co.mp4", "K_fer_Co.mp4", "Käfer & Co.mp4"),
        ("鱼 1.zip", "_1.zip", "鱼 1.zip"),
        ('a/b\\c"d\r\nx: y.zip', "a_b_c_d_x_y.zip", "a_b_c_d_x_ y.zip"),
        ("50%'*;.zip", "50_.zip", "50%'_;.zip"),
    ],
)
def test_a_download_keeps_the_name_of_its_video_in_any_script(name, plain, saved):
    first, second, third = attachment(name).split("; ")
    assert (first, second) == ("attachment", f'filename="{plain}"')
    assert third.isascii()
    assert unquote(third.removeprefix("filename*=UTF-8''")) == saved
