from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from emavos import MemoryPolicy, Predictor, Session
from emavos.evaluation import region_similarity
from emavos.models import STCN
from emavos.weights import load_model
from golden import reference


@pytest.fixture(scope="module")
def model():
    return load_model()


BOXES = {1: (4, 4, 20, 20), 2: (10, 32, 30, 52), 3: (40, 12, 58, 30)}
COLOURS = {1: (200, 60, 40), 2: (40, 90, 210), 3: (230, 210, 60)}


def video(frames=6, height=64, width=72, seed=0):
    """Three squares of different colours that drift right over a soft background."""
    rng = np.random.default_rng(seed)
    soft = rng.integers(90, 160, (5, 5, 3), dtype=np.uint8)
    background = np.asarray(Image.fromarray(soft).resize((width, height), Image.Resampling.BICUBIC))
    video = []
    for t in range(frames):
        picture = background.copy()
        for id, box in BOXES.items():
            picture[mask_of({id: box}, height, width, shift=t) == id] = COLOURS[id]
        video.append(picture)
    return video


def mask_of(boxes, height=64, width=72, shift=0):
    mask = np.zeros((height, width), np.int32)
    for id, (top, left, bottom, right) in boxes.items():
        mask[top:bottom, left + shift : right + shift] = id
    return mask


FIRST = mask_of({1: BOXES[1], 2: BOXES[2]})


def run(model, frames, masks, policy=None, size=None):
    session = Session(model, policy, size)
    return [session.step(frame, masks.get(i)) for i, frame in enumerate(frames)]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.ids == b.ids
        torch.testing.assert_close(a.prob, b.prob)


@pytest.mark.parametrize(
    "name",
    [
        "e2e_A_96x160_K3",
        "e2e_B_96x160_K3_last",
        "e2e_C_120x215_K3",
        "e2e_D_120x215_K1_last",
        "yv_E_96x160_K4",
        "yv_F_96x160_K2_req",
    ],
)
def test_masks_agree_with_the_references_inference(name):
    golden = reference.load(name)
    meta, step = golden["meta"], golden["stride"]
    if "mask" in golden:
        masks = {0: golden["mask"]}
    else:
        masks = dict(zip(meta["ann_frames"], golden["annotations"], strict=True))
    policy = MemoryPolicy(every=meta["mem_every"], include_last=meta["include_last"], top_k=meta["top_k"])
    results = run(reference.model(), golden["frames"], masks, policy)
    errors, differing = [], []
    for t in meta.get("req_frames") or range(meta["T"]):
        expected = golden["prob"][t][: 1 + len(results[t].ids)]
        errors.append(np.abs(results[t].prob[:, ::step, ::step].numpy() - expected))
        differing.append((results[t].mask != golden["argmax"][t]).mean())
    assert np.mean([error.mean() for error in errors]) <= 3e-5
    assert max(error.max() for error in errors) <= 5e-2
    assert np.mean(differing) <= 1e-4


def test_results_have_the_size_of_the_frames_and_sum_to_one(model):
    results = run(model, video(), {0: FIRST}, size=32)
    for i, result in enumerate(results):
        assert result.index == i
        assert result.prob.shape == (3, 64, 72)
        assert result.prob.dtype == torch.float32
        assert result.mask.shape == (64, 72)
        assert result.mask.dtype == np.int32
        assert set(np.unique(result.mask)) <= {0, 1, 2}
        torch.testing.assert_close(result.prob.sum(0), torch.ones(64, 72))


@pytest.mark.parametrize("size", [None, 32, 64])
def test_a_given_frame_comes_back_as_it_was_given(model, size):
    (result,) = run(model, video(1), {0: FIRST}, size=size)
    assert np.array_equal(result.mask, FIRST)


def test_a_result_equals_itself_alone(model):
    first, second = run(model, video(2), {0: FIRST})
    assert first == first
    assert first != second
    assert len({first, second, first}) == 2


def test_ids_of_any_value_are_kept(model):
    ids = {1: -7, 2: 90_000}
    renamed = np.vectorize(lambda i: ids.get(i, 0))(FIRST)
    plain, other = run(model, video(), {0: FIRST}), run(model, video(), {0: renamed})
    for a, b in zip(plain, other, strict=True):
        assert b.ids == (-7, 90_000)
        assert np.array_equal(np.vectorize(lambda i: ids.get(i, 0))(a.mask), b.mask)


def test_the_names_of_objects_do_not_change_their_masks(model):
    swapped = np.choose(FIRST, [0, 2, 1])
    for a, b in zip(run(model, video(), {0: FIRST}), run(model, video(), {0: swapped}), strict=True):
        torch.testing.assert_close(a.prob[[0, 2, 1]], b.prob, atol=1e-5, rtol=1e-4)


