from __future__ import annotations

import io
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch

from emavos import Predictor, Result
from emavos.bridges import read_layout, read_stack, stack_masks, to_detections, write_stack
from trees import davis_tree, youtube_tree


def result(mask, ids):
    planes = torch.stack([torch.from_numpy(mask == id) for id in (0, *ids)]).float()
    return Result(0, ids, 0.8 * planes + 0.2 / len(planes), (0.9,) * len(ids))


@pytest.fixture
def mask():
    mask = np.zeros((12, 20), np.int32)
    mask[2:6, 3:9], mask[8:11, 10:19] = 4, 900
    return mask


def test_detections_keep_ids_planes_and_boxes(mask):
    pytest.importorskip("supervision")
    found = to_detections(result(mask, (900, 5, 4)))  # object 5 is not seen
    assert found.tracker_id.tolist() == [900, 4]
    np.testing.assert_array_equal(found.mask, [mask == 900, mask == 4])
    assert found.xyxy.tolist() == [[10, 8, 18, 10], [3, 2, 8, 5]]
    np.testing.assert_allclose(found.confidence, 0.8 + 0.2 / 4)
    assert found.class_id.tolist() == [0, 0]


def test_a_frame_without_objects_has_no_detections(mask):
    supervision = pytest.importorskip("supervision")
    assert len(to_detections(result(np.zeros_like(mask), (4,)))) == 0
    both = [to_detections(result(m, (4, 900))) for m in (mask, np.zeros_like(mask))]
    assert len(supervision.Detections.merge(both)) == 2


def test_without_supervision_the_extra_is_named(mask, without_package):
    without_package("supervision")
    with pytest.raises(ImportError, match=r"\[supervision\]"):
        to_detections(result(mask, (4, 900)))


def test_a_stack_brings_back_its_masks_and_names(tmp_path, mask):
    write_stack(tmp_path / "a.npz", [mask, result(mask, (4, 900))], names=["first", "second"])
    masks, names = read_stack(tmp_path / "a.npz")
    assert names == ["first", "second"]
    assert masks.dtype == np.uint16
    np.testing.assert_array_equal(masks, [mask, mask])
    write_stack(tmp_path / "b.npz", [mask, mask], names=["first", "second"])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_a_stack_has_the_smallest_type_that_holds_all_ids(mask):
    assert stack_masks([mask == 4]).dtype == np.uint8
    assert stack_masks([np.where(mask == 4, -1, 0), mask]).dtype == np.int32
    np.testing.assert_array_equal(stack_masks([mask, 0 * mask]), [mask, 0 * mask])


def test_what_is_no_stack_is_refused(tmp_path, mask):
    for wrong in ([], [mask, mask[1:]], [mask * 0.5], [mask[None]]):
        with pytest.raises(ValueError, match="mask"):
            stack_masks(wrong)
    with pytest.raises(ValueError, match="1 names are given for 2"):
        write_stack(tmp_path / "a.npz", [mask, mask], names=["one"])
    with pytest.raises(ValueError, match=r"not named \.npz"):
        write_stack(tmp_path / "a.npy", [mask])
    np.savez(tmp_path / "other.npz", masks=np.zeros(3))
    np.save(tmp_path / "array.npz", np.zeros(3))
    (tmp_path / "array.npz.npy").rename(tmp_path / "array.npz")
    (tmp_path / "text.npz").write_text("no")
    np.savez(tmp_path / "object.npz", masks=np.array([{}]), names=np.array(["a"]))
    for name in ("other", "array", "text", "object"):
        with pytest.raises(ValueError, match=f"{name}.npz cannot be read as a stack"):
            read_stack(tmp_path / f"{name}.npz")


def test_a_stack_with_any_byte_changed_is_read_or_refused(tmp_path, mask):
    file = tmp_path / "a.npz"
    write_stack(file, [mask])
    content = file.read_bytes()
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        with suppress(ValueError):
            read_stack(file)


def test_a_stack_that_declares_more_than_a_memory_holds_is_refused_by_name(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**5, 10**4)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("masks.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as a stack of masks"):
        read_stack(tmp_path / "a.npz")


def test_a_davis_layout_gives_its_first_masks_alone(tmp_path):
    davis_tree(tmp_path, {"one": 3, "two": 2})
    clips = list(read_layout(tmp_path))
    assert [(clip.name, len(clip.images), list(clip.masks)) for clip in clips] == [
        ("one", 3, [0]),
        ("two", 2, [0]),
    ]
    predictor = Predictor.from_pretrained(device="cpu", size=48)
    results = list(predictor.propagate(clips[1].frames(), clips[1].masks))
    np.testing.assert_array_equal(results[0].mask, clips[1].masks[0])
    assert len(results) == 2
    assert [clip.name for clip in read_layout(tmp_path, names=["two"])] == ["two"]
    with pytest.raises(ValueError, match="no protocol other"):
        list(read_layout(tmp_path, "other"))


def test_a_youtube_layout_gives_objects_where_they_begin(tmp_path):
    youtube_tree(tmp_path, truth=True)
    clips = {clip.name: clip for clip in read_layout(tmp_path, "youtube-vos-2019")}
    begin = {
        name: {i: np.unique(mask).tolist() for i, mask in clip.masks.items()} for name, clip in clips.items()
    }
    assert begin == {"ab": {0: [0, 1, 2], 1: [0, 3]}, "cd": {1: [0, 1]}}
