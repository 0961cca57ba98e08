import json
from dataclasses import replace
from inspect import signature

import numpy as np
import pytest
from PIL import Image

from emavos.evaluation import PROTOCOLS, find_videos
from emavos.evaluation.layouts import seen_categories
from emavos.io import write_mask
from emavos.memory import MemoryPolicy
from emavos.predictor import Predictor
from trees import davis_tree, youtube_tree

MASK = np.zeros((8, 12), np.int32)
MASK[2:6, 2:6] = 1
MASK[2:6, 7:10] = 2


def write_sequence(root, images, masks, name, frames=3, annotated=1, mask=MASK, start=0, digits=5):
    for folder in (root / images / name, root / masks / name):
        folder.mkdir(parents=True, exist_ok=True)
    for t in range(start, start + frames):
        Image.new("RGB", (12, 8)).save(root / images / name / f"{t:0{digits}d}.jpg")
    for t in range(start, start + annotated):
        write_mask(root / masks / name / f"{t:0{digits}d}.png", mask)


def write_list(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def test_every_protocol_has_its_own_name_and_says_what_it_is():
    assert all(name == protocol.name and protocol.about for name, protocol in PROTOCOLS.items())


def test_protocols_that_are_no_benchmark_of_short_videos_follow_as_the_library_does():
    for name in ("davis-like", "lvos"):
        protocol, policy = PROTOCOLS[name], MemoryPolicy()
        assert (protocol.every, protocol.max_frames) == (policy.every, policy.max_frames)
        assert protocol.size == signature(Predictor).parameters["size"].default
    long = ("davis-like", "lvos", "burst-val", "burst-test")
    assert all(p.max_frames is None for p in PROTOCOLS.values() if p.name not in long)


def test_davis_2017_takes_the_sequences_of_its_list_at_480p(tmp_path):
    for name in ("judo", "bear", "camel"):
        write_sequence(tmp_path, "JPEGImages/480p", "Annotations/480p", name, annotated=3)
    write_list(tmp_path / "ImageSets/2017/val.txt", "judo", "camel")
    judo, camel = find_videos(tmp_path, PROTOCOLS["davis-2017-val"])
    assert (judo.name, camel.name) == ("judo", "camel")
    assert judo.wanted == ("00000", "00001", "00002")
    assert [path.name for path in judo.truths] == ["00000.png", "00001.png", "00002.png"]
    assert [*judo.given()] == [0]


@pytest.mark.parametrize("path", ["ImageSets/2016/val.txt", "ImageSets/480p/val.txt"])
def test_davis_2016_has_one_object_whatever_its_masks_hold(tmp_path, path):
    write_sequence(tmp_path, "JPEGImages/480p", "Annotations/480p", "cow", mask=MASK * 100, annotated=3)
    frame = "/JPEGImages/480p/cow/00000.jpg /Annotations/480p/cow/00000.png"
    write_list(tmp_path / path, "cow" if "2016" in path else frame)
    (cow,) = find_videos(tmp_path, PROTOCOLS["davis-2016-val"])
    first, *others = [mask for _, mask in cow.introductions()]
    np.testing.assert_array_equal(first, MASK > 0)
    assert others == [None, None]


def test_test_dev_keeps_every_third_frame_and_has_no_truth(tmp_path):
    write_sequence(tmp_path, "JPEGImages/480p", "Annotations/480p", "aerobatics")
    write_list(tmp_path / "ImageSets/2017/test-dev.txt", "aerobatics")
    protocol = PROTOCOLS["davis-2017-test-dev"]
    (video,) = find_videos(tmp_path, protocol)
    assert protocol.every == 3
    assert not video.truths
    assert len(video.wanted) == 3


def test_a_mask_that_was_given_leaves_void_out(tmp_path):
    write_sequence(
        tmp_path, "JPEGImages/480p", "Annotations/480p", "one", mask=np.where(MASK == 2, 255, MASK)
    )
    (video,) = find_videos(tmp_path, PROTOCOLS["davis-like"])
    np.testing.assert_array_equal(next(video.introductions())[1], MASK == 1)


@pytest.mark.parametrize(
    ("year", "more"), [("2018", ""), ("2019", ""), ("2018", "-all-frames"), ("2019", "-all-frames")]
)
def test_youtube_wants_the_frames_of_meta_json_and_introduces_objects_where_they_appear(tmp_path, year, more):
    ab, cd = find_videos(youtube_tree(tmp_path), PROTOCOLS[f"youtube-vos-{year}{more}"])
    assert (ab.name, cd.name) == ("ab", "cd")
    assert ab.wanted == ("00000", "00005", "00010", "00015")
    assert cd.wanted == ("00005", "00010", "00015")
    assert len(ab.images) == (16 if more else 4)
    begins = {path.stem: np.unique(mask).tolist() for path, mask in ab.introductions() if mask is not None}
    assert begins == {"00000": [0, 1, 2], "00005": [0, 3]}
    assert not ab.truths


def test_youtube_with_its_truth_still_gives_only_what_is_new(tmp_path):
    ab, cd = find_videos(youtube_tree(tmp_path, truth=True), PROTOCOLS["youtube-vos-2019"])
    begins = {path.stem: np.unique(mask).tolist() for path, mask in ab.introductions() if mask is not None}
    assert begins == {"00000": [0, 1, 2], "00005": [0, 3]}
    assert [path.stem for path in ab.truths] == ["00000", "00005", "00010", "00015"]
    assert [path.stem for path in cd.truths] == ["00005", "00010", "00015"]


@pytest.mark.parametrize("inside", ["", "valid"])
def test_youtube_is_found_from_its_root_and_from_the_folder_of_the_split(tmp_path, inside):
    root = youtube_tree(tmp_path) / inside
    for more in ("", "-all-frames"):
        assert len(find_videos(root, PROTOCOLS[f"youtube-vos-2018{more}"])) == 2
    assert seen_categories(root, PROTOCOLS["youtube-vos-2018"]) == {"star", "ball"}


def test_frames_end_with_the_last_that_is_wanted(tmp_path):
    root = youtube_tree(tmp_path)
    meta = json.loads((root / "valid/meta.json").read_text())
    for one in meta["videos"]["ab"]["objects"].values():
        one["frames"] = [name for name in one["frames"] if name < "00015"]
    (root / "valid/meta.json").write_text(json.dumps(meta))
    ab, _ = find_videos(root, PROTOCOLS["youtube-vos-2018-all-frames"])
    assert [path.stem for path, _ in ab.introductions()][-1] == "00010"


@pytest.mark.parametrize(
    "spoiled", ["not json", "[]", '{"videos": {"ab": {}}}', '{"videos": {"ab": {"objects": {"x": {}}}}}']
)
def test_a_spoiled_meta_json_is_named(tmp_path, spoiled):
    root = youtube_tree(tmp_path)
    (root / "valid/meta.json").write_text(spoiled)
    with pytest.raises(ValueError, match=r"valid/meta.json is not a meta.json of YouTube-VOS"):
        find_videos(root, PROTOCOLS["youtube-vos-2018"])


def test_a_frame_that_meta_json_asks_for_and_the_data_lacks_is_named(tmp_path):
    root = youtube_tree(tmp_path)
    (root / "valid/JPEGImages/ab/00010.jpg").unlink()
    with pytest.raises(ValueError, match=r"meta.json asks for frame 00010 of ab, which is not there"):
        find_videos(root, PROTOCOLS["youtube-vos-2018"])


@pytest.mark.parametrize(
    ("name", "folder"), [("lvos", "valid"), ("lvos", "val"), ("lvos", "."), ("mose", "valid"), ("mose", ".")]
)
def test_lvos_and_mose_are_folders_of_sequences(tmp_path, name, folder):
    write_sequence(tmp_path / folder, "JPEGImages", "Annotations", "boat", start=1, digits=8)
    write_sequence(tmp_path / folder, "JPEGImages", "Annotations", "swan", start=1, digits=8, annotated=3)
    boat, swan = find_videos(tmp_path, PROTOCOLS[name])
    assert boat.wanted == ("00000001", "00000002", "00000003")
    assert not boat.truths
    assert len(swan.truths) == 3


def test_objects_of_lvos_begin_in_the_first_mask_that_shows_them(tmp_path):
    write_sequence(tmp_path, "JPEGImages", "Annotations", "swan", frames=4, mask=MASK % 2)
    write_mask(tmp_path / "Annotations/swan/00002.png", MASK)
    (swan,) = find_videos(tmp_path, PROTOCOLS["lvos"])
    masks = [mask for _, mask in swan.introductions()]
    np.testing.assert_array_equal(masks[0], MASK == 1)
    np.testing.assert_array_equal(masks[2], np.where(MASK == 2, 2, 0))
    assert masks[1] is masks[3] is None


@pytest.mark.parametrize("nested", ["480p", "."])
def test_any_folder_that_looks_like_davis_is_taken_whole(tmp_path, nested):
    for name in ("b", "a", "c"):
        write_sequence(tmp_path, f"JPEGImages/{nested}", f"Annotations/{nested}", name)
    assert [video.name for video in find_videos(tmp_path, PROTOCOLS["davis-like"])] == ["a", "b", "c"]
    assert [v.name for v in find_videos(tmp_path, PROTOCOLS["davis-like"], ["c", "a"])] == ["a", "c"]


def test_what_is_not_there_is_named(tmp_path):
    protocol = PROTOCOLS["davis-like"]
    with pytest.raises(
        ValueError, match="has no Annotations/480p or Annotations, where davis-like keeps its masks"
    ):
        find_videos(tmp_path, protocol)
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(ValueError, match="has no JPEGImages/480p or JPEGImages, where davis-like keeps its"):
        find_videos(tmp_path, protocol)
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(ValueError, match="Annotations holds no sequences"):
        find_videos(tmp_path, protocol)
    (tmp_path / "Annotations/cow").mkdir()
    with pytest.raises(ValueError, match="JPEGImages has no images of cow"):
        find_videos(tmp_path, protocol)
    write_sequence(tmp_path, "JPEGImages", "Annotations", "cow", annotated=0)
    with pytest.raises(ValueError, match=r"Annotations has no \*.png of cow"):
        find_videos(tmp_path, protocol)
    write_sequence(tmp_path, "JPEGImages", "Annotations", "cow")
    with pytest.raises(ValueError, match="davis-like has no sequence ape; it has cow"):
        find_videos(tmp_path, protocol, ["ape"])
    with pytest.raises(
        ValueError, match=r"has no valid/meta.json or meta.json, which youtube-vos-2018 needs"
    ):
        find_videos(tmp_path, PROTOCOLS["youtube-vos-2018"])


def test_a_mask_that_is_named_as_no_frame_is_named(tmp_path):
    write_sequence(tmp_path, "JPEGImages", "Annotations", "cow")
    (tmp_path / "Annotations/cow/00000.png").rename(tmp_path / "Annotations/cow/7.png")
    (video,) = find_videos(tmp_path, PROTOCOLS["davis-like"])
    with pytest.raises(ValueError, match=r"cow/7.png does not have the name of a frame of .*JPEGImages/cow"):
        video.given()


def test_two_images_of_one_frame_are_refused(tmp_path):
    write_sequence(tmp_path, "JPEGImages", "Annotations", "cow")
    Image.new("RGB", (12, 8)).save(tmp_path / "JPEGImages/cow/00001.png")
    with pytest.raises(ValueError, match=r"holds both 00001.* and 00001.*; keep one"):
        find_videos(tmp_path, PROTOCOLS["davis-like"])


@pytest.mark.parametrize("protocol", ["davis-like", "mose"])
def test_a_video_whose_masks_show_no_object_is_refused(tmp_path, protocol):
    write_sequence(tmp_path, "JPEGImages", "Annotations", "cow", mask=MASK * 0 + 255)
    (video,) = find_videos(tmp_path, PROTOCOLS[protocol])
    with pytest.raises(ValueError, match=r"cow/00000.png has no object; if 255 is the object and not void"):
        list(video.introductions())
    (video,) = find_videos(tmp_path, replace(PROTOCOLS[protocol], binary=True))
    assert next(video.introductions())[1].all()


def test_masks_alone_will_do_for_a_score(tmp_path):
    root = davis_tree(tmp_path, {"one": 3})
    for path in (root / "JPEGImages/480p/one").iterdir():
        path.unlink()
    (video,) = find_videos(root, PROTOCOLS["davis-like"], images=False)
    assert len(video.truths) == 3
    with pytest.raises(ValueError, match="has no images of one"):
        find_videos(root, PROTOCOLS["davis-like"])


@pytest.mark.parametrize("name", ["../../elsewhere", "/tmp/elsewhere", "..", "a\\b", ""])
def test_a_name_that_leads_out_of_the_folder_of_results_is_refused(tmp_path, name):
    root = youtube_tree(tmp_path)
    meta = json.loads((root / "valid/meta.json").read_text())
    meta["videos"][name] = meta["videos"].pop("ab")
    (root / "valid/meta.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="cannot be the name of a sequence"):
        find_videos(root, PROTOCOLS["youtube-vos-2018"])
