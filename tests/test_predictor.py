from __future__ import annotations

import itertools
import pickle
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from emavos import MemoryPolicy, Predictor, Session
from emavos.demo import synthetic_clip
from emavos.evaluation import region_similarity
from emavos.io import write_image, write_mask
from emavos.weights import load_model

FRAMES, MASKS = synthetic_clip(frames=6, size=(96, 128))


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained(size=None)


@pytest.fixture
def folder(tmp_path):
    for i, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(tmp_path / f"{i:05d}.png")
    return tmp_path


def masks_of(results):
    return np.stack([result.mask for result in results])


def test_the_embedded_model_follows_the_objects_of_a_clip(predictor):
    frames, truth = synthetic_clip(frames=12)
    masks = masks_of(predictor.propagate(frames, truth[0]))
    overlaps = [
        region_similarity(masks[t] == id, truth[t] == id)
        for t in range(1, 12)
        for id in np.unique(truth[0])[1:]
    ]
    assert np.mean(overlaps) > 0.8


def test_folder_file_list_and_stream_give_the_same_masks(predictor, folder):
    expected = masks_of(predictor.propagate(FRAMES, MASKS[0]))
    write_mask(folder.parent / "first.png", MASKS[0])
    tensors = [torch.from_numpy(frame).permute(2, 0, 1) for frame in FRAMES]
    cases = {
        "folder": (folder, folder.parent / "first.png"),
        "text": (str(folder), str(folder.parent / "first.png")),
        "pictures": ([Image.fromarray(frame) for frame in FRAMES], Image.open(folder.parent / "first.png")),
        "tensors": (tensors, torch.from_numpy(MASKS[0])),
        "stream": ((frame for frame in FRAMES), {0: MASKS[0]}),
    }
    for name, (frames, mask) in cases.items():
        assert np.array_equal(masks_of(predictor.propagate(frames, mask)), expected), name


@pytest.mark.parametrize("spare", [False, True])
def test_files_are_prepared_in_a_thread_where_a_core_is_free(predictor, folder, monkeypatch, spare):
    threads = []
    preprocess = Session.preprocess

    def noted(*arguments):
        threads.append(threading.current_thread())
        return preprocess(*arguments)

    monkeypatch.setattr(Session, "preprocess", noted)
    monkeypatch.setattr("emavos.predictor.has_spare_core", lambda threads: spare)
    results = [*predictor.propagate(folder, MASKS[0])]
    assert len(threads) == (len(results) if spare else 0)
    assert threading.main_thread() not in threads
    write_image(folder / "00001.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="frame 1 is 9x9 but the video began with"):
        [*predictor.propagate(folder, MASKS[0])]


def test_a_video_file_gives_the_masks_of_its_decoded_frames(predictor, tmp_path):
    av = pytest.importorskip("av", reason="the extra 'video' is not installed")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        for frame in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(tmp_path / "clip.mp4")) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    expected = masks_of(predictor.propagate(decoded, MASKS[0]))
    assert np.array_equal(masks_of(predictor.propagate(tmp_path / "clip.mp4", MASKS[0])), expected)


def test_propagation_takes_frames_one_at_a_time(predictor):
    taken = []

    def stream():
        for i, frame in enumerate(FRAMES):
            taken.append(i)
            yield frame

    results = predictor.propagate(stream(), MASKS[0])
    assert taken == []
    next(results)
    next(results)
    assert taken == [0, 1]


def test_an_endless_stream_can_be_left(predictor):
    results = predictor.propagate(itertools.cycle(FRAMES), MASKS[0])
    assert [result.index for result in itertools.islice(results, 9)] == list(range(9))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss has other units elsewhere")
def test_a_thousand_frames_take_no_more_memory_than_two_hundred():
    resource = pytest.importorskip("resource")
    session = Predictor.from_pretrained(size=32, policy=MemoryPolicy(every=2, max_frames=8)).session()
    frames, masks = synthetic_clip(frames=8, size=(32, 48))
    taken = []
    for index, frame in enumerate(itertools.islice(itertools.cycle(frames), 1000)):
        session.step(frame, None if index else masks[0])
        if index in (199, 999):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB on Linux
            taken.append((session.nbytes, peak))
    assert taken[0][0] == taken[1][0]
    assert taken[1][1] - taken[0][1] < 8 << 10  # a frame's result is 24 kB: 800 of them would be 19 MB


