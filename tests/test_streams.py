"""Streams of the network, played by a server on this machine."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("av")

from emavos.cli import main
from emavos.demo import synthetic_clip
from emavos.io import list_images, open_frames, read_mask, write_mask
from rtsp import playing

GRAYS = [np.full((48, 64, 3), 20 + 40 * step, np.uint8) for step in range(5)]


def test_a_stream_plays_the_frames_of_its_server():
    with playing(GRAYS) as address:
        frames = open_frames(address)
        assert frames.live
        shown = [frame for frame, _ in zip(frames, range(7), strict=False)]
        assert [frame.shape for frame in shown] == [(48, 64, 3)] * 7
        assert [round((int(frame.mean()) - 20) / 40) for frame in shown] == [0, 1, 2, 3, 4, 0, 1]
        chosen = open_frames(address, start=1, stop=6, step=2)  # a second loop starts at the present
        assert [round((int(frame.mean()) - 20) / 40) for frame in chosen] == [1, 3, 0]


def test_a_stream_ends_if_its_server_hangs_up():
    with playing(GRAYS, most=3) as address:
        assert [round((int(frame.mean()) - 20) / 40) for frame in open_frames(address)] == [0, 1, 2]


@pytest.mark.slow
def test_a_stream_is_followed_to_its_end_or_to_the_frame_that_is_told(tmp_path, monkeypatch):
    clip, masks = synthetic_clip(frames=6, size=(48, 64))
    monkeypatch.chdir(tmp_path)
    write_mask("first.png", masks[0])
    with playing(clip, most=6) as address:
        argv = ["segment", address, "--mask", "first.png", "--size", "48", "--device", "cpu", "--quiet"]
        assert main([*argv, "--keep-partial", "--out", "out"]) == 0
    assert 5 <= len(list_images("out")) <= 6
    with playing(clip) as address:
        argv[1] = address
        assert main([*argv, "--stop", "3", "--out", "three"]) == 0
    for one, other in zip(list_images("three"), list_images("out"), strict=False):
        np.testing.assert_array_equal(read_mask(one), read_mask(other))
    assert [path.name for path in list_images("three")] == ["00000.png", "00001.png", "00002.png"]
    np.testing.assert_array_equal(read_mask("three/00000.png"), masks[0])


def test_a_stream_with_a_password_needs_it_and_no_error_shows_it():
    with playing(GRAYS, password="secret") as address:
        with pytest.raises(ValueError, match=r"stream rtsp://127\.0\.0\.1.* cannot be opened") as caught:
            next(iter(open_frames(address)))
        assert "secret" not in str(caught.value)
        assert next(iter(open_frames(address.replace("//", "//me:secret@")))).shape == (48, 64, 3)
