import json
import shutil

import numpy as np
import pytest
from PIL import Image

from emavos.evaluation import (
    PROTOCOLS,
    Protocol,
    boundary_accuracy,
    find_videos,
    region_similarity,
    score_folder,
    score_sequence,
    statistics,
)
from emavos.io import read_mask
from trees import youtube_tree

SIZE = (24, 36)


def video(frames, objects=2, speed=1):
    """Masks of boxes side by side that move down."""
    masks = np.zeros((frames, *SIZE), np.int32)
    for t in range(frames):
        for i in range(1, objects + 1):
            masks[t, 2 + speed * t : 10 + speed * t, 10 * i - 8 : 10 * i] = i
    return masks


def write(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(mask, np.uint8))
    if mask.max() <= 3:
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    image.save(path)


def write_video(folder, masks):
    for t, mask in enumerate(masks):
        write(folder / f"{t:05d}.png", mask)


@pytest.fixture
def tree(tmp_path):
    """A DAVIS tree of two sequences, and results for it in the folder beside it."""
    lists = tmp_path / "DAVIS" / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("cow\nape\n\n")
    (lists / "train.txt").write_text("ape\n")
    for sequence, objects in (("cow", 2), ("ape", 1)):
        write_video(tmp_path / "DAVIS" / "Annotations" / "480p" / sequence, video(6, objects))
        write_video(tmp_path / "results" / sequence, video(6, objects, speed=0))
    return tmp_path


def evaluate(tree, data="DAVIS", split="2017/val", resolution="480p", binary=False, **settings):
    protocol = Protocol(
        "test", masks=(f"Annotations/{resolution}",), lists=(f"ImageSets/{split}.txt",), binary=binary
    )
    return score_folder(tree / data, tree / "results", protocol, **settings)


def change(path, edit):
    mask = np.array(Image.open(path))
    edit(mask)
    write(path, mask)


def test_a_small_tree_has_the_official_score(parity):
    mini = parity / "real" / "davis_mini"
    expected = json.loads((parity / "real" / "davis_mini_expected.json").read_text())
    score = score_folder(mini / "DAVIS", mini / "results", PROTOCOLS["davis-2017-val"])
    ours = {
        "J&F-Mean": score.JF,
        **{
            f"{m}-{s.title()}": getattr(getattr(score, m), s)
            for m in "JF"
            for s in ("mean", "recall", "decay")
        },
    }
    each = {
        f"{sequence}_{i}": {"J": one.J.mean, "F": one.F.mean}
        for sequence, objects in score.sequences.items()
        for i, one in objects.items()
    }
    assert ours == pytest.approx(expected["global_"], rel=0, abs=1e-6)
    assert each.keys() == expected["per_object"].keys()
    for name, one in each.items():
        assert one == pytest.approx(expected["per_object"][name], rel=0, abs=1e-6), name


def test_frames_are_scored_but_the_first_and_the_last():
    truth, pred = video(6), video(6, speed=0)
    score = score_sequence(truth, pred)
    assert list(score) == [1, 2]
    for i, one in score.items():
        pairs = list(zip(pred[1:-1] == i, truth[1:-1] == i, strict=True))
        assert one.J_frames == tuple(region_similarity(*pair) for pair in pairs)
        assert one.F_frames == tuple(boundary_accuracy(*pair) for pair in pairs)
        assert statistics(one.J_frames) == one.J
        assert statistics(one.F_frames) == one.F


def test_the_first_and_the_last_frame_do_not_change_the_score():
    truth, pred = video(6), video(6, speed=0)
    changed = pred.copy()
    changed[0], changed[-1] = 255, 0
    assert score_sequence(truth, changed) == score_sequence(truth, pred)


def test_a_perfect_result_scores_one():
    score = score_sequence(video(5), video(5))
    assert all(one.J.mean == one.F.mean == one.J.recall == 1 and one.J.decay == 0 for one in score.values())


def test_masks_may_come_one_at_a_time_and_in_any_integer_type():
    truth, pred = video(6), video(6, speed=0)
    lazy = score_sequence(iter(truth.astype(np.uint8)), (mask.astype(np.int64) for mask in pred))
    assert lazy == score_sequence(truth, pred)


def test_a_mask_of_one_object_may_be_boolean():
    truth, pred = video(6, 1), video(6, 1, speed=0)
    assert score_sequence(truth > 0, pred > 0) == score_sequence(truth, pred)


