from __future__ import annotations

import errno
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from emavos.bridges import CocoWriter, decode_rle, encode_rle, read_coco

PLANES = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=70))


@given(PLANES)
def test_what_is_decoded_is_what_was_encoded(plane):
    np.testing.assert_array_equal(decode_rle(encode_rle(plane)), plane)


@given(PLANES)
def test_runs_are_those_of_pycocotools(plane):
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(plane.astype(np.uint8)))
    assert encode_rle(plane) == {"size": [*plane.shape], "counts": theirs["counts"].decode()}
    np.testing.assert_array_equal(decode_rle(theirs), plane)


def test_long_runs_and_both_ends_survive():
    for corner in (np.s_[:1, :1], np.s_[-1:, -1:], np.s_[:, 700:900], np.s_[:, :]):
        plane = np.zeros((1000, 1500), bool)
        plane[corner] = True
        np.testing.assert_array_equal(decode_rle(encode_rle(plane)), plane)


def test_runs_that_are_a_list_are_read_too():
    np.testing.assert_array_equal(
        decode_rle({"size": [2, 3], "counts": [1, 2, 3]}), [[False, True, False], [True, False, False]]
    )


@given(st.text(max_size=20) | st.lists(st.integers(), max_size=5), st.integers(1, 9), st.integers(1, 9))
def test_runs_that_are_none_are_a_value_error_or_fill_the_plane(counts, height, width):
    try:
        plane = decode_rle({"size": [height, width], "counts": counts})
    except ValueError:
        return
    assert plane.shape == (height, width)


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [2, 2]},
        {"size": [2, 2], "counts": "4a"},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2, 2], "counts": [[4]]},
        {"size": [0, 2], "counts": ""},
        {"size": [2], "counts": [2]},
        {"size": [100_000, 100_000], "counts": [10_000_000_000]},
        {"size": [2, 2], "counts": "oooooooooooooooooooooooo"},
        {"size": [2, 2], "counts": 4},
        "04",
        None,
    ],
)
def test_runs_that_are_wrong_are_refused(rle):
    with pytest.raises(ValueError, match="run-length encoding"):
        decode_rle(rle)


@pytest.fixture
def masks():
    masks = np.zeros((3, 20, 30), np.int32)
    masks[0, 2:9, 3:11], masks[0, 12:, 20:] = 7, 300
    masks[2, 5:6, 5:6] = 7
    return masks


def write_all(coco, masks):
    for index, mask in enumerate(masks):
        coco.write(f"{index:05d}", mask)


def write(path, masks):
    with CocoWriter(path) as coco:
        write_all(coco, masks)


def test_a_file_brings_back_its_names_and_masks(tmp_path, masks):
    write(tmp_path / "masks.json", masks)
    back = dict(read_coco(tmp_path / "masks.json"))
    assert list(back) == ["00000", "00001", "00002"]
    np.testing.assert_array_equal(np.stack([*back.values()]), masks)


def test_equal_masks_give_equal_bytes(tmp_path, masks):
    write(tmp_path / "a.json", masks)
    write(tmp_path / "b.json", masks)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools itself
