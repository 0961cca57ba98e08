"""Videos and folders at addresses, which fsspec reads."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from emavos.cli import main
from emavos.demo import synthetic_clip
from emavos.io import fetch, open_frames, write_mask
from emavos.io.remote import _hash_of

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def frames():
    """Frames at memory://clip/, beside a folder and a hidden file."""
    files = fsspec.filesystem("memory")
    frames, masks = synthetic_clip(frames=3, size=(48, 64))
    for index, frame in enumerate(frames):
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "PNG")
        files.pipe(f"/clip/{index:05d}.png", file.getvalue())
    files.pipe("/clip/.hidden.png", b"x")
    files.pipe("/clip/deeper/00003.png", b"x")
    yield frames, masks
    files.rm("/clip", recursive=True)


def test_a_folder_is_copied_whole_and_once(frames, tmp_path):
    place = fetch("memory://clip/", tmp_path / "videos")
    assert place.parent == tmp_path / "videos"
    assert re.fullmatch("clip-[0-9a-f]{8}", place.name)
    assert sorted(path.name for path in place.iterdir()) == ["00000.png", "00001.png", "00002.png"]
    for ours, theirs in zip(open_frames(place), frames[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    (place / "00002.png").unlink()
    assert fetch("memory://clip", tmp_path / "videos") == place  # nothing is copied again
    assert len([*place.iterdir()]) == 2


def test_a_file_is_copied(frames, tmp_path):
    place = fetch("memory://clip/00001.png", tmp_path)
    assert place.read_bytes() == fsspec.filesystem("memory").cat("/clip/00001.png")


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("memory://clip/absent.mp4", FileNotFoundError, "there is nothing at this address"),
        ("file:///etc/passwd", ValueError, "is not an address of a file on another machine"),
        ("local:///etc/passwd", ValueError, "is not an address of a file on another machine"),
        (
            "simplecache::memory://clip/00001.png",
            ValueError,
            "is not an address of a file on another machine",
        ),
        ("zip://a::memory://clip/x.zip", ValueError, "is not an address of a file on another machine"),
        ("video.mp4", ValueError, "is not an address of a file on another machine"),
        ("memory://", ValueError, "does not end with the name"),
        ("memory://clip/..", ValueError, "does not end with the name"),
        ("nosuch://me:secret@host/a.mp4", ValueError, "nosuch://host/a.mp4"),
        ("nosuch://me:sec@secret@host/a.mp4?key=secret", ValueError, "nosuch://host/a.mp4: "),
        ("memory://clip/absent.mp4?key=secret", FileNotFoundError, "absent.mp4: there is nothing"),
        ("local:///etc/passwd?key=secret", ValueError, "is not an address of a file on another machine"),
        ("memory://clip/..?key=secret", ValueError, "does not end with the name"),
    ],
)
def test_what_cannot_be_copied_is_refused_and_nothing_is_left(frames, tmp_path, address, error, words):
    with pytest.raises(error, match=words) as caught:
        fetch(address, tmp_path / "videos")
    assert "secret" not in str(caught.value)
    assert not [*tmp_path.rglob("*.*")]


def test_addresses_with_the_same_last_name_have_copies_of_their_own(tmp_path):
    files = fsspec.filesystem("memory")
    addresses = [f"memory://{part}" for part in ("x/v.mp4", "y/v.mp4", "y/v.mp4?id=1", "y/v.mp4?id=2")]
    try:
        for address in addresses:
            files.pipe(address, address.encode())
        places = [fetch(address, tmp_path) for address in addresses]
        assert [place.read_bytes().decode() for place in places] == addresses
        assert {place.suffix for place in places} == {".mp4"}
        assert [fetch(address, tmp_path) for address in addresses] == places
    finally:
        for part in ("/x", "/y"):
            files.rm(part, recursive=True)


def test_the_name_of_a_copy_does_not_depend_on_a_password():
    assert len({_hash_of(f"s3://{user}host/v.mp4") for user in ("me@", "me:a@", "me:b@c@")}) == 1
    assert _hash_of("s3://me:a@host/v.mp4") != _hash_of("s3://you:a@host/v.mp4")


def test_an_error_of_a_protocol_is_shown_without_its_secrets(frames, tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    def refused(self, path, **_):
        raise TimeoutError(f"403, url='https://me:secret@host{path}?key=secret' and memory:/{path}")

    monkeypatch.setattr(MemoryFileSystem, "exists", refused)
    with pytest.raises(OSError, match="cannot be copied: 403, url='https://host/clip") as caught:
        fetch("memory://clip?key=secret", tmp_path)
    assert "secret" not in str(caught.value)


def test_a_copy_that_breaks_off_leaves_nothing(frames, tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    def broken(self, path, place, **_):
        open(place, "wb").close()
        raise TimeoutError("the line is dead")

    monkeypatch.setattr(MemoryFileSystem, "get_file", broken)
    with pytest.raises(OSError, match="memory://clip cannot be copied: the line is dead"):
        fetch("memory://clip", tmp_path)
    assert not [*tmp_path.iterdir()]


def test_an_address_is_opened_only_if_asked_for(frames, tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="is not on this machine; copy it first"):
        open_frames("memory://clip")
    monkeypatch.chdir(tmp_path)
    write_mask("first.png", frames[1][0])
    argv = ["segment", "memory://clip", "--mask", "first.png", "--out", "out", "--size", "48", "--quiet"]
    assert main(argv) == 1
    assert "--remote" in capsys.readouterr().err
    assert main([*argv, "--remote"]) == 0
    assert len([*(tmp_path / "out").iterdir()]) == 3
    argv[1] = "clip"
    assert main([*argv, "--remote"]) == 1
    assert "--remote is for one address" in capsys.readouterr().err