def test_objects_that_begin_later_are_background_and_a_warning_says_so():
    truth = video(6, 3)
    truth[0][truth[0] == 3] = 0
    pred = truth.copy()
    pred[pred == 3] = 0
    with pytest.warns(UserWarning, match="truth shows 3 after its first frame only.*late=True"):
        assert list(score_sequence(truth, pred)) == [1, 2]


def counted(truth, pred):
    """J of each object as vos-benchmark counts: the ids of the truth, whatever numbers they are.

    The first and the last frame are left out. An object counts from the frame that shows it on.
    """
    scores = {}
    for i in np.unique(truth[1:-1])[1:].tolist():
        begin = max(1, np.flatnonzero((truth == i).any(axis=(1, 2)))[0])
        pairs = [(p == i, t == i) for p, t in zip(pred[begin:-1], truth[begin:-1], strict=True)]
        scores[i] = [(p & t).sum() / (p | t).sum() if (p | t).any() else 1.0 for p, t in pairs]
    return scores


@pytest.mark.parametrize(
    "ids", [(1, 2, 3), (3, 17, 250), (2, 3, 4), (1, 3, 9), (7, 254, 256), (256, 300, 65535), (5, 6, 70000)]
)
@pytest.mark.parametrize("late", [False, True])
def test_objects_are_exactly_the_ids_of_the_truth(ids, late):
    renumbered = np.array([0, *ids])
    truth, pred = renumbered[video(6, 3)], renumbered[np.roll(video(6, 3), 2, axis=2)]
    score = score_sequence(truth, pred, late=late)
    assert {i: list(one.J_frames) for i, one in score.items()} == counted(truth, pred)
    plain = score_sequence(video(6, 3), np.roll(video(6, 3), 2, axis=2))
    assert [*score.values()] == [*plain.values()]  # the numbers of objects change no score


@pytest.mark.parametrize("begin", [1, 2, 3])
def test_an_object_that_begins_later_counts_from_the_frame_after_the_one_that_gives_it(begin):
    truth = np.array([0, 3, 300])[video(7)]
    truth[:begin][truth[:begin] == 300] = 0
    pred = np.where(truth == 0, 0, np.array([0, 3, 300])[video(7, speed=0)])
    expected = counted(truth, pred)
    expected[300] = expected[300][1:]  # that frame's mask was given
    score = score_sequence(truth, pred, late=True)
    assert {i: list(one.J_frames) for i, one in score.items()} == expected


def test_a_result_with_an_object_that_begins_later_is_refused_with_the_way_to_score_it():
    truth = np.array([0, 3, 300])[video(7)]
    truth[:3][truth[:3] == 300] = 0
    with pytest.raises(ValueError, match=r"frame 3: pred has id 300, which .*late=True"):
        score_sequence(truth, truth)
    assert [*score_sequence(truth, truth, late=True)] == [3, 300]


def test_an_object_that_vanishes_after_the_first_frame_counts_as_davis_counts_it():
    truth = video(5)
    truth[1:][truth[1:] == 2] = 0
    assert score_sequence(truth, truth)[2].J_frames == (1, 1, 1)
    assert score_sequence(truth, video(5))[2].J_frames == (0, 0, 0)


def test_a_negative_id_in_the_truth_is_refused():
    with pytest.raises(ValueError, match="frame 0: truth has id -2; ids of objects are above 0"):
        score_sequence(-2 * video(5, 1), video(5, 1))


def test_a_folder_with_gaps_in_its_ids_and_objects_that_begin_later_says_what_is_not_counted(tree):
    renumbered = np.array([0, 3, 250])
    truth = renumbered[video(6)]
    truth[0][truth[0] == 250] = 0
    write_video(tree / "DAVIS" / "Annotations" / "480p" / "cow", truth)
    write_video(tree / "results" / "cow", 3 * (video(6, 1, speed=0)))
    score = evaluate(tree)
    assert score.sequences["cow"] == {3: score_sequence(video(6, 1), video(6, 1, speed=0))[1]}
    assert score.later == ("cow:250",)


def test_an_object_that_the_result_lost_scores_zero():
    pred = video(6)
    pred[2:][pred[2:] == 2] = 0
    assert score_sequence(video(6), pred)[2].J_frames == (1, 0, 0, 0)