def test_a_late_object_does_not_change_earlier_frames(model):
    late = mask_of({9: BOXES[3]}, shift=3)
    alone, joined = run(model, video(), {0: FIRST}), run(model, video(), {0: FIRST, 3: late})
    assert_same(alone[:3], joined[:3])
    assert joined[3].ids == (1, 2, 9)
    assert (joined[3].mask[late == 9] == 9).all()
    sure = (late == 0) & (alone[3].prob.amax(dim=0) > 0.5).numpy()
    assert sure.mean() > 0.8
    assert np.array_equal(joined[3].mask[sure], alone[3].mask[sure])


def test_frames_before_the_first_mask_are_background(model):
    results = run(model, video(), {2: FIRST})
    assert results[1].ids == ()
    assert not results[1].mask.any()
    assert results[1].prob.shape == (1, 64, 72)
    shifted = run(model, video()[2:], {0: FIRST})
    for a, b in zip(results[2:], shifted, strict=True):
        torch.testing.assert_close(a.prob, b.prob)


def test_objects_are_followed(model):
    for t, result in enumerate(run(model, video(10), {0: FIRST}, size=192)):
        truth = mask_of({1: BOXES[1], 2: BOXES[2]}, shift=t)
        for id in (1, 2):
            assert region_similarity(result.mask == id, truth == id) > 0.6


def test_a_mask_of_followed_objects_corrects_them_and_the_frame_that_follows(model):
    other = mask_of({1: BOXES[3]}, shift=3)  # object 1 is said to be the third square
    before, after = (run(model, video(5), {0: FIRST} | late, size=192) for late in ({}, {3: other}))
    assert_same(before[:3], after[:3])
    assert after[3].ids == (1, 2)
    assert np.array_equal(after[3].mask == 1, other == 1)
    third = mask_of({3: BOXES[3]}, shift=4) == 3
    assert (before[4].mask[third] == 1).mean() < 0.1
    assert (after[4].mask[third] == 1).mean() > 0.6
    assert ((before[4].mask == 2) == (after[4].mask == 2)).mean() > 0.98


def test_two_videos_in_turn_equal_each_alone(model):
    predictor = Predictor(model, size=None)
    videos = [video(seed=1), video(seed=2)]
    sessions = [predictor.session() for _ in videos]
    results = [[], []]
    for t in range(6):
        for session, frames, out in zip(sessions, videos, results, strict=True):
            out.append(session.step(frames[t], FIRST if t == 0 else None))
    for frames, out in zip(videos, results, strict=True):
        assert_same(out, run(model, frames, {0: FIRST}))


def test_two_videos_in_threads_equal_each_alone(model):
    predictor = Predictor(model, size=None)
    videos = [video(seed=1), video(seed=2)]
    results = [[], []]

    def follow(i):
        results[i].extend(predictor.propagate(videos[i], FIRST))

    threads = [threading.Thread(target=follow, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for frames, out in zip(videos, results, strict=True):
        assert_same(out, run(model, frames, {0: FIRST}))


@pytest.mark.parametrize(("policy", "full"), [(None, 80), (MemoryPolicy(every=2, max_frames=6), 12)])
def test_the_memory_of_a_long_stream_is_flat_unless_told_otherwise(model, policy, full):
    session = Session(model, policy, None)
    frames = video(4)
    sizes = []
    for t in range(2 * full):
        session.step(frames[t % 4], FIRST if t == 0 else None)
        sizes.append(session.nbytes)
    assert sizes[-1] == sizes[full] > sizes[0]


@pytest.mark.parametrize("autocast", [False, True])
def test_the_callers_grad_mode_and_autocast_change_nothing_and_are_left_alone(model, autocast):
    expected = run(model, video(3), {0: FIRST})
    with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        results = run(model, video(3), {0: FIRST})
        assert torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu") == autocast
    assert_same(results, expected)
    assert not results[0].prob.requires_grad


def test_a_mask_covering_the_whole_frame_leaves_no_background(model):
    (result,) = run(model, video(1), {0: np.full((64, 72), 5)})
    assert (result.mask == 5).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (17, 16)])
def test_frames_smaller_than_a_cell_are_followed(model, size):
    frames = video(3, *size)
    mask = np.ones(size, np.uint8)
    assert all(result.mask.shape == size for result in run(model, frames, {0: mask}))


def test_a_frame_of_another_size_is_refused_by_number(model):
    session = Session(model, size=None)
    session.step(video(1)[0], FIRST)
    with pytest.raises(ValueError, match=r"frame 1 is 64x73 but the video began with 64x72"):
        session.step(video(1, width=73)[0])


def test_frames_prepared_beforehand_are_those_that_are_not(model):
    frames = video(3, height=70)
    plain, ahead = Session(model, size=48), Session(model, size=48)
    ready = [ahead.preprocess(frame, i) for i, frame in enumerate(frames)]
    first = np.pad(FIRST, ((0, 6), (0, 0)))
    results = [ahead.step(frame, None if i else first) for i, frame in enumerate(ready)]
    assert_same(results, [plain.step(frame, None if i else first) for i, frame in enumerate(frames)])
    with pytest.raises(ValueError, match=r"frame 7: an array frame is \(H, W, 3\) of uint8"):
        ahead.preprocess(frames[0][0], 7)
    with pytest.raises(ValueError, match=r"frame 3 is 64x72 but the video began with 70x72"):
        ahead.step(ahead.preprocess(video(1)[0], 3))
    with pytest.raises(ValueError, match="index is the index of a frame"):
        ahead.preprocess(frames[0], -1)


