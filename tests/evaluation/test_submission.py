import zipfile

import numpy as np
import pytest
from PIL import Image

from emavos.evaluation import PROTOCOLS, find_videos
from emavos.evaluation.baseline import CopyFirstMask
from emavos.evaluation.prediction import predict
from emavos.evaluation.submission import write_submission
from emavos.io import davis_palette, read_mask, write_mask
from trees import davis_tree, youtube_tree


@pytest.fixture
def davis(tmp_path):
    videos = find_videos(
        davis_tree(tmp_path / "data", {"one": 3, "two": 2}, (32, 40)), PROTOCOLS["davis-like"]
    )
    predict(videos, CopyFirstMask, tmp_path / "out", {})
    return videos, tmp_path / "out", tmp_path / "all.zip"


def test_davis_has_a_folder_for_each_sequence_and_every_frame(davis):
    videos, out, path = davis
    assert write_submission(videos, out, path) == ()
    with zipfile.ZipFile(path) as archive:
        inside = archive.namelist()
        assert inside == ["one/00000.png", "one/00001.png", "one/00002.png", "two/00000.png", "two/00001.png"]
        with archive.open("one/00002.png") as file, Image.open(file) as image:
            assert image.mode == "P"
            assert image.getpalette()[:12] == davis_palette()[:4].ravel().tolist()


def test_youtube_has_the_folder_annotations_and_the_frames_that_are_asked_for(tmp_path):
    videos = find_videos(youtube_tree(tmp_path / "data"), PROTOCOLS["youtube-vos-2019-all-frames"])
    predict(videos, CopyFirstMask, tmp_path / "out", {})
    write_submission(videos, tmp_path / "out", tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        ab = [f"Annotations/ab/{t:05d}.png" for t in (0, 5, 10, 15)]
        assert archive.namelist() == [*ab, *(name.replace("ab", "cd") for name in ab[1:])]


def test_equal_masks_give_equal_bytes(davis, tmp_path):
    videos, out, path = davis
    write_submission(videos, out, path)
    write_submission(videos, out, tmp_path / "again.zip")
    assert path.read_bytes() == (tmp_path / "again.zip").read_bytes()


def test_masks_in_colours_of_emavos_are_packed_in_those_of_davis(davis, tmp_path):
    videos, out, path = davis
    write_submission(videos, out, path)
    for file in out.glob("*/*.png"):
        write_mask(file, read_mask(file))  # as `emavos segment` writes them
    write_submission(videos, out, tmp_path / "again.zip")
    assert path.read_bytes() == (tmp_path / "again.zip").read_bytes()


def test_what_was_not_asked_for_is_left_out_and_named(davis):
    videos, out, path = davis
    (out / "one" / "notes.txt").write_text("mine")
    write_mask(out / "one" / "00003.png", np.zeros((32, 40), np.int32))
    assert write_submission(videos, out, path) == ("one/00003.png", "one/notes.txt")
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 5


def spoil(path, kind):
    mask = read_mask(path)
    if kind == "missing":
        path.unlink()
    elif kind == "gif":
        Image.fromarray(mask.astype(np.uint8)).save(path, format="GIF")
    elif kind == "size":
        write_mask(path, mask[:9, :8])
    elif kind == "id":
        mask[0, 0] = 9
        write_mask(path, mask)
    elif kind == "gray":
        Image.fromarray(mask.astype(np.uint8)).save(path)
    elif kind == "palette":
        image = Image.fromarray(mask.astype(np.uint8))
        image.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
        image.save(path)
    else:
        Image.fromarray(davis_palette()[mask]).save(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "one/00001.png is missing"),
        ("gif", "one/00001.png is not a PNG"),
        ("size", "one/00001.png is 9x8 but its frame is 32x40"),
        ("id", "one/00001.png has id 9, which no given mask shows"),
        ("gray", r"one/00001.png has no palette \(its mode is L\)"),
        ("palette", "one/00001.png has other colours than those of DAVIS"),
        ("colours", r"one/00001.png has no palette \(its mode is RGB\)"),
    ],
)
def test_what_a_server_would_misread_is_named_and_nothing_is_packed(davis, kind, message):
    videos, out, path = davis
    spoil(out / "one" / "00001.png", kind)
    with pytest.raises(ValueError, match=message):
        write_submission(videos, out, path)
    assert not path.exists()


def test_a_submission_is_a_zip(davis):
    videos, out, path = davis
    with pytest.raises(ValueError, match=r"is not named \.zip"):
        write_submission(videos, out, path.with_suffix(".tar"))