def test_255_in_the_ground_truth_is_background():
    truth = video(6)
    marked = truth.copy()
    marked[:, 20:, :] = np.where(truth[:, 20:, :] == 0, 255, truth[:, 20:, :])
    assert score_sequence(marked, truth) == score_sequence(truth, truth)
    assert score_sequence(marked.astype(np.uint8), truth) == score_sequence(truth, truth)


def test_binary_masks_are_one_object_however_they_are_written():
    truth, pred = video(6), video(6, speed=0)
    expected = score_sequence(truth > 0, pred > 0)
    assert list(expected) == [1]
    assert score_sequence((truth > 0) * 255, pred, binary=True) == expected
    assert score_sequence(truth, (pred > 0) * 255, binary=True) == expected


@pytest.mark.parametrize("foreign", [3, 255, -1])
def test_an_id_that_the_ground_truth_does_not_have_is_refused(foreign):
    pred = video(6)
    pred[2, 0, 0] = foreign
    with pytest.raises(ValueError, match=rf"frame 2: pred has id {foreign} but truth has objects 1 to 2"):
        score_sequence(video(6), pred)


def test_a_mask_of_another_size_is_refused():
    pred = [*video(3), np.zeros((12, 18), np.int32), *video(2)]
    with pytest.raises(ValueError, match="frame 3: pred is 12x18 but truth is 24x36"):
        score_sequence(video(6), pred)


@pytest.mark.parametrize(("frames", "ended"), [(5, "pred"), (7, "truth")])
def test_videos_of_different_length_are_refused(frames, ended):
    with pytest.raises(ValueError, match=f"frame {min(frames, 6)}: {ended} has fewer frames than the other"):
        score_sequence(video(6), video(frames))


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_a_video_without_a_frame_that_counts_is_refused(frames):
    with pytest.raises(ValueError, match="three frames or more"):
        score_sequence(video(frames), video(frames))


def test_what_is_no_array_of_ids_is_refused():
    with pytest.raises(ValueError, match=r"frame 0: pred is ndarray \(24, 36\) of float64; pass integer"):
        score_sequence(video(6), video(6) / 2)
    with pytest.raises(ValueError, match=r"frame 0: truth is ndarray \(24, 36, 1\) of int32"):
        score_sequence(video(6)[..., None], video(6))
    with pytest.raises(ValueError, match=r"frame 0: pred is list \(1, 2\) of int"):
        score_sequence(video(6), [[[0, 1]]])


def test_a_ground_truth_without_object_is_refused():
    with pytest.raises(ValueError, match="frame 0: truth has no object"):
        score_sequence(np.zeros((6, *SIZE), np.int32), video(6))
    with pytest.raises(ValueError, match="binary=True"):
        score_sequence(255 * video(6, 1), video(6, 1))


def test_a_folder_is_scored_as_its_masks_are(tree):
    score = evaluate(tree)
    assert score.sequences == {
        "cow": score_sequence(video(6), video(6, speed=0)),
        "ape": score_sequence(video(6, 1), video(6, 1, speed=0)),
    }
    assert score.extra == ()


def test_the_score_is_the_mean_over_objects(tree):
    score = evaluate(tree)
    objects = [score.sequences["cow"][1], score.sequences["cow"][2], score.sequences["ape"][1]]
    assert score.objects == tuple(objects)
    for measure in "JF":
        for name in ("mean", "recall", "decay"):
            each = [getattr(getattr(one, measure), name) for one in objects]
            assert getattr(getattr(score, measure), name) == pytest.approx(sum(each) / 3)
    assert pytest.approx((score.J.mean + score.F.mean) / 2) == score.JF


def test_a_split_names_the_sequences(tree):
    assert list(evaluate(tree, split="2017/train").sequences) == ["ape"]


def test_another_resolution_is_another_folder(tree):
    annotations = tree / "DAVIS" / "Annotations"
    annotations.joinpath("480p").rename(annotations / "Full-Resolution")
    assert list(evaluate(tree, resolution="Full-Resolution").sequences) == ["cow", "ape"]