def test_pycocotools_reads_the_file(tmp_path, masks, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    write(tmp_path / "masks.json", masks)
    file = coco.COCO(tmp_path / "masks.json")
    annotations = file.loadAnns(file.getAnnIds(imgIds=[1]))
    assert [a["track_id"] for a in annotations] == [7, 300]
    for annotation in annotations:
        plane = masks[0] == annotation["track_id"]
        np.testing.assert_array_equal(file.annToMask(annotation), plane)
        rle = {**annotation["segmentation"], "counts": annotation["segmentation"]["counts"].encode()}
        assert coco.maskUtils.area(rle) == annotation["area"] == plane.sum()
        assert coco.maskUtils.toBbox(rle).tolist() == annotation["bbox"]
    capsys.readouterr()  # it prints


def test_a_file_does_not_appear_where_its_block_fails(tmp_path, masks):
    with pytest.raises(AttributeError), CocoWriter(tmp_path / "masks.json") as coco:
        write_all(coco, [masks[0], None])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(111, "refused"), OSError(28, "no space"), ValueError()], ids=repr
)
def test_what_fails_in_the_block_is_not_blamed_on_the_file(tmp_path, error):
    def fail():
        raise error

    with pytest.raises(type(error)) as raised, CocoWriter(tmp_path / "masks.json"):
        fail()
    assert raised.value is error
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_names_the_file(tmp_path, masks):
    class Full:
        def write(self, text):
            raise OSError(errno.ENOSPC, "no space")

    with CocoWriter(tmp_path / "masks.json") as coco:
        file, coco._file = coco._file, Full()
        with pytest.raises(OSError, match=r"masks\.json") as raised:
            coco.write("00000", masks[0])
        coco._file = file
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("mask", [np.ones((4, 4)), np.ones((1, 4, 4), int)], ids=["floats", "three axes"])
def test_a_mask_that_holds_no_ids_is_refused(tmp_path, mask):
    with pytest.raises(ValueError, match=r"a mask is \(H, W\) of integers"):
        write(tmp_path / "masks.json", [mask])


def test_the_id_of_a_plane_of_bool_is_1(tmp_path):
    write(tmp_path / "masks.json", [np.eye(4, dtype=bool)])
    (annotation,) = json.loads((tmp_path / "masks.json").read_text())["annotations"]
    assert annotation["track_id"] is not True
    assert annotation["track_id"] == 1


def test_a_video_without_objects_is_a_file_without_annotations(tmp_path):
    write(tmp_path / "masks.json", np.zeros((2, 4, 4), np.int32))
    assert json.loads((tmp_path / "masks.json").read_text())["annotations"] == []
    assert len(list(read_coco(tmp_path / "masks.json"))) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"images": [], "annotations": [{"image_id": 1}]}',
        '{"images": [{"id": 1, "file_name": "a.png", "height": 2, "width": 2}], "annotations": '
        '[{"image_id": 1, "segmentation": [[0, 0, 1, 1]], "track_id": 1}]}',
        '{"images": [{"id": 1, "file_name": "a.png", "height": 3, "width": 2}], "annotations": '
        '[{"image_id": 1, "segmentation": {"size": [2, 2], "counts": [4]}, "track_id": 1}]}',
        '{"images": [{"id": 1}], "annotations": []}',
    ],
)
def test_another_file_is_refused_by_name(tmp_path, text):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ValueError, match=r"other\.json"):
        list(read_coco(tmp_path / "other.json"))


IMAGE = {"id": 1, "file_name": "a.png", "height": 2, "width": 2}
ONE = {"image_id": 1, "segmentation": {"size": [2, 2], "counts": [0, 4]}}


@pytest.mark.parametrize(
    ("images", "annotations", "words"),
    [
        ([IMAGE], [ONE | {"track_id": 0}], "other than 0, the background, not 0"),
        ([IMAGE], [ONE | {"track_id": None}], "not None"),
        ([IMAGE], [ONE], "not None"),
        ([IMAGE], [ONE | {"track_id": 1.5}], "not 1.5"),
        ([IMAGE], [ONE | {"track_id": 2**31}], "32 bits"),
        ([IMAGE, IMAGE | {"file_name": "b.png"}], [], "two images have one id"),
        ([IMAGE | {"height": 10**7, "width": 10**7}], [], "image 1: the size"),
        ([{"id": 1}], [], "image 1: there is no 'height'"),
        ([IMAGE], [ONE | {"track_id": 1, "segmentation": [[0, 0, 1, 0]]}], "three points or more"),
    ],
)
def test_what_would_lose_an_object_or_a_frame_is_refused(tmp_path, images, annotations, words):
    (tmp_path / "other.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    with pytest.raises(ValueError, match=rf"other\.json.*{words}"):
        list(read_coco(tmp_path / "other.json"))
