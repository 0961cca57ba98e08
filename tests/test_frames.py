from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from emavos.frames.preprocess import normalize, resize, to_frame, to_mask, working_size
from emavos.io import read_frame

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "frame",
    [
        PIXELS,
        np.asfortranarray(PIXELS),
        PIXELS[:, ::-1][:, ::-1],
        Image.fromarray(PIXELS),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255,
        torch.from_numpy(PIXELS).permute(2, 0, 1).double() / 255,
    ],
)
def test_frames_of_many_kinds_are_the_same_frame(frame):
    expected = torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(to_frame(frame), expected)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (PIXELS.astype(np.float32), r"\(H, W, 3\) of uint8, not \(5, 7, 3\) of float32"),
        (PIXELS[..., 0], r"not \(5, 7\) of uint8"),
        (np.zeros((5, 7, 4), np.uint8), "8-bit RGB"),
        (torch.zeros(5, 7, 3), r"is \(3, H, W\), not \(5, 7, 3\)"),
        (torch.zeros(1, 3, 5, 7), r"is \(3, H, W\)"),
        (torch.zeros(3, 0, 7), "at least one pixel"),
        (torch.zeros(3, 5, 7, dtype=torch.int64), "uint8, or float"),
        (torch.full((3, 5, 7), 2.0), "do not normalise"),
        (torch.full((3, 5, 7), torch.nan), r"in \[0, 1\]"),
        ("frame.jpg", "not str"),
        (None, "not NoneType"),
    ],
)
def test_a_wrong_frame_says_what_was_given(frame, message):
    with pytest.raises(ValueError, match=message):
        to_frame(frame)


def test_normalised_mean_is_zero():
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1).expand(3, 2, 2)
    assert normalize(mean).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("given", "size", "wanted"),
    [
        ((480, 854), 480, (480, 854)),
        ((1080, 1920), 480, (480, 853)),
        ((1920, 1080), 480, (853, 480)),
        ((240, 426), 480, (480, 852)),
        ((96, 160), None, (96, 160)),
        ((1, 1), 16, (16, 16)),
        ((100, 1600), 480, (480, 7680)),
        ((1, 4000), 480, (2, 7680)),  # a strip
    ],
)
def test_the_short_side_becomes_the_working_size(given, size, wanted):
    assert working_size(*given, size) == wanted


def test_resizing_to_the_same_size_is_nothing():
    x = torch.rand(3, 5, 7)
    assert resize(x, (5, 7)) is x


def test_shrinking_averages():
    x = (torch.arange(64).view(1, 8, 8) % 2).float().expand(3, 8, 8)  # stripes that sampling would alias
    assert (resize(x, (2, 2)) - 0.5).abs().max() < 0.1


def test_a_picture_is_the_frame_that_its_file_is(tmp_path):
    """16-bit gray, transparent, and turned by its EXIF."""
    rng = np.random.default_rng(0)
    turned = Image.fromarray(rng.integers(0, 256, (6, 4, 3), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(rng.integers(0, 1 << 16, (6, 4), np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(rng.integers(0, 256, (6, 4, 4), np.uint8)).save(tmp_path / "clear.png")
    for path in sorted(tmp_path.iterdir()):
        with Image.open(path) as picture:
            assert torch.equal(to_frame(picture), to_frame(read_frame(path))), path.name


def test_a_float_frame_may_overshoot_by_rounding():
    frame = torch.tensor([-1e-6, 0.5, 1 + 2.4e-7]).view(3, 1, 1)
    assert torch.equal(to_frame(frame).flatten(), torch.tensor([0.0, 0.5, 1.0]))
    with pytest.raises(ValueError, match="divide by 255"):
        to_frame(frame * 1.1)


def test_masked_pixels_of_an_array_are_black_or_background():
    hidden = np.zeros((6, 8), bool)
    hidden[2:, 3:] = True
    pixels = np.random.default_rng(0).integers(1, 256, (6, 8, 3), dtype=np.uint8)
    ids = np.arange(48).reshape(6, 8) % 3
    frame = np.ma.masked_array(pixels, np.dstack(3 * [hidden]))
    assert torch.equal(to_frame(frame), to_frame(np.where(hidden[..., None], 0, pixels).astype(np.uint8)))
    for mask in (ids, ids.astype(np.uint16), ids > 0):
        masked = np.ma.masked_array(mask, hidden)
        assert torch.equal(to_mask(masked, (6, 8)), to_mask(np.where(hidden, 0, mask), (6, 8)))
    assert np.array_equal(frame.data, pixels)  # what is passed does not change
