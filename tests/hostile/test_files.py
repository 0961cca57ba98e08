"""Files from strangers, as the table of docs/input.md lists them: each is refused by name."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emavos.io import open_frames, read_frame, read_mask

PAGE = Path(__file__).parents[2] / "docs" / "input.md"
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def png(width, height):
    """The header of a PNG that declares so many pixels and holds next to none."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + bytes(16))
    parts = (struct.pack(">I", len(x) - 4) + x + struct.pack(">I", zlib.crc32(x)) for x in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def truncated(path):
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:200])


def postscript(path):
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")


def huge(path):
    path.write_bytes(png(30000, 30000))


def circle(path):
    path.symlink_to(path.name)


IMAGES = {  # the case as the page tells it: what makes it, the exception, and words of its message
    "an image cut in the middle": (truncated, ValueError, "truncated"),
    "an empty file": (Path.touch, ValueError, "cannot identify"),
    "text under the name of an image": (lambda p: p.write_text("text"), ValueError, "cannot identify"),
    "PostScript under the name of an image": (postscript, ValueError, "cannot identify"),
    "an image that declares 30000x30000": (
        lambda p: p.write_bytes(png(30000, 30000)),
        ValueError,
        "exceeds limit",
    ),
    "a pipe or a device": (os.mkfifo, ValueError, "a pipe or a device"),
    "a folder under the name of an image": (Path.mkdir, ValueError, "is a folder"),
    "a link in a circle": (circle, FileNotFoundError, "does not exist"),
}
VIDEOS = {
    "an empty video": (Path.touch, "is no video"),
    "text under the name of a video": (lambda p: p.write_text("text"), "is no video"),
    "a list of other files under the name of a video": (
        lambda p: p.write_text(f"ffconcat version 1.0\nfile {p.parent / 'other.mp4'}\n"),
        "is no video",
    ),
    "a video that declares 60000x60000": (
        lambda p: p.write_bytes(b"YUV4MPEG2 W60000 H60000 F25:1\nFRAME\n" + bytes(99)),
        "bad.mp4",
    ),
    "a pipe or a device as a video": (os.mkfifo, "a pipe or a device"),
}


@pytest.mark.parametrize("case", IMAGES)
@pytest.mark.parametrize("read", [read_frame, read_mask])
def test_an_image_that_cannot_be_is_refused_by_name(tmp_path, read, case):
    make, kind, words = IMAGES[case]
    path = tmp_path / "bad.png"
    make(path)
    with pytest.raises(kind, match=rf"bad\.png.*{words}"):
        read(path)


@pytest.mark.parametrize("case", VIDEOS)
def test_a_video_that_cannot_be_is_refused_by_name(tmp_path, case):
    pytest.importorskip("av")
    make, words = VIDEOS[case]
    path = tmp_path / "bad.mp4"
    make(path)
    with pytest.raises(ValueError, match=words):
        list(open_frames(path))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_what_declares_much_takes_little(tmp_path):
    (tmp_path / "bad.png").write_bytes(png(13000, 13000))
    code = """
import resource, sys
from emavos.io import read_frame
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (64 << 20),) * 2)
try:
    read_frame(sys.argv[1])
except ValueError as error:
    print("beyond" in str(error))
"""
    path = str(tmp_path / "bad.png")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, path], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_the_name_does_not_decide_what_an_image_is(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", tmp_path / "a.jpg")
    assert (read_frame(tmp_path / "a.jpg") == PIXELS).all()


@pytest.mark.parametrize("case", [*IMAGES, *VIDEOS])
def test_the_page_tells_of_each_case(case):
    assert f"| {case} |" in PAGE.read_text()
