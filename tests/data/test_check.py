from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from emavos.cli import main
from emavos.io import read_mask, write_mask
from trees import training_tree


@pytest.fixture
def root(tmp_path):
    return training_tree(tmp_path / "data")


def found(root, capsys):
    code = main(["data", "check", str(root)])
    lines = capsys.readouterr().out.splitlines()
    assert code == (0 if len(lines) == 1 and "nothing is wrong" in lines[0] else 1)
    return lines


def test_data_in_order_passes(root, capsys):
    assert found(root, capsys) == [f"{root}: nothing is wrong with 4 clips and still images, 13 masks"]
    assert main(["data", "check", str(root / "clips"), "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_frames_of_a_clip_need_no_mask_as_long_as_one_has(root, capsys):
    masks = root / "clips/Annotations/480p/one"
    for name in ("00001", "00002"):
        (masks / f"{name}.png").unlink()
    assert "nothing is wrong" in found(root, capsys)[0]
    shutil.rmtree(masks)
    (line,) = found(root, capsys)
    assert "JPEGImages/480p/one has no mask" in line


def cut(path):
    path.write_bytes(path.read_bytes()[:300])


def resize(path):
    write_mask(path, read_mask(path)[:50])


def renumber(path):
    write_mask(path, np.where(read_mask(path) == 1, 300, 0))


def void(path):
    mask = read_mask(path)
    mask[:4] = 255
    write_mask(path, mask)


def colour(path):
    """Colours of no palette that is known; those of DAVIS are read as ids."""
    with Image.open(path) as image:
        rgb = image.convert("RGB").point(lambda value: min(value + 9, 255))
    rgb.save(path)


def compress(path):
    with Image.open(path) as image:
        image.convert("L").save(path.with_suffix(".jpg"))
    path.unlink()


def double(path):
    shutil.copy(path, path.with_suffix(".jpeg"))


def clear(path):
    write_mask(path, np.zeros((80, 100), np.uint8))


@pytest.mark.parametrize(
    ("spoil", "path", "message"),
    [
        (cut, "clips/JPEGImages/480p/one/00001.jpg", "is not an image that can be read"),
        (cut, "clips/Annotations/480p/one/00001.png", "is not an image that can be read"),
        (cut, "static/images/a.jpg", "is not an image that can be read"),
        (resize, "clips/Annotations/480p/two/00003.png", "is 50x128 but 00003.jpg is 96x128"),
        (resize, "static/masks/a.png", "is 50x100 but a.jpg is 80x100"),
        (renumber, "clips/Annotations/480p/two/00003.png", "has id 300, out of range"),
        (void, "clips/Annotations/480p/two/00003.png", "has id 255 beside others"),
        (colour, "static/masks/b.png", "is an RGB mask"),
        (compress, "clips/Annotations/480p/one/00001.png", "00001.jpg is not a PNG"),
        (clear, "static/masks/b.png", "has no object in any mask"),
        (lambda path: path.unlink(), "static/masks/b.png", "b.jpg has no mask"),
        (lambda path: path.unlink(), "static/images/b.jpg", "b.png has no image"),
        (lambda path: path.unlink(), "clips/JPEGImages/480p/one/00001.jpg", "00001.png has no image"),
        (double, "clips/JPEGImages/480p/one/00001.jpg", "holds both 00001.jpeg and 00001.jpg"),
        (lambda path: shutil.rmtree(path), "clips/JPEGImages/480p/one", "one has no images"),
    ],
)  # fmt: skip
def test_each_fault_is_one_line_that_names_the_file(root, capsys, spoil, path, message):
    spoil(root / path)
    (line,) = found(root, capsys)
    assert message in line


def test_frames_of_several_sizes_are_told(root, capsys):
    for path in ("JPEGImages/480p/one/00002.jpg", "Annotations/480p/one/00002.png"):
        with Image.open(root / "clips" / path) as image:
            small = image.resize((64, 48), Image.Resampling.NEAREST)
        small.save(root / "clips" / path)
    (line,) = found(root, capsys)
    assert "frames of several sizes: 96x128 (00000.jpg), 48x64 (00002.jpg)" in line


def test_a_folder_of_something_else_is_an_error(tmp_path, capsys):
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "holds no training data" in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 1
    assert "is not a folder" in capsys.readouterr().err