@pytest.mark.parametrize("foreground", [1, 255])
def test_a_davis_2016_tree_is_scored(tree, foreground):
    annotations = tree / "DAVIS" / "Annotations" / "480p"
    for sequence in ("cow", "ape"):
        write_video(annotations / sequence, (video(6) > 0) * foreground)
        write_video(tree / "results" / sequence, (video(6, speed=0) > 0) * 255)
    lines = [
        f"/JPEGImages/480p/{sequence}/{t:05d}.jpg /Annotations/480p/{sequence}/{t:05d}.png\n"
        for sequence in ("cow", "ape")
        for t in range(6)
    ]
    (tree / "DAVIS" / "ImageSets" / "480p").mkdir()
    (tree / "DAVIS" / "ImageSets" / "480p" / "val.txt").write_text("".join(lines))
    expected = score_sequence(video(6) > 0, video(6, speed=0) > 0)
    assert evaluate(tree, split="480p/val", binary=True).sequences == {"cow": expected, "ape": expected}


def test_the_first_frame_was_given_and_needs_no_result(tree):
    expected = evaluate(tree).sequences
    (tree / "results" / "cow" / "00000.png").unlink()
    assert evaluate(tree).sequences == expected


def test_frames_are_in_the_order_of_their_numbers(tree):
    expected = score_sequence(video(12, 1), video(12, 1, speed=0))
    for folder, speed in (("DAVIS/Annotations/480p", 1), ("results", 0)):
        shutil.rmtree(tree / folder / "ape")
        for t, mask in enumerate(video(12, 1, speed)):
            write(tree / folder / "ape" / f"{t}.png", mask)
    assert evaluate(tree).sequences["ape"] == expected


@pytest.mark.parametrize("frame", ["00001.png", "00003.png", "00005.png"])
def test_a_missing_frame_is_an_error_with_its_name(tree, frame):
    (tree / "results" / "ape" / frame).unlink()
    with pytest.raises(ValueError, match=f"results lacks ape/{frame}; every frame but the first"):
        evaluate(tree)


def test_many_missing_frames_are_named_in_part(tree):
    shutil.rmtree(tree / "results")
    with pytest.raises(ValueError, match=r"lacks ape/00001.png, .*, cow/00005.png;"):
        evaluate(tree)
    write_video(tree / "DAVIS" / "Annotations" / "480p" / "cow", video(9))
    with pytest.raises(ValueError, match=r"lacks ape/00001.png, .*, cow/00005.png and 3 more;"):
        evaluate(tree)


def test_masks_without_a_folder_of_their_sequence_are_refused_with_the_layout(tree):
    shutil.rmtree(tree / "results" / "cow")
    (tree / "results" / "ape").rename(tree / "flat")
    shutil.rmtree(tree / "results")
    (tree / "flat").rename(tree / "results")
    with pytest.raises(ValueError, match=r"lacks ape/00001.png, .* to a folder .*results/SEQUENCE$"):
        evaluate(tree)


