"""Masks as people draw and save them, as the table of docs/input.md lists them."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from emavos import Predictor, Session
from emavos.cli import main
from emavos.frames.mask_files import read_masks
from emavos.io import open_frames, read_mask, write_mask
from emavos.io.ids import MARK
from emavos.weights import load_model

PAGE = Path(__file__).parents[2] / "docs" / "input.md"
FRAME = np.full((32, 48, 3), 90, np.uint8)


def square(id, kind=np.uint8, size=(32, 48)):
    mask = np.zeros(size, kind)
    mask[8:24, 8:24] = id
    return mask


def colours():
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[8:24, 8:24] = 250, 50, 83
    return picture


def smooth():
    big = Image.new("L", (768, 512))
    ImageDraw.Draw(big).ellipse((40, 60, 400, 420), fill=255)
    return np.array(big.resize((96, 64), Image.Resampling.LANCZOS))


def smooth16():
    return smooth().astype(np.uint16) * 257


def of_davis():
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[8:24, 8:24] = 0, 128, 0
    return picture


def opaque():
    return np.dstack([square(255)] * 3 + [np.full((32, 48), 255, np.uint8)])


def void():
    mask = square(1)
    mask[7], mask[24] = 255, 255
    return mask


REFUSED = {  # the case as the page tells it: the array, and words of the message
    "a mask of other colours (RGB)": (colours(), "is an RGB mask of 2 colours; a mask holds ids"),
    "an anti-aliased mask": (smooth(), "looks anti-aliased or compressed"),
    "an anti-aliased mask of 16 bits": (smooth16(), "looks anti-aliased or compressed"),
    "a mask of another size than its frame": (square(1, size=(24, 32)), "mask is 24x32 but frame is 32x48"),
    "a mask without an object": (square(0), "the mask of frame 0 is empty"),
}
ARRAYS_REFUSED = {
    "an array of floats as a mask": (square(1, np.float64), "holds whole ids, not torch.float64"),
    "an array with NaN as a mask": (square(np.nan, np.float32), "holds whole ids, not torch.float32"),
    "an array of ids beyond 32 bits": (square(2**40, np.int64), "ids are 32-bit integers"),
}
FOLLOWED = {  # the objects that are followed
    "a mask of 0 and 255": (square(255), (255,)),
    "a mask with 255 as void": (void(), (1, 255)),
    "a mask of 16 bits with ids above 255": (square(300, np.uint16), (300,)),
    "a mask in the colours of DAVIS": (of_davis(), (2,)),
    "a gray mask saved as RGB": (np.dstack([square(3)] * 3), (3,)),
    "a gray mask with opaque alpha": (opaque(), (255,)),
    "a mask that is all one id": (np.full((32, 48), 3, np.uint8), (3,)),
}


@pytest.fixture
def session():
    return Session(load_model(), size=None)


@pytest.mark.parametrize("case", REFUSED)
def test_a_mask_file_that_cannot_be_followed_is_refused(session, tmp_path, case):
    pixels, words = REFUSED[case]
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=words):
        session.step(FRAME, read_mask(tmp_path / "mask.png"))
    assert (session.index, session.ids) == (0, ())


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_mask_file_is_named(tmp_path, capsys, case):
    (tmp_path / "video").mkdir()
    Image.fromarray(FRAME).save(tmp_path / "video/0.png")
    mask = tmp_path / "mask.png"
    Image.fromarray(REFUSED[case][0]).save(mask)
    with pytest.raises(ValueError, match=r"mask\.png"):
        list(Predictor.from_pretrained().propagate(tmp_path / "video", mask))
    argv = ["segment", str(tmp_path / "video"), "--mask", str(mask), "--out", str(tmp_path / "out")]
    assert main([*argv, "--quiet"]) == 1
    assert f"error: {mask}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_mask_drawn_before_its_frame_is_rotated_is_to_be_rotated_and_not_resized(session, tmp_path):
    picture = Image.fromarray(FRAME)
    picture.getexif()[0x0112] = 6
    (tmp_path / "video").mkdir()
    picture.save(tmp_path / "video/0.jpg", exif=picture.getexif())
    write_mask(tmp_path / "mask.png", square(1))
    words = "mask is 32x48 but frame is 48x32 .*; rotate the mask; frames of files are read upright"
    with pytest.raises(ValueError, match=words):
        Predictor.from_pretrained().propagate(tmp_path / "video", tmp_path / "mask.png")
    with pytest.raises(ValueError, match=words):
        session.step(FRAME.transpose(1, 0, 2), square(1))


@pytest.mark.parametrize("case", ARRAYS_REFUSED)
def test_an_array_that_is_no_mask_is_refused(session, case):
    mask, words = ARRAYS_REFUSED[case]
    with pytest.raises(ValueError, match=words):
        session.step(FRAME, mask)
    assert (session.index, session.ids) == (0, ())


@pytest.mark.parametrize("case", FOLLOWED)
def test_an_odd_mask_is_followed_as_the_page_says(session, tmp_path, case):
    pixels, ids = FOLLOWED[case]
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    result = session.step(FRAME, read_mask(tmp_path / "mask.png"))
    assert result.ids == ids
    assert {*np.unique(result.mask)} <= {0, *ids}


def test_a_mask_that_its_exif_turns_is_upright_as_its_frame_is(tmp_path):
    picture = Image.fromarray(square(3))
    picture.getexif()[0x0112] = 6  # to be turned by 90 degrees, clockwise
    picture.save(tmp_path / "mask.png", exif=picture.getexif())
    assert np.array_equal(read_mask(tmp_path / "mask.png"), np.rot90(square(3), -1))


def test_slivers_with_ids_above_255_are_ids_until_the_picture_is_changed(tmp_path):
    mask = np.zeros((32, 48), np.int32)
    mask[8:24, 8:24] = 900
    mask[8:24, 8] = np.arange(300, 316)  # each a pixel between the background and an object
    write_mask(tmp_path / "mask.png", mask)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask)
    with Image.open(tmp_path / "mask.png") as picture:
        notes = PngInfo()
        notes.add_text(MARK, picture.info[MARK])
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "flipped.png", pnginfo=notes)
    with pytest.raises(ValueError, match="looks anti-aliased"):
        read_mask(tmp_path / "flipped.png")


BEYOND = "a file of masks with a negative id or one above 65535"
WHOLE = (1, 255, 65535)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.tif"])
@pytest.mark.parametrize("kind", [np.int32, np.float32])
@pytest.mark.parametrize("id", [-1, 65536, 70000, 1.5, np.nan, np.inf, *WHOLE])
def test_ids_of_a_file_are_whole_and_fit_a_png_or_the_file_is_refused(tmp_path, capsys, name, kind, id):
    if kind is np.int32 and id != id // 1:
        pytest.skip("an id of no whole number")
    mask = np.zeros((32, 48), kind)
    mask[8:20, 10:30] = id
    (tmp_path / "frames").mkdir()
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(tmp_path / "frames" / "0.png")
    if name == "a.tif":
        Image.fromarray(mask).save(tmp_path / name)
    else:
        (np.savez if name == "a.npz" else np.save)(tmp_path / name, mask)
    out, argv = tmp_path / "out", ["segment", str(tmp_path / "frames"), "--mask", str(tmp_path / name)]
    done = main([*argv, "--out", str(out), "--quiet", "--size", "32", "--device", "cpu"])
    error = capsys.readouterr().err
    if id in WHOLE:
        assert done == 0, error
        assert np.array_equal(read_mask(out / "0.png"), mask.astype(np.int32))
    else:
        assert (done, error.count("\n"), out.exists()) == (1, 1, False)
        assert name in error
        assert "whole ids" in error or f"the id {id}" in error


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_mask_finds_its_frame_however_unicode_writes_its_accents(tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    (tmp_path / "masks").mkdir()
    for id, name in enumerate(("Caf\u00e9", "\u00c5ngstr\u00f6m", "plain"), 1):
        Image.fromarray(FRAME).save(tmp_path / f"{normalize(form, name)}.png")
        write_mask(tmp_path / "masks" / f"{normalize(other, name)}.png", square(id))
    frames = open_frames(tmp_path)
    masks = read_masks(tmp_path / "masks", frames)
    assert {normalize("NFC", frames.name(i)): int(mask.max()) for i, mask in masks.items()} == {
        "Caf\u00e9": 1,
        "\u00c5ngstr\u00f6m": 2,
        "plain": 3,
    }


def test_negative_ids_are_followed_and_have_no_place_in_a_file(session, tmp_path):
    result = session.step(FRAME, square(-2, np.int32))
    assert result.ids == (-2,)
    with pytest.raises(ValueError, match="id -2 has no place in a PNG"):
        write_mask(tmp_path / "mask.png", np.asarray(result.mask))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (2**14, 2**13 + 1)])
def test_a_mask_that_no_file_gives_back_is_not_written(tmp_path, shape):
    with pytest.raises(ValueError, match="from 1 to 134217728 pixels"):
        write_mask(tmp_path / "mask.png", np.broadcast_to(np.uint8(0), shape))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("case", [*REFUSED, *ARRAYS_REFUSED, *FOLLOWED, "an array with negative ids", BEYOND])
def test_the_page_tells_of_each_mask(case):
    assert f"| {case} |" in PAGE.read_text()