def test_a_frame_prepared_for_another_session_is_refused(model):
    session = Session(model, size=48)
    foreign = Session(model, size=64).preprocess(video(1)[0], 0)
    with pytest.raises(
        ValueError, match=r"frame 0 was preprocessed at 64x72 .* on cpu, for .* whose size is 48 on cpu"
    ):
        session.step(foreign, FIRST)
    session.step(video(1)[0], FIRST)
    with pytest.raises(ValueError, match="frame 5 was preprocessed at 64x72"):
        session.remember(foreign, FIRST, 5)
    elsewhere = replace(session.preprocess(video(1)[0], 1), pixels=torch.zeros(1, 3, 48, 64, device="meta"))
    with pytest.raises(ValueError, match="another size or device"):
        session.step(elsewhere)
    assert session.remember(session.preprocess(video(1)[0], 5), FIRST, 5) == (1, 2)


def test_frames_encoded_beforehand_give_the_same_bits_and_are_encoded_once(model, monkeypatch):
    predictor, frames = Predictor(model, size=48), video(3, height=70)
    first = np.pad(FIRST, ((0, 6), (0, 0)))
    plain, ahead = predictor.session(), predictor.session()
    expected = [plain.step(frame, None if i else first) for i, frame in enumerate(frames)]
    encoded = [predictor.encode(frame) for frame in frames]
    of_another = Predictor(model, size=48).encode(frames[2])
    counted = []
    encode = predictor.network.encode_key
    monkeypatch.setattr(predictor.network, "encode_key", lambda x: counted.append(x) or encode(x))
    results = [ahead.step(encoded[0], first), ahead.step(encoded[1])]
    assert not counted
    results.append(ahead.step(of_another))  # features of other weights are not taken over
    assert len(counted) == 1
    for ours, theirs in zip(results, expected, strict=True):
        assert torch.equal(ours.prob, theirs.prob)
    with pytest.raises(ValueError, match="frame 3 was preprocessed at 64x72"):
        ahead.step(Predictor(model, size=64).encode(video(1)[0]))


def test_an_empty_mask_is_refused_by_number(model):
    session = Session(model, size=None)
    with pytest.raises(ValueError, match="mask of frame 0 is empty"):
        session.step(video(1)[0], np.zeros((64, 72), np.uint8))


def test_a_refused_frame_changes_nothing(model):
    session = Session(model, size=None)
    frames = video(4)
    session.step(frames[0], FIRST)
    with pytest.raises(ValueError, match="mask is 3x3"):
        session.step(frames[1], np.ones((3, 3), np.uint8))
    results = [session.step(frame) for frame in frames[1:]]
    assert_same(results, run(model, frames, {0: FIRST})[1:])


def test_a_session_goes_on_outside_the_inference_mode_it_began_in(model):
    frames = video(8)
    policy = MemoryPolicy(every=2)
    session = Session(model, policy, None)
    with torch.inference_mode():
        results = [session.step(frames[0], FIRST), session.step(frames[1])]
    results += [session.step(frame) for frame in frames[2:]]
    assert_same(results, run(model, frames, {0: FIRST}, policy))


def test_a_step_that_fails_can_be_taken_again(model, monkeypatch):
    frames, masks = video(6), {0: mask_of({1: BOXES[1]}), 2: mask_of({3: BOXES[3]}, shift=2)}
    expected = run(model, frames, masks)
    session = Session(model, size=None)
    results = [session.step(frames[i], masks.get(i)) for i in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(STCN, "encode_value", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
        with pytest.raises(torch.OutOfMemoryError):
            session.step(frames[2], masks[2])
    assert (session.index, session.ids) == (2, (1,))
    results += [session.step(frames[i], masks.get(i)) for i in range(2, 6)]
    assert_same(results, expected)


def test_a_session_that_begins_later_counts_from_there_and_names_the_frames_of_its_order(model):
    late, plain = Session(model, size=None, start=7), Session(model, size=None)
    mask = np.zeros((32, 48), np.int32)
    mask[8:20, 10:30] = 1
    frames = np.random.default_rng(0).integers(0, 256, (7, 32, 48, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        ours, theirs = (s.step(frame, mask if number == 0 else None) for s in (late, plain))
        assert (ours.index, theirs.index) == (7 + number, number)
        assert torch.equal(ours.prob, theirs.prob)
    backward = Session(model, size=None, order=range(5, -1, -1))
    backward.step(frames[0], mask)
    with pytest.raises(ValueError, match="frame 4 is 31x48 but the video began with 32x48"):
        backward.step(frames[1][1:])
    with pytest.raises(ValueError, match="start is the index of a frame, counted from 0, not -1"):
        Session(model, start=-1)


def test_nobody_but_the_session_writes_what_it_holds(model):
    with pytest.raises(AttributeError):
        Session(model).groups = ()
