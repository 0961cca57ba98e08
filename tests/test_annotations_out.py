"""Masks in the files of other tools, read again by this library and by the packages of the tools."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emavos.annotations import VideoMasks, read_annotations, read_names, write_annotations
from emavos.annotations.labelstudio import decode_brush, encode_brush
from emavos.annotations.writing import FOLDERS, WRITERS
from emavos.cli import main
from emavos.frames.mask_files import read_masks
from emavos.io import open_frames, write_mask

SIZE = (40, 60)
NAMES = {3: "cat", 12: "big dog & <co>", 700: "ball"}


def drawn():
    """Masks of three frames, with a hole, two parts, a pixel alone and an object that leaves."""
    first = np.zeros(SIZE, np.int32)
    first[4:20, 5:25], first[8:12, 10:15], first[30:38, 40:59], first[2, 50] = 3, 0, 12, 12
    second = np.roll(first, 2, axis=1)
    second[25:28, 3:9] = 700
    return {"f001": first, "f002": second, "f003": np.where(second == 12, 0, second)}


def filled(names=NAMES, **options):
    masks = VideoMasks(names, **options)
    for name, mask in drawn().items():
        masks.add(name, mask)
    return masks


def target(folder, kind):
    return folder / ("export" if kind in FOLDERS else f"export.{'xml' if kind == 'cvat' else 'json'}")


def read_back(path, kind):
    """{name: mask}, in the ids of the reader."""
    found = read_annotations(path)
    return {p.name: found.mask(n, SIZE) for n, p in enumerate(found.pictures)}, found


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.filterwarnings("ignore::emavos.io.InputWarning")  # YOLO has no groups: warns of parts
def test_what_is_written_for_a_tool_is_read_back_to_the_pixel(tmp_path, kind):
    path = target(tmp_path, kind)
    write_annotations(path, filled(), kind)
    masks, found = read_back(path, kind)
    assert [*masks] == ["f001", "f002", "f003"]
    by_name = {name: id for id, name in found.names.items()}
    if kind == "yolo":  # the list of classes lies in the folder above
        assert {*by_name} == {*NAMES.values()}
    ids = {given: by_name[NAMES[given]] for given in NAMES}
    if kind not in ("label-studio", "yolo"):  # which have only labels
        assert ids == {id: id for id in NAMES}
    for name, mask in drawn().items():
        wanted = np.zeros_like(mask)
        for given, id in ids.items():
            wanted[mask == given] = id
        np.testing.assert_array_equal(masks[name], wanted)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.filterwarnings("ignore::emavos.io.InputWarning")  # YOLO has no groups: warns of parts
def test_objects_without_names_keep_their_ids(tmp_path, kind):
    path = target(tmp_path, kind)
    write_annotations(path, filled({}), kind)
    masks, _ = read_back(path, kind)
    for name, mask in drawn().items():
        np.testing.assert_array_equal(masks[name], mask)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.filterwarnings("ignore::emavos.io.InputWarning")  # YOLO has no groups: warns of parts
def test_ids_of_any_sign_come_back(tmp_path, kind):
    masks = VideoMasks()
    signed = {name: np.where(mask == 12, -7, mask) for name, mask in drawn().items()}
    for name, mask in signed.items():
        masks.add(name, mask)
    write_annotations(target(tmp_path, kind), masks, kind)
    found, _ = read_back(target(tmp_path, kind), kind)
    for name, mask in signed.items():
        np.testing.assert_array_equal(found[name], mask)


def test_a_brush_is_read_back_whatever_its_runs():
    random = np.random.default_rng(0)
    for plane in (
        random.random(SIZE) < 0.5,
        np.zeros(SIZE, bool),
        np.ones((300, 400), bool),
        np.eye(9, dtype=bool),
    ):
        np.testing.assert_array_equal(decode_brush(encode_brush(plane), plane.shape), plane)


def test_masks_are_converted_on_the_command_line_and_tracked_from_the_result(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("ids").mkdir()
    Path("frames").mkdir()
    for name, mask in drawn().items():
        write_mask(f"ids/{name}.png", mask)
        Image.new("RGB", SIZE[::-1]).save(f"frames/{name}.jpg")
    assert main(["masks", "convert", "ids", "--to", "cvat", "--out", "a.xml", "--images", ".jpg"]) == 0
    assert "3 masks, 3 objects: a.xml" in capsys.readouterr().out
    assert 'name="f001.jpg"' in Path("a.xml").read_text()
    found = read_masks("a.xml", open_frames("frames"))
    for index, mask in enumerate(drawn().values()):
        np.testing.assert_array_equal(found[index], mask)
    assert (
        main(["masks", "convert", "a.xml", "--to", "yolo", "--out", "y", "--tolerance", "1", "--quiet"]) == 0
    )
    assert sorted(path.name for path in Path("y").rglob("*.txt")) == [
        "classes.txt",
        *(f"f00{n}.txt" for n in "123"),
    ]


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (("00001", "00006", "00011"), ["0", "5", "10"]),  # counted from 1
        (("00000", "00005", "00010"), ["0", "5", "10"]),
        (("00002", "00003", "00007"), ["2", "3", "7"]),
        (("a", "b", "c"), ["0", "1", "2"]),
    ],
)
def test_cvat_gets_the_numbers_of_frames_with_their_gaps(tmp_path, names, numbers):
    (tmp_path / "ids").mkdir()
    for name, mask in zip(names, drawn().values(), strict=True):
        write_mask(tmp_path / "ids" / f"{name}.png", mask)
    out = tmp_path / "a.xml"
    assert main(["masks", "convert", str(tmp_path / "ids"), "--to", "cvat", "--out", str(out)]) == 0
    assert re.findall('<image id="([0-9]+)"', out.read_text()) == numbers


def test_tracked_masks_get_the_names_of_the_annotations_that_were_tracked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_annotations("given.xml", filled(), "cvat")
    Path("ids").mkdir()
    for number, mask in zip((40, 42, 44), drawn().values(), strict=True):  # as of --start 40 --step 2
        write_mask(f"ids/{number:05d}.png", mask)
    Path("classes.txt").write_text("\n".join(NAMES.get(id, f"class {id}") for id in range(1, 1 + max(NAMES))))
    Path("interface.xml").write_text('<View><Label value="a"/><Label value="b"/></View>')
    for names in ("given.xml", "classes.txt"):
        argv = ["masks", "convert", "ids", "--to", "cvat", "--out", "a.xml", "--force", "--names", names]
        assert main(argv) == 0
        found = read_annotations("a.xml")
        assert found.names == NAMES
        for place, mask in enumerate(drawn().values()):
            np.testing.assert_array_equal(found.mask(place), mask)
    assert re.findall('<image id="([0-9]+)"', Path("a.xml").read_text()) == ["40", "42", "44"]
    assert read_names("interface.xml") == {1: "a", 2: "b"}
    capsys.readouterr()
    Path("a.json").write_text("[]")
    assert main(["masks", "convert", "ids", "--to", "cvat", "--out", "b.xml", "--names", "a.json"]) == 1
    assert "a.json is not a file of annotations" in capsys.readouterr().err
    assert not Path("b.xml").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "a", "--names", "n.txt"], "--names and --tolerance change nothing without --to"),
        (["--to", "cvat", "--out", "a.json"], "--out a.json is written as .xml for --to cvat"),
        (["--to", "coco", "--out", "a"], "is written as .json"),
        (["--to", "cvat", "--out", "a.xml", "--tolerance", "1"], "--tolerance is for polygons"),
        (["--to", "yolo", "--out", "a", "--tolerance", "-1"], "--tolerance is a number of pixels"),
        (["--to", "coco", "--out", "a.json", "--images", "jpg"], "--images is a suffix such as .jpg"),
        (["--out", "a", "--images", ".jpg"], "change nothing without --to"),
    ],
)
def test_formats_that_cannot_be_written_are_refused(tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    write_mask("m.png", drawn()["f001"])
    assert main(["masks", "convert", "m.png", *options]) == 1
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]


def test_what_is_no_export_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no format 'voc'; the formats are coco, "):
        write_annotations(tmp_path / "a", filled(), "voc")
    with pytest.raises(ValueError, match="there are no masks to write"):
        write_annotations(tmp_path / "a", VideoMasks(), "yolo")
    with pytest.raises(ValueError, match="mask f is 8x9 but the first is 40x60"):
        filled().add("f", np.zeros((8, 9), np.int32))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("")
    with pytest.raises(ValueError, match="is not an empty folder"):
        write_annotations(tmp_path / "full", filled(), "yolo")
    (tmp_path / "two.json").write_text(json.dumps({"videos": [{}, {}], "annotations": []}))
    with pytest.raises(ValueError, match="it has 2 videos; keep the annotations of one"):
        read_annotations(tmp_path / "two.json")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_pycocotools_reads_coco_and_youtube_vis(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    coder = pytest.importorskip("pycocotools.mask")
    write_annotations(tmp_path / "a.json", filled(), "coco")
    read = coco.COCO(str(tmp_path / "a.json"))
    for number, mask in enumerate(drawn().values(), 1):
        for annotation in read.loadAnns(read.getAnnIds(imgIds=[number])):
            plane = read.annToMask(annotation).astype(bool)
            np.testing.assert_array_equal(plane, mask == annotation["track_id"])
            assert annotation["area"] == plane.sum()
    write_annotations(tmp_path / "b.json", filled(), "youtube-vis")
    content = json.loads((tmp_path / "b.json").read_text())
    for annotation in content["annotations"]:
        for place, (mask, rle) in enumerate(zip(drawn().values(), annotation["segmentations"], strict=True)):
            plane = mask == annotation["track_id"]
            assert (rle is None) == (not plane.any()) == (annotation["bboxes"][place] is None)
            if rle is not None:
                np.testing.assert_array_equal(coder.decode(rle).astype(bool), plane)
                assert coder.toBbox(rle).tolist() == annotation["bboxes"][place]


def test_label_studios_sdk_reads_its_brushes():
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    plane = drawn()["f001"] == 12
    image = np.reshape(brush.decode_rle(encode_brush(plane)), [*SIZE, 4])
    np.testing.assert_array_equal(image[:, :, 3] > 0, plane)


def test_cvats_sdk_reads_its_masks(tmp_path):
    masks = pytest.importorskip("cvat_sdk.masks")
    from xml.etree import ElementTree

    write_annotations(tmp_path / "a.xml", filled(), "cvat")
    images = ElementTree.parse(tmp_path / "a.xml").getroot().findall("image")
    for image, mask in zip(images, drawn().values(), strict=True):
        for shape in image.findall("mask"):
            runs = [int(run) for run in shape.get("rle").split(",")]
            left, top, width, height = (int(shape.get(key)) for key in ("left", "top", "width", "height"))
            plane = mask == int(shape.get("group_id"))
            assert masks.encode_mask(plane) == [*runs, left, top, left + width - 1, top + height - 1]


def test_labelme_reads_and_draws_its_polygons(tmp_path):
    shapes = pytest.importorskip("labelme.utils.shape")
    write_annotations(tmp_path / "a", filled(), "labelme")
    content = json.loads((tmp_path / "a" / "f001.json").read_text())
    plane = np.zeros(SIZE, bool)
    for shape in content["shapes"]:
        if shape["label"] == "cat":
            plane |= shapes.shape_to_mask(SIZE, shape["points"], shape["shape_type"])
    np.testing.assert_array_equal(plane, drawn()["f001"] == 3)


def test_supervision_reads_yolo(tmp_path):
    supervision = pytest.importorskip("supervision")
    pytest.importorskip("cv2")
    write_annotations(tmp_path / "a", filled(), "yolo")
    (tmp_path / "a" / "images").mkdir()
    for name in drawn():
        Image.new("RGB", SIZE[::-1]).save(tmp_path / "a" / "images" / f"{name}.jpg")
    read = supervision.DetectionDataset.from_yolo(
        str(tmp_path / "a" / "images"),
        str(tmp_path / "a" / "labels"),
        str(tmp_path / "a" / "data.yaml"),
        force_masks=True,
    )
    assert read.classes == [*NAMES.values()]
    for path, _, found in read:
        mask = drawn()[Path(path).stem]
        for number, id in enumerate(NAMES):
            planes = found.mask[found.class_id == number]
            area = planes.any(axis=0) if len(planes) else np.zeros(SIZE, bool)
            np.testing.assert_array_equal(area, mask == id)