def test_what_is_missing_is_found_before_anything_is_scored(tree):
    (tree / "results" / "ape" / "00005.png").unlink()
    (tree / "results" / "cow" / "00001.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"lacks ape/00005.png"):
        evaluate(tree)


def test_a_frame_without_ground_truth_is_named_and_not_scored(tree):
    expected = evaluate(tree).sequences
    write(tree / "results" / "ape" / "00006.png", np.zeros((2, 2), np.uint8))
    score = evaluate(tree)
    assert score.extra == ("ape/00006.png",)
    assert score.sequences == expected


def test_files_that_no_one_wrote_on_purpose_are_no_frames(tree):
    (tree / "results" / "ape" / "._00001.png").write_text("left by a file manager")
    (tree / "DAVIS" / "Annotations" / "480p" / "ape" / "._00001.png").write_text("left by a file manager")
    assert evaluate(tree).extra == ()


@pytest.mark.parametrize("frame", ["00002.png", "00005.png"])
def test_a_frame_of_another_size_is_an_error_with_its_name(tree, frame):
    write(tree / "results" / "cow" / frame, np.zeros((12, 18), np.uint8))
    with pytest.raises(ValueError, match=f"cow/{frame}: pred is 12x18 but truth is 24x36"):
        evaluate(tree)


@pytest.mark.parametrize("frame", ["00002.png", "00005.png"])
def test_a_foreign_id_is_an_error_with_the_name_of_its_file(tree, frame):
    change(tree / "results" / "cow" / frame, lambda mask: mask.__setitem__((0, 0), 3))
    with pytest.raises(ValueError, match=f"cow/{frame}: pred has id 3 but truth has objects 1 to 2"):
        evaluate(tree)


def test_an_unknown_split_is_an_error_that_names_the_known_ones(tree):
    with pytest.raises(ValueError, match=r"val.txt is not a file; the splits there: 2017/train, 2017/val"):
        evaluate(tree, split="val")
    shutil.rmtree(tree / "DAVIS" / "ImageSets")
    with pytest.raises(ValueError, match="the splits there: none"):
        evaluate(tree)
    with pytest.raises(ValueError, match="nowhere does not exist"):
        evaluate(tree, data="nowhere")


def test_an_empty_split_is_an_error(tree):
    (tree / "DAVIS" / "ImageSets" / "2017" / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"val.txt is empty"):
        evaluate(tree)


def test_a_sequence_without_ground_truth_is_an_error_with_its_name(tree):
    shutil.rmtree(tree / "DAVIS" / "Annotations" / "480p" / "ape")
    with pytest.raises(ValueError, match=r"480p has no \*.png of ape;"):
        evaluate(tree)


def test_late_objects_count_from_the_frame_after_the_one_that_shows_them():
    truth, pred = video(7), video(7, speed=0)
    truth[:2][truth[:2] == 2] = 0
    score = score_sequence(truth, np.where(truth == 0, 0, pred), late=True)
    assert [one.begin for one in score.values()] == [0, 2]
    assert [len(one.J_frames) for one in score.values()] == [5, 3]
    pairs = [(np.where(truth[t] == 0, 0, pred[t]) == 2, truth[t] == 2) for t in range(3, 6)]
    assert score[2].J_frames == tuple(region_similarity(*pair) for pair in pairs)


@pytest.mark.parametrize("empty", [1, 2, 3])
def test_late_objects_may_begin_after_frames_whose_truth_is_empty(empty, tmp_path):
    truth, pred = video(7), video(7, speed=0)
    truth[:empty] = pred[:empty] = 0
    score = score_sequence(truth, pred, late=True)
    assert [(i, one.begin, len(one.J_frames)) for i, one in score.items()] == [
        (i, empty, 5 - empty) for i in (1, 2)
    ]
    assert score[2].J_frames[0] == region_similarity(pred[empty + 1] == 2, truth[empty + 1] == 2)
    write_video(tmp_path / "Annotations" / "cow", truth)
    write_video(tmp_path / "results" / "cow", pred)
    for protocol in ("lvos", "mose"):
        folder = score_folder(tmp_path, tmp_path / "results", PROTOCOLS[protocol])
        assert folder.sequences["cow"] == score
        assert [*folder.over_time("cow")] == [f"{t:05d}" for t in range(empty + 1, 6)]
    if empty > 1:
        pred[1] = video(7)[1]
        with pytest.raises(ValueError, match=r"frame 1: pred has id 1, 2 but truth has no object up to"):
            score_sequence(truth, pred, late=True)


def test_late_objects_that_never_count_are_refused():
    truth = video(5)
    with pytest.raises(ValueError, match=r"frame 4: truth has no object, nor has any frame before"):
        score_sequence(truth * 0, truth * 0, late=True)
    truth[:3] = 0
    with pytest.raises(ValueError, match=r"frame 4: every object of truth begins so late that no frame"):
        score_sequence(truth, truth, late=True)
    assert [*score_sequence(truth, truth, late=True, scores_last=True)] == [1, 2]


def test_frames_beyond_the_names_are_numbered():
    with pytest.raises(ValueError, match=r"^frame 3: pred has id 7"):
        score_sequence(video(6), np.where(np.arange(6)[:, None, None] == 3, 7, video(6)), names=["a", "b"])


def test_where_the_last_frame_counts_there_is_one_more():
    truth, pred = video(6), video(6, speed=0)
    with_last = score_sequence(truth, pred, scores_last=True)
    without = score_sequence(truth, pred)
    for i in (1, 2):
        assert with_last[i].J_frames[:-1] == without[i].J_frames
        assert with_last[i].J_frames[-1] == region_similarity(pred[-1] == i, truth[-1] == i)
    with pytest.raises(ValueError, match="two frames or more, as the first does not count"):
        score_sequence(truth[:1], pred[:1], scores_last=True)


def test_ids_of_late_objects_are_those_that_appear_and_no_others():
    truth = video(6)
    truth[truth == 2] = 40
    assert list(score_sequence(truth, truth, late=True)) == [1, 40]
    pred = truth.copy()
    pred[3][0, 0] = 2
    with pytest.raises(ValueError, match="frame 3: pred has id 2 but truth has objects 1, 40"):
        score_sequence(truth, pred, late=True)


def test_an_object_that_only_the_last_frame_shows_is_left_out():
    truth = video(6)
    truth[:5][truth[:5] == 2] = 0
    assert list(score_sequence(truth, truth, late=True)) == [1]


def test_over_time_is_the_mean_of_the_objects_that_count_in_a_frame(tree):
    score = evaluate(tree)
    cow = score.sequences["cow"]
    values = score.over_time("cow")
    assert list(values) == ["00001", "00002", "00003", "00004"]
    expected = sum(one.J_frames[1] + one.F_frames[1] for one in cow.values()) / 4
    assert values["00002"] == pytest.approx(expected)


def test_several_processes_give_the_same_score(tree):
    assert evaluate(tree, processes=2) == evaluate(tree)


def test_each_sequence_that_cannot_be_scored_is_named(tree):
    write(tree / "results" / "cow" / "00002.png", np.zeros((12, 18), np.uint8))
    change(tree / "results" / "ape" / "00003.png", lambda mask: mask.__setitem__((0, 0), 3))
    with pytest.raises(ValueError, match=r"cow/00002.png: pred is 12x18 .*; ape/00003.png: pred has id 3"):
        evaluate(tree)


@pytest.mark.parametrize("kind", ["colours", "blur", "jpeg", "text"])
def test_a_result_that_holds_no_ids_is_named(tree, kind):
    path = tree / "results" / "ape" / "00003.png"
    with Image.open(path) as mask:
        mask.load()
    if kind == "colours":
        mask.convert("RGB").point(lambda value: value // 3).save(path)
    elif kind == "blur":
        gray = Image.fromarray((np.array(mask) > 0).astype(np.uint8) * 255)
        gray.resize((90, 60), Image.Resampling.BILINEAR).resize((36, 24), Image.Resampling.BILINEAR).save(
            path
        )
    elif kind == "jpeg":
        mask.convert("L").save(path, "JPEG")
    else:
        path.write_text("mask")
    with pytest.raises(ValueError, match=r"ape/00003.png (is|looks)"):
        evaluate(tree)


def test_data_without_truth_is_not_scored(tree):
    for path in sorted((tree / "DAVIS/Annotations/480p/ape").iterdir())[1:]:
        path.unlink()
    with pytest.raises(ValueError, match="only truth of ape is the masks that"):
        evaluate(tree)


def write_youtube_results(root, videos, wrong=()):
    """Results that are the truth, but background for the objects that are named, (sequence, id)."""
    for found in videos:
        for path in found.truths:
            mask = read_mask(path)
            for name, i in wrong:
                if name == found.name:
                    mask[mask == i] = 0
            write(root / found.name / path.name, mask)


def test_youtube_is_ranked_by_the_mean_over_seen_and_unseen_classes(tmp_path):
    root, protocol = youtube_tree(tmp_path / "data", truth=True), PROTOCOLS["youtube-vos-2018"]
    write_youtube_results(tmp_path / "out", find_videos(root, protocol), wrong=[("ab", 3)])
    score = score_folder(root, tmp_path / "out", protocol)
    assert {name: list(objects) for name, objects in score.sequences.items()} == {"ab": [1, 2, 3], "cd": [1]}
    assert len(score.sequences["ab"][1].J_frames) == 3  # the last frame counts
    assert len(score.sequences["ab"][3].J_frames) == 2
    assert {kind: (part.J.mean, part.F.mean) for kind, part in score.classes.items()} == {
        "seen": (1, 1),
        "unseen": (0, 0),
    }
    assert score.overall == 0.5
    assert pytest.approx(0.75) == score.JF


def test_without_the_training_sets_classes_all_count_alike(tmp_path):
    root, protocol = youtube_tree(tmp_path / "data", truth=True), PROTOCOLS["youtube-vos-2018"]
    shutil.rmtree(root / "train")
    write_youtube_results(tmp_path / "out", find_videos(root, protocol))
    score = score_folder(root, tmp_path / "out", protocol)
    assert score.classes == {}
    assert score.overall == score.JF == 1


def test_youtube_without_its_truth_is_not_scored_on_introductions(tmp_path):
    root, protocol = youtube_tree(tmp_path / "data"), PROTOCOLS["youtube-vos-2018"]
    with pytest.raises(ValueError, match="only truth of ab, cd is the masks that"):
        score_folder(root, tmp_path / "out", protocol)
