"""Masks as annotation tools save them are the masks that were drawn."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from emavos import Predictor
from emavos.annotations import read_annotations, read_arrays, read_labels
from emavos.annotations.labelstudio import decode_brush
from emavos.annotations.shapes import pasted, polygons
from emavos.bridges import CocoWriter, encode_rle, read_coco
from emavos.cli import main
from emavos.frames.mask_files import open_masks, read_masks
from emavos.io import InputWarning, open_frames, read_mask, write_mask

SIZE = (32, 48)
CAT, DOG = [(8, 8), (20, 8), (20, 24), (8, 24)], [(30, 10), (40, 10), (40, 20), (30, 20)]


def drawn(**ids):
    """Two boxes as Pillow fills them, outlines included."""
    mask = np.zeros(SIZE, np.int32)
    mask[8:25, 8:21] = ids.get("cat", 1)
    mask[10:21, 30:41] = ids.get("dog", 2)
    return mask


def labelme(folder, names=("00000",)):
    folder.mkdir(exist_ok=True)
    for name in names:
        shapes = [{"label": n, "points": p, "group_id": None, "shape_type": "polygon"} for n, p in PAIRS]
        content = {
            "shapes": shapes,
            "imagePath": f"{name}.jpg",
            "imageHeight": SIZE[0],
            "imageWidth": SIZE[1],
        }
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


PAIRS = [("cat", CAT), ("dog", DOG)]
TEXT = [(name, ";".join(f"{x}.00,{y}.00" for x, y in points)) for name, points in PAIRS]


def a_labelme(path):
    return labelme(path / "labelme") / "00000.json"


def a_cvat_for_images(path):
    shapes = "".join(
        f'<polygon label="{n}" occluded="0" points="{p}" z_order="0"></polygon>' for n, p in TEXT
    )
    image = f'<image id="0" name="a/00000.PNG" width="{SIZE[1]}" height="{SIZE[0]}">{shapes}</image>'
    names = "".join(f"<label><name>{name}</name></label>" for name, _ in PAIRS)
    labels = f"<meta><task><labels>{names}</labels></task></meta>"
    (path / "a.xml").write_text(f"<?xml version='1.0'?><annotations>{labels}{image}</annotations>")
    return path / "a.xml"


def a_cvat_for_video(path):
    tracks = ""
    for id, (name, points) in enumerate(TEXT):
        polygon = (
            f'<polygon frame="{{}}" keyframe="{{}}" outside="{{}}" points="{points}" z_order="0"></polygon>'
        )
        shapes = polygon.format(0, 1, 0) + polygon.format(1, 0, 0) + polygon.format(2, 1, 1)
        tracks += f'<track id="{id}" label="{name}">{shapes}</track>'
    size = f"<meta><original_size><width>{SIZE[1]}</width><height>{SIZE[0]}</height></original_size></meta>"
    (path / "a.xml").write_text(f"<annotations>{size}{tracks}</annotations>")
    return path / "a.xml"


def a_cvat_mask(path):
    shapes = ""
    for name, points in PAIRS:
        (left, top), (right, bottom) = points[0], points[2]
        sides = f'left="{left}" top="{top}" width="{right - left + 1}" height="{bottom - top + 1}"'
        count = (right - left + 1) * (bottom - top + 1)
        shapes += f'<mask label="{name}" rle="0, {count}" {sides} z_order="0"></mask>'
    image = f'<image id="0" name="00000.png" width="{SIZE[1]}" height="{SIZE[0]}">{shapes}</image>'
    (path / "a.xml").write_text(f"<annotations>{image}</annotations>")
    return path / "a.xml"


def coco_of(segmentations, **more):
    image = {"id": 7, "file_name": "v/00000.jpg", "height": SIZE[0], "width": SIZE[1]}
    annotations = [
        {"id": i, "image_id": 7, "category_id": i + 1, "segmentation": s} | more
        for i, s in enumerate(segmentations)
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": [image], "annotations": annotations, "categories": categories}


def a_coco_of_polygons(path):
    flat = [[[v for point in points for v in point]] for _, points in PAIRS]
    (path / "a.json").write_text(json.dumps(coco_of(flat)))
    return path / "a.json"


def a_coco_of_runs(path):
    runs = [encode_rle(drawn() == id) for id in (1, 2)]
    (path / "a.json").write_text(json.dumps(coco_of(runs)))
    return path / "a.json"


def a_coco_of_ours(path):
    with CocoWriter(path / "a.json") as coco:
        coco.write("00000", drawn())
    return path / "a.json"


def label_studio_of(results):
    task = {"id": 1, "file_upload": "0a1b2c3d-00000.jpg", "annotations": [{"id": 5, "result": results}]}
    return [task]


def region(kind, name, **value):
    sides = {"original_height": SIZE[0], "original_width": SIZE[1]}
    return {"type": kind, "value": {**value, kind: [name]}, **sides}


def a_label_studio_polygon(path):
    percent = [[[100 * x / SIZE[1], 100 * y / SIZE[0]] for x, y in points] for _, points in PAIRS]
    results = [region("polygonlabels", n, points=p) for (n, _), p in zip(PAIRS, percent, strict=True)]
    (path / "a.json").write_text(json.dumps(label_studio_of(results)))
    return path / "a.json"


def brush(plane):
    """The bit stream of Label Studio, without a run of more than one value."""
    values = np.zeros((*plane.shape, 4), np.uint8)
    values[plane] = 255
    bits = f"{values.size:032b}" + f"{7:05b}" + f"{7:04b}" * 4
    flat = values.ravel()
    for at in range(0, flat.size, 256):
        block = flat[at : at + 256]
        same = (block == block[0]).all()
        bits += ("1" if same else "0") + "00" + f"{len(block) - 1:08b}"
        bits += "".join(f"{v:08b}" for v in ([block[0]] if same else block))
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def a_label_studio_brush(path):
    results = [
        region("brushlabels", n, rle=brush(drawn() == id), format="rle") for id, (n, _) in enumerate(PAIRS, 1)
    ]
    (path / "a.json").write_text(json.dumps(label_studio_of(results)))
    return path / "a.json"


def a_via_project(path):
    regions = [
        {
            "shape_attributes": {
                "name": "polygon",
                "all_points_x": [x for x, _ in points],
                "all_points_y": [y for _, y in points],
            },
            "region_attributes": {"label": name},
        }
        for name, points in PAIRS
    ]
    images = {"00000.jpg99": {"filename": "00000.jpg", "size": 99, "regions": regions, "file_attributes": {}}}
    (path / "a.json").write_text(json.dumps({"_via_settings": {}, "_via_img_metadata": images}))
    return path / "a.json"


def a_yolo_folder(path):
    (path / "labels").mkdir()
    lines = [
        " ".join([str(number), *(f"{x / SIZE[1]} {y / SIZE[0]}" for x, y in points)])
        for number, (_, points) in enumerate(PAIRS)
    ]
    (path / "labels" / "00000.txt").write_text("\n".join(lines))
    (path / "classes.txt").write_text("cat\ndog\n")
    return path / "labels"


def an_array(path):
    np.save(path / "a.npy", drawn().astype(np.float32))
    return path / "a.npy"


def an_array_of_planes(path):
    np.save(path / "a.npy", np.stack([drawn() == 1, drawn() == 2]))
    return path / "a.npy"


def an_archive(path):
    np.savez(path / "a.npz", drawn())
    return path / "a.npz"


def an_export_of_cvat_in_colours(path):
    (path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\ndog:51,221,255::\n"
    )
    picture = np.zeros((*SIZE, 3), np.uint8)
    picture[drawn() == 1], picture[drawn() == 2] = (250, 50, 83), (51, 221, 255)
    (path / "SegmentationClass").mkdir()
    Image.fromarray(picture).save(path / "SegmentationClass" / "00000.png")
    return path


SAVED = [
    a_labelme,
    a_cvat_for_images,
    a_cvat_for_video,
    a_cvat_mask,
    a_coco_of_polygons,
    a_coco_of_runs,
    a_coco_of_ours,
    a_label_studio_polygon,
    a_label_studio_brush,
    a_via_project,
    a_yolo_folder,
    an_array,
    an_array_of_planes,
    an_archive,
    an_export_of_cvat_in_colours,
]


@pytest.fixture
def frames(tmp_path):
    return open_frames(frames_at(tmp_path / "frames", [f"{i:05d}" for i in range(4)]))


def frames_at(folder, names):
    folder.mkdir()
    for i, name in enumerate(names):
        pixels = np.full((*SIZE, 3), 90, np.uint8)
        pixels[8:24, 8 + i : 20 + i] = 220, 40, 30
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("save", SAVED)
def test_what_a_tool_saved_is_the_mask_that_was_drawn(tmp_path, frames, save):
    masks = read_masks(save(tmp_path), frames)
    assert [*masks] == [0]
    assert masks[0].dtype == np.int32
    assert np.array_equal(masks[0], drawn())


@pytest.mark.parametrize("save", [a_cvat_for_video, a_yolo_folder])
def test_what_a_tool_saved_can_be_followed(tmp_path, frames, save):
    arguments = ["--mask", save(tmp_path), "--out", tmp_path / "out", "--size", "32"]
    assert main(["segment", *map(str, [tmp_path / "frames", *arguments])]) == 0
    assert len([*(tmp_path / "out").iterdir()]) == 4


def test_what_a_tool_saved_can_be_followed_in_python(tmp_path, frames):
    results = [*Predictor.from_pretrained(size=32).propagate(tmp_path / "frames", str(a_labelme(tmp_path)))]
    assert results[0].ids == (1, 2)
    assert np.array_equal(results[0].mask, drawn())


@pytest.mark.parametrize("save", SAVED)
def test_what_a_tool_saved_can_be_looked_into_and_converted(tmp_path, frames, save, capsys):
    mask, video = str(save(tmp_path)), str(tmp_path / "frames")
    assert main(["masks", "convert", mask, "--frames", video, "--out", str(tmp_path / "ids")]) == 0
    (name,) = (tmp_path / "ids").iterdir()
    assert name.name == "00000.png"
    assert np.array_equal(read_mask(name), drawn())
    assert "1 mask, 2 objects" in capsys.readouterr().out
    assert main(["masks", "info", mask, "--frames", video]) == 0
    assert "32x48  1: 221, 2: 121" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "groups", "ids"),
    [
        (("cat", "cat"), (None, None), {1, 2}),
        (("cat", "cat"), (4, 4), {4}),
        (("cat", "cat"), (4, None), {1, 2}),
        (("cat", "cat"), (9, 4), {9, 4}),
        (("cat", "dog"), (9, 4), {9, 4}),
        (("cat", "dog"), (4, 4), {1, 2}),  # a group of each label
        (("cat", "cat"), (0, 4), {1, 2}),
        (("cat", "cat"), (65535, 4), {65535, 4}),
        (("cat", "cat"), (170001, 4), {1, 2}),  # no id of a file
        (("cat", "cat"), (-3, 4), {1, 2}),
        (("cat", "cat"), (255, 4), {1, 2}),  # the void
    ],
)
def test_an_outline_around_one_frame_is_one_object_each_and_groups_are_one(tmp_path, labels, groups, ids):
    path = a_labelme(tmp_path)
    content = json.loads(path.read_text())
    for shape, label, group in zip(content["shapes"], labels, groups, strict=True):
        shape.update(label=label, group_id=group)
    path.write_text(json.dumps(content))
    assert {*np.unique(read_annotations(path).mask(0)).tolist()} == {0, *ids}


def test_the_folder_of_a_yolo_data_set_is_read_as_its_labels(tmp_path):
    labels = a_yolo_folder(tmp_path)
    (tmp_path / "data.yaml").write_text("nc: 2\n")
    (tmp_path / "train.txt").write_text("images/00000.jpg\n")  # a list of images
    found = read_annotations(tmp_path)
    np.testing.assert_array_equal(found.mask(0, SIZE), read_annotations(labels).mask(0, SIZE))
    assert found.names == {1: "cat", 2: "dog"}
    assert [mask.name for mask in open_masks(tmp_path)] == ["00000"]


def test_labels_are_the_objects_of_several_frames_and_a_note_says_so(tmp_path):
    folder = labelme(tmp_path / "m", ["00000", "00002"])
    first = json.loads((folder / "00000.json").read_text())
    first["shapes"].reverse()
    first["shapes"].append({**first["shapes"][0], "points": [[0, 0], [3, 0], [3, 3]]})
    (folder / "00000.json").write_text(json.dumps(first))
    with pytest.warns(InputWarning, match="2 shapes of 'dog' in 00000 are one object"):
        found = read_annotations(folder)
    assert found.names == {1: "dog", 2: "cat"}
    assert np.array_equal(found.mask(1), drawn(cat=2, dog=1))
    (folder / "classes.txt").write_text("cat\ndog\n")
    with pytest.warns(InputWarning):
        assert read_annotations(folder).names == {1: "cat", 2: "dog"}


@pytest.mark.parametrize("label", ["7", "-3"])
def test_labels_that_are_numbers_are_the_ids(tmp_path, label):
    path = a_labelme(tmp_path)
    path.write_text(path.read_text().replace('"cat"', f'"{label}"').replace('"dog"', '"300"'))
    assert {*np.unique(read_annotations(path).mask(0)).tolist()} == {0, int(label), 300}


def test_the_tracks_of_coco_are_the_ids_wherever_a_tool_writes_them(tmp_path):
    for more in ({"track_id": 5}, {"attributes": {"track_id": 5, "occluded": False}}):
        content = coco_of([encode_rle(drawn() == 1)], **more)
        (tmp_path / "a.json").write_text(json.dumps(content))
        assert np.unique(read_annotations(tmp_path / "a.json").mask(0)).tolist() == [0, 5]


def test_polygons_of_coco_are_read_by_the_bridge_too(tmp_path):
    ((name, mask),) = read_coco(a_coco_of_polygons(tmp_path))
    assert name == "00000"
    assert np.array_equal(mask, drawn())


def test_polygons_cover_the_pixels_that_pillow_fills_wherever_they_lie():
    rng = np.random.default_rng(0)
    for _ in range(200):
        size = tuple(rng.integers(1, 60, 2).tolist())
        parts = [rng.uniform(-20, 80, (rng.integers(3, 8), 2)) for _ in range(rng.integers(0, 3))]
        parts = [part.round(int(rng.integers(0, 3))) for part in parts]
        image = Image.new("1", size[::-1])
        for part in parts:
            ImageDraw.Draw(image).polygon([(float(x), float(y)) for x, y in part], fill=1)
        assert np.array_equal(polygons(parts)(size).whole(size), np.array(image))


def test_many_small_polygons_of_a_huge_picture_are_drawn_each_in_a_box_of_its_own(tmp_path, monkeypatch):
    corners = [(x, y) for x in range(0, 3000, 300) for y in range(5, 3000, 300)]
    shapes = [
        {"label": f"cell {x} {y}", "points": [[x, y], [x + 20, y], [x + 20, y + 10], [x, y + 10]]}
        for x, y in corners
    ]
    (tmp_path / "a.json").write_text(
        json.dumps({"shapes": shapes, "imagePath": "a.jpg", "imageHeight": 3000, "imageWidth": 3000})
    )
    drawn_on, new = [], Image.new
    monkeypatch.setattr(Image, "new", lambda mode, size: drawn_on.append(size) or new(mode, size))
    mask = read_annotations(tmp_path / "a.json").mask(0)
    assert len(drawn_on) == len(corners)
    assert max(width * height for width, height in drawn_on) < 30 * 20
    boxes = [mask[y : y + 11, x : x + 21] for x, y in corners]
    assert all(box.min() == box.max() for box in boxes)
    assert {int(box[0, 0]) for box in boxes} == {*range(1, len(corners) + 1)}
    assert np.count_nonzero(mask) == len(corners) * 11 * 21


def test_a_plane_that_hangs_over_the_frame_is_cut_off():
    plane = np.ones((4, 5), np.bool_)
    for left, top, inside in ((-2, -1, (3, 3)), (98, 97, (3, 2)), (100, 0, (4, 0)), (-9, -9, (0, 0))):
        there = pasted(plane, left, top)((100, 100))
        assert there.plane.shape == inside
        assert there.whole((100, 100)).sum() == np.prod(inside)


def test_a_small_mask_of_labelme_lies_where_its_points_say(tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.ones((17, 13), bool)).save(file, format="PNG")
    shape = {"label": "cat", "shape_type": "mask", "points": [[8, 8], [20, 24]]}
    shape["mask"] = base64.b64encode(file.getvalue()).decode()
    content = {"shapes": [shape], "imagePath": "00000.jpg", "imageHeight": 32, "imageWidth": 48}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert np.array_equal(read_annotations(tmp_path / "a.json").mask(0), np.where(drawn() == 1, 1, 0))


def test_boxes_and_lines_are_left_out_in_a_line(tmp_path):
    path = a_labelme(tmp_path)
    content = json.loads(path.read_text())
    content["shapes"] += [
        {"label": "cat", "shape_type": k, "points": [[1, 1], [9, 9]]} for k in ("rectangle", "line")
    ]
    path.write_text(json.dumps(content))
    with pytest.warns(InputWarning, match="left out, as they enclose no mask: 1 box, 1 line"):
        assert np.array_equal(read_annotations(path).mask(0), drawn())
    content["shapes"] = content["shapes"][2:3]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"00000\.json has no mask; it has boxes only, which are not masks"):
        read_annotations(path)


def test_of_a_track_the_frames_count_that_somebody_drew(tmp_path):
    found = read_annotations(a_cvat_for_video(tmp_path))
    assert [picture.index for picture in found.pictures] == [0]
    assert found.names == {1: "cat", 2: "dog"}


def test_the_higher_of_two_shapes_has_the_pixels_of_both(tmp_path):
    path = a_cvat_for_images(tmp_path)
    text = path.read_text().replace(TEXT[1][1], TEXT[0][1])
    path.write_text(text)
    assert np.unique(read_annotations(path).mask(0)).tolist() == [0, 2]
    path.write_text(text.replace('z_order="0"', 'z_order="1"', 1))
    assert np.unique(read_annotations(path).mask(0)).tolist() == [0, 1]


def test_a_file_that_does_not_say_how_large_frames_are_asks_for_them(tmp_path, frames, capsys):
    path = str(a_via_project(tmp_path))
    assert main(["masks", "info", path]) == 1
    said = capsys.readouterr().err
    assert "a.json does not say how large its frames are" in said
    assert "--frames VIDEO" in said


def test_annotations_of_another_size_than_the_frame_are_refused(tmp_path, frames):
    path = a_labelme(tmp_path)
    path.write_text(path.read_text().replace('"imageHeight": 32', '"imageHeight": 64'))
    with pytest.raises(ValueError, match="00000 was annotated at 64x48 but its frame is 32x48"):
        read_masks(path, frames)


CUT = {
    "no json": "{",
    "a list": "[1, 2]",
    "other json": '{"a": 1}',
    "shapes of text": '{"shapes": "polygon"}',
    "points of text": '{"shapes": [{"label": "a", "points": "abc"}]}',
    "two points": '{"shapes": [{"label": "a", "points": [[1, 2], [3, 4]]}]}',
    "far points": '{"shapes": [{"label": "a", "points": [[1, 2], [3, 1e30], [5, 5]]}]}',
    "NaN": '{"shapes": [{"label": "a", "points": [[1, 2], [3, NaN], [5, 5]]}]}',
    "a huge frame": '{"shapes": [], "imageHeight": 99999, "imageWidth": 99999}',
    "a path": '{"shapes": [], "imagePath": "a/.."}',
    "no base64": '{"shapes": [{"label": "a", "shape_type": "mask", "points": [[1, 2]], "mask": "?"}]}',
    "images of text": '{"images": "a", "annotations": []}',
    "an image that there is not": '{"images": [], "annotations": [{"image_id": 3}]}',
    "id 0": json.dumps(coco_of([[[1, 1, 9, 1, 9, 9]]], track_id=0)),
    "an id beyond 32 bits": json.dumps(coco_of([[[1, 1, 9, 1, 9, 9]]], track_id=2**40)),
    "regions of text": '{"_via_img_metadata": {"a": {"filename": "a.png", "regions": [3]}}}',
    "tasks of text": '[{"annotations": "a"}]',
    "nested": "[" * 100_000,
}


@pytest.mark.parametrize("case", CUT)
def test_damaged_json_is_refused_by_name(tmp_path, case):
    (tmp_path / "a.json").write_text(CUT[case])
    with pytest.raises(ValueError, match=r"a\.json"):
        read_annotations(tmp_path / "a.json").mask(0, SIZE)


def test_the_smaller_export_of_label_studio_is_named_with_what_to_export(tmp_path):
    task = {"image": "a.png", "id": 1, "label": [{"points": [[1, 1]], "original_width": 9}], "annotator": 1}
    (tmp_path / "a.json").write_text(json.dumps([task]))
    with pytest.raises(ValueError, match=r"a\.json is .* JSON-MIN of Label Studio, .* export as JSON"):
        read_annotations(tmp_path / "a.json")


NINE = '<image name="a.png" width="9" height="9">'
BOMB = '<!DOCTYPE a [<!ENTITY b "cccccccccc">]>'


@pytest.mark.parametrize(
    "text",
    [
        "<annotations><image",
        "<project/>",
        f"{BOMB}<annotations>&b;</annotations>",
        '<annotations><image name="a.png" width="9"></image></annotations>',
        '<annotations><image name="a.png" width="99999" height="99999"></image></annotations>',
        f'<annotations>{NINE}<polygon label="a" points="1,2;x"/></image></annotations>',
        f'<annotations>{NINE}<mask label="a" rle="4" left="0" top="0" width="9" height="9"/></image>'
        "</annotations>",
        '<annotations><track id="0" label="a"><polygon frame="-1" points="1,2;3,4"/></track></annotations>',
        "not <xml",
    ],
)
def test_damaged_xml_is_refused_by_name(tmp_path, text):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(ValueError, match=r"a\.xml"):
        read_annotations(tmp_path / "a.xml").mask(0, SIZE)


@pytest.mark.parametrize(
    "text", ["", "a b c", "0 1 2 3 nan 4 5", "0 0.1 0.2", "0 9 9 9 9 9 9", "-1 0 0 1 1 0 1"]
)
def test_damaged_yolo_is_refused_by_name(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=r"a\.txt"):
        read_annotations(tmp_path / "a.txt").mask(0, SIZE)


def test_boxes_of_yolo_are_said_to_be_boxes(tmp_path):
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(ValueError, match="has no mask; it has boxes only"):
        read_annotations(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "change", [lambda r: r[:9], lambda r: [*r[:5], 300], lambda r: "abc", lambda r: [255] * 60]
)
def test_a_damaged_brush_is_refused(change):
    runs = brush(drawn() == 1)
    assert np.array_equal(decode_brush(runs, SIZE), drawn() == 1)
    with pytest.raises(ValueError, match="brush"):
        decode_brush(change(runs), SIZE)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3, 4, 5), np.uint8),
        np.full((3, 4), 0.5),
        np.full((3, 4), np.nan),
        np.full((3, 4), 2**40),
        np.ones((2, 3, 4), bool),
        np.zeros((0, 4), np.uint8),
        np.array([["a"]]),
        np.array([[None]]),
    ],
)
def test_arrays_that_are_no_mask_are_refused_by_name(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=r"a\.npy cannot be read as a mask"):
        read_arrays(tmp_path / "a.npy")


def test_an_array_that_declares_gigabytes_is_refused_before_they_are_taken(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (30000, 30000)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match="beyond"):
        read_arrays(tmp_path / "a.npy")


def test_a_stack_of_ids_is_a_mask_of_each_frame(tmp_path, frames):
    np.save(tmp_path / "a.npy", np.stack([drawn(), drawn(cat=2, dog=1)]))
    masks = read_masks(tmp_path / "a.npy", frames)
    assert [*masks] == [0, 1]
    assert np.array_equal(masks[1], drawn(cat=2, dog=1))


LISTS = {
    "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\n"
    "cat:250,50,83::\ndog:51,221,255::\n",
    "label_colors.txt": "0 0 0 background\n250 50 83 cat\n51 221 255 dog\n",
    "a.json": '{"cat": "#fa3253", "dog": "#33ddff"}',
    "b.json": '[{"name": "cat", "color": "#fa3253", "id": 3}, {"name": "dog", "color": "#33ddff"}]',
    "c.xml": '<View><BrushLabels name="a"><Label value="cat" background="#FA3253"/>'
    '<Label value="dog" background="#33ddff"/></BrushLabels></View>',
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_labels_number_their_colours_in_order(tmp_path, name):
    (tmp_path / name).write_text(LISTS[name])
    labels = read_labels(tmp_path / name)
    assert labels.names == {1: "cat", 2: "dog"}
    assert labels.colours == {(0, 0, 0): 0, (250, 50, 83): 1, (51, 221, 255): 2}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", ""),
        ("a.txt", "a:b:c"),
        ("a.txt", "cat:1,2,300::"),
        ("a.txt", "1 2 3 cat\n1 2 3 dog"),
        ("a.json", "[1]"),
        ("a.json", '{"a": 3}'),
        ("a.json", '{"a": "red"}'),
        ("a.json", "[" * 100_000),
        ("a.xml", "<View"),
        ("a.xml", f"{BOMB}<View/>"),
    ],
)
def test_a_list_of_labels_that_is_none_is_refused_by_name(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name} is not a list of labels"):
        read_labels(tmp_path / name)


def test_a_colour_that_the_list_does_not_have_is_named(tmp_path, frames):
    home = an_export_of_cvat_in_colours(tmp_path)
    (home / "labelmap.txt").write_text("cat:250,50,83::\n")
    with pytest.raises(
        ValueError, match=r"00000\.png has 1 colours that .*labelmap\.txt does not list.*#33ddff in 121"
    ):
        read_masks(home, frames)


def test_colours_without_a_list_are_numbered_if_that_is_asked_for(tmp_path, capsys):
    home = an_export_of_cvat_in_colours(tmp_path)
    (home / "labelmap.txt").unlink()
    assert main(["masks", "info", str(home)]) == 1
    said = capsys.readouterr()
    assert "colours without numbers: #fa3253, #33ddff" in said.out
    assert "--number-colours" in said.err
    assert main(["masks", "convert", str(home), "--out", str(tmp_path / "o"), "--number-colours"]) == 0
    assert np.array_equal(read_mask(tmp_path / "o" / "00000.png"), drawn())
    assert "1: #fa3253\n2: #33ddff" in capsys.readouterr().out
    arguments = ["masks", "convert", str(home), "--out", str(tmp_path / "p"), "--number-colours"]
    assert main([*arguments, "--background", "#33ddff"]) == 0
    assert np.unique(read_mask(tmp_path / "p" / "00000.png")).tolist() == [0, 1, 2]
    assert main([*arguments, "--background", "blue"]) == 1
    assert "'blue' is not a colour" in capsys.readouterr().err


def test_smoothed_colours_are_refused_however_they_are_asked_for(tmp_path, capsys):
    picture = Image.new("RGB", (480, 320))
    picture.paste((250, 50, 83), (70, 80, 201, 222))
    picture.resize((48, 32), Image.Resampling.BICUBIC).rotate(20, Image.Resampling.BICUBIC).save(
        tmp_path / "a.png"
    )
    for options in ([], ["--number-colours"]):
        assert (
            main(["masks", "convert", str(tmp_path / "a.png"), "--out", str(tmp_path / "o"), *options]) == 1
        )
        assert "looks anti-aliased or compressed" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_masks_of_cvat_are_those_of_a_video_by_their_number(tmp_path):
    pages = [Image.new("RGB", (SIZE[1], SIZE[0]), (20 + 30 * i, 90, 90)) for i in range(4)]
    pages[0].save(tmp_path / "v.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "m").mkdir()
    for i, mask in enumerate((np.zeros(SIZE, np.int32), drawn(), np.zeros(SIZE, np.int32))):
        write_mask(tmp_path / "m" / f"frame_{i:06d}.png", mask)
    with pytest.warns(InputWarning) as notes:
        masks = read_masks(tmp_path / "m", open_frames(tmp_path / "v.tif"))
    assert [*masks] == [1]
    said = sorted(str(note.message) for note in notes)
    assert said[0].endswith("by the number in their names: frame_000001 for frame 00001")
    assert said[1] == "masks without an object are left out: frame_000000, frame_000002"


@pytest.mark.parametrize("name", ["00010_mask", "video_00010", "mask-10"])
def test_masks_are_found_by_the_number_of_frames_that_have_names(tmp_path, name):
    frames = open_frames(frames_at(tmp_path / "f", ["img_00005", "img_00010", "img_00015"]))
    (tmp_path / "m").mkdir()
    write_mask(tmp_path / "m" / f"{name}.png", drawn())
    with pytest.warns(InputWarning, match=f"{name} for frame img_00010"):
        assert [*read_masks(tmp_path / "m", frames)] == [1]


@pytest.mark.parametrize("name", ["img_00011", "a_2_00010", "none"])
def test_a_mask_whose_frame_is_not_there_or_in_doubt_is_refused(tmp_path, name):
    frames = open_frames(frames_at(tmp_path / "f", ["img_00005", "img_00010", "img_00015"]))
    (tmp_path / "m").mkdir()
    write_mask(tmp_path / "m" / f"{name}.png", drawn())
    with pytest.raises(ValueError, match="which the video does not have; name masks like their frames"):
        read_masks(tmp_path / "m", frames)


def test_masks_without_an_object_are_refused_if_there_are_no_others(tmp_path, frames):
    (tmp_path / "m").mkdir()
    write_mask(tmp_path / "m" / "00001.png", np.zeros(SIZE, np.int32))
    with pytest.raises(ValueError, match=r"00001\.png is empty"):
        read_masks(tmp_path / "m", frames)


def test_one_mask_that_is_named_as_a_later_frame_is_of_that_frame(tmp_path, capsys):
    folder = frames_at(tmp_path / "f", [f"{i:05d}" for i in range(4)])
    write_mask(tmp_path / "00002.png", drawn())
    arguments = [
        "segment",
        folder,
        "--mask",
        tmp_path / "00002.png",
        "--out",
        tmp_path / "out",
        "--size",
        "32",
    ]
    assert main([*map(str, arguments), "--quiet"]) == 0
    assert (
        "00002.png is named as frame 2, counted from 0, and is the mask of that frame"
        in capsys.readouterr().err
    )
    assert not read_mask(tmp_path / "out" / "00001.png").any()
    assert np.array_equal(read_mask(tmp_path / "out" / "00002.png"), drawn())


def test_one_mask_of_any_other_name_is_of_the_first_frame(tmp_path, frames):
    for name in ("00000", "first", "2", "00009"):
        write_mask(tmp_path / f"{name}.png", drawn())
        assert np.array_equal(read_masks(tmp_path / f"{name}.png", frames), drawn())


def paletted(mask, colours):
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(np.array(colours, np.uint8).tobytes())
    return image


RED, WHITE, BLACK = (220, 30, 20), (255, 255, 255), (0, 0, 0)


@pytest.mark.parametrize(
    ("mask", "colours", "options", "ids"),
    [
        (drawn(cat=0, dog=2) + (drawn() == 0), [RED, BLACK, (9, 200, 9)], {}, {"cat": 1, "dog": 2}),
        (
            drawn(cat=0, dog=2) + (drawn() == 0),
            [RED, (9, 9, 9), (9, 200, 9)],
            {"transparency": 1},
            {"cat": 1, "dog": 2},
        ),
        (drawn(cat=2, dog=1), [BLACK, (0, 128, 0), (128, 0, 0)], {}, {"cat": 1, "dog": 2}),
        (drawn(cat=1, dog=2), [BLACK, (0, 128, 0), (0, 0, 128)], {}, {"cat": 2, "dog": 4}),
        (drawn(), [WHITE, BLACK, RED], {}, {"cat": 1, "dog": 2}),
        (drawn(), [BLACK, RED, WHITE], {}, {"cat": 1, "dog": 2}),
        (drawn(), [(3, 4, 5), RED, WHITE], {}, {"cat": 1, "dog": 2}),
    ],
)
@pytest.mark.filterwarnings("ignore::emavos.io.InputWarning")
def test_the_background_of_a_palette_is_0_wherever_its_entry_lies(tmp_path, mask, colours, options, ids):
    paletted(mask, colours).save(tmp_path / "a.png", **options)
    assert np.array_equal(read_mask(tmp_path / "a.png"), drawn(**ids))


def test_a_palette_that_is_read_otherwise_than_by_its_numbers_is_told(tmp_path):
    paletted(drawn(cat=0, dog=2) + (drawn() == 0), [RED, BLACK, (9, 200, 9)]).save(tmp_path / "a.png")
    with pytest.warns(InputWarning, match=r"a\.png: entry 1 of its palette is taken for the background"):
        read_mask(tmp_path / "a.png")
    paletted(drawn(cat=2, dog=1), [BLACK, (0, 128, 0), (128, 0, 0)]).save(tmp_path / "a.png")
    with pytest.warns(InputWarning, match=r"a\.png has the palette of DAVIS in another order"):
        read_mask(tmp_path / "a.png")


def test_names_in_files_of_strangers_lead_nowhere_and_steer_no_terminal(tmp_path, capsys):
    path = a_labelme(tmp_path)
    for name in ("../../evil.png", "..\\\\evil.png", "/tmp/evil.png"):
        path.write_text(
            a_labelme(tmp_path).read_text().replace("00000.jpg", name).replace('"cat"', '"\\u001b[2J"')
        )
        assert main(["masks", "convert", str(path), "--out", str(tmp_path / "o"), "--force"]) == 0
        assert [file.name for file in (tmp_path / "o").iterdir()] == ["evil.png"]
    assert "\x1b" not in capsys.readouterr().out


def brush_files(folder, kind):
    """Brushes as Label Studio names its files: two of the last annotation, and one of an earlier one."""
    folder.mkdir()
    planes = np.zeros((3, *SIZE), np.uint8)
    planes[0, 2:6, 2:9], planes[1, 8:12, 2:9], planes[2, :, 20:] = 255, 255, 255
    planes[0, 6, 2:9] = 90  # a soft edge counts, as in the export as JSON
    ends = ("12-by-1-tag-cat-0", "12-by-me@x.org-tag-my-dog-0", "3-by-1-tag-cat-0")
    for plane, end in zip(planes, ends, strict=True):
        path = folder / f"task-7-annotation-{end}.{kind}"
        np.save(path, plane) if kind == "npy" else Image.fromarray(plane).save(path)
    return folder


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_brushes_that_label_studio_exports_as_files_are_one_mask(tmp_path, frames, kind, capsys):
    folder = brush_files(tmp_path / "brushes", kind)
    mask = read_masks(folder, frames)
    assert {id: int((mask == id).sum()) for id in (1, 2)} == {1: 35, 2: 28}
    assert (mask[:, 20:] == 0).all()  # of an annotation before the last
    assert main(["masks", "info", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["1: cat", "2: my-dog"]
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(folder / "task-8-annotation-13-by-1-tag-cat-0.png")
    with pytest.raises(ValueError, match=r"has brushes of 2 tasks, .*; export JSON instead"):
        read_masks(folder, frames)


def test_a_pickle_in_a_npy_is_not_opened_and_the_way_out_is_named(tmp_path):
    np.save(tmp_path / "a_seg.npy", {"masks": np.ones(SIZE)}, allow_pickle=True)
    with pytest.raises(
        ValueError, match=r"a_seg\.npy cannot be read as a mask: it is a pickle.*_cp_masks\.png"
    ):
        read_arrays(tmp_path / "a_seg.npy")