def test_masks_at_several_frames_introduce_objects_where_they_appear(predictor):
    ids = np.unique(MASKS[0])[1:]
    first, later = np.where(MASKS[0] == ids[0], ids[0], 0), np.where(MASKS[2] == ids[1], ids[1], 0)
    results = list(predictor.propagate(FRAMES, {0: first, 2: later}))
    assert [result.ids for result in results] == [(ids[0],)] * 2 + [(ids[0], ids[1])] * 4


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "mask is None"),
        ({}, "no mask is given"),
        ({-1: MASKS[0]}, "given for frame -1; .* counted from 0"),
        ({"first": MASKS[0]}, "given for frame 'first'"),
        ({1.5: MASKS[0]}, r"given for frame 1\.5"),
    ],
)
def test_wrong_masks_are_refused_before_the_first_frame(predictor, mask, message):
    with pytest.raises(ValueError, match=message):
        predictor.propagate(FRAMES, mask)


def test_a_mask_of_a_frame_that_never_comes_is_an_error(predictor):
    results = predictor.propagate(FRAMES, {0: MASKS[0], 6: MASKS[0]})
    with pytest.raises(ValueError, match="a mask is given for frame 6 but the video has 6 frames"):
        list(results)


@pytest.mark.parametrize("size", [0, -480, 15, 480.0, "480", True])
def test_a_wrong_size_is_refused(predictor, size):
    with pytest.raises(ValueError, match="size is a whole number of pixels"):
        Predictor(predictor.model, size=size)
    with pytest.raises(ValueError, match="size is a whole number of pixels"):
        Session(predictor.model, size=size)


def test_the_device_is_that_of_the_parameters():
    predictor = Predictor.from_pretrained(device="cpu")
    assert next(predictor.model.parameters()).device.type == "cpu"


def test_a_policy_of_another_kind_is_refused_at_once():
    with pytest.raises(ValueError, match=r"policy is a MemoryPolicy, .* not {'every': 5}"):
        Predictor.from_pretrained(policy={"every": 5})
    with pytest.raises(ValueError, match="policy is a MemoryPolicy"):
        Session(load_model(), policy=5)


def test_a_device_that_does_not_exist_is_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"device is auto, cpu, cuda or another .*, not 'gpu'"):
        Predictor.from_pretrained(device="gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch finds no CUDA device here"):
        Predictor.from_pretrained(device="cuda:0")


@pytest.mark.parametrize("used", [False, True])
def test_a_predictor_can_be_sent_to_another_process_with_its_click_head(used):
    predictor = Predictor.from_pretrained(size=64)
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[10:30, 20:40] = 250
    before = predictor.click(frame, points=[(30, 20)]) if used else None
    copied = pickle.loads(pickle.dumps(predictor))
    after = copied.click(frame, points=[(30, 20)])
    assert before is None or np.array_equal(after.mask, before.mask)


def test_a_session_goes_on_with_the_whole_video_and_not_with_its_rest(predictor):
    session = predictor.session()
    for i in range(4):
        session.step(FRAMES[i], MASKS[0] if i == 0 else None)
    with pytest.raises(ValueError, match="session is at frame 4, and the video has 2 frames; pass the whole"):
        list(predictor.propagate(FRAMES[4:], session=session))
    assert [result.index for result in predictor.propagate(FRAMES, session=session)] == [4, 5]


@pytest.mark.parametrize("frames", ["list", "generator", "folder"])
def test_a_session_that_is_stepped_elsewhere_meanwhile_is_refused(predictor, frames, folder):
    source = {"list": FRAMES, "generator": (frame for frame in FRAMES), "folder": folder}[frames]
    session = predictor.session()
    results = predictor.propagate(source, MASKS[0], session=session)
    assert next(results).index == 0
    session.step(FRAMES[1])
    with pytest.raises(ValueError, match="frame 1 comes next here, but the session is at frame 2, because"):
        next(results)
    one, other = predictor.propagate(FRAMES, session=session), predictor.propagate(FRAMES, session=session)
    assert [next(one).index, next(other).index] == [2, 3]
    with pytest.raises(ValueError, match="frame 3 comes next here, but the session is at frame 4"):
        next(one)
    assert [result.index for result in other] == [*range(4, len(FRAMES))]
