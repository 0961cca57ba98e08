"""Videos and folders that servers on this machine offer, by http and s3."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emavos.cli import main
from emavos.demo import synthetic_clip
from emavos.io import fetch, list_images, open_frames, write_mask

FRAMES, MASKS = synthetic_clip(frames=3, size=(48, 64))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def send_head(self):
        if "forbidden" in self.path:
            return self.send_error(403)
        return super().send_head()


@contextmanager
def serving(folder: Path):
    """Serve a folder by http, as Python's http.server does; yields the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def write_frames(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for index, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(folder / f"{index:05d}.png")
    return folder


def check_frames(place: Path) -> None:
    for ours, theirs in zip(open_frames(place), FRAMES, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_file_and_a_folder_are_copied_by_http(tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    write_frames(tmp_path / "site" / "clip")
    pages = [Image.fromarray(frame) for frame in FRAMES]
    pages[0].save(tmp_path / "site" / "clip.tif", save_all=True, append_images=pages[1:])
    with serving(tmp_path / "site") as host:
        check_frames(fetch(f"{host}/clip.tif", tmp_path / "copies"))
        check_frames(fetch(f"{host}/clip/", tmp_path / "copies"))
        with pytest.raises(FileNotFoundError, match="there is nothing at this address"):
            fetch(f"{host}/absent.mp4?key=secret", tmp_path / "copies")
        with pytest.raises(OSError, match=r"forbidden\.mp4 cannot be copied: 403.*Forbidden") as caught:
            fetch(f"{host}/forbidden.mp4?key=secret", tmp_path / "copies")
        assert "secret" not in str(caught.value)
        monkeypatch.chdir(tmp_path)
        write_mask("first.png", MASKS[0])
        argv = ["segment", f"{host}/clip.tif", "--remote", "--mask", "first.png", "--out", "out"]
        assert main([*argv, "--size", "48", "--device", "cpu", "--quiet"]) == 0
    assert len(list_images("out")) == 3
    with pytest.raises(OSError, match=r"127\.0\.0\.1:\d+/clip\.mp4 cannot be copied"):
        fetch(f"{host}/clip.mp4", tmp_path / "copies")  # the server has gone
    assert {path.suffix for path in (tmp_path / "copies").iterdir()} == {".tif", ""}


@pytest.mark.slow
def test_a_file_and_a_folder_are_copied_from_s3(tmp_path, monkeypatch):
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    try:
        import fsspec

        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.mkdir("s3://bucket")
        for path in write_frames(tmp_path / "clip").iterdir():
            files.put_file(str(path), f"s3://bucket/scans/clip/{path.name}")
        check_frames(fetch("s3://bucket/scans/clip/", tmp_path / "copies"))
        one = fetch("s3://bucket/scans/clip/00001.png", tmp_path / "copies")
        assert one.read_bytes() == (tmp_path / "clip" / "00001.png").read_bytes()
        with pytest.raises(FileNotFoundError, match="there is nothing at this address"):
            fetch("s3://bucket/scans/absent.mp4", tmp_path / "copies")
    finally:
        server.stop()
