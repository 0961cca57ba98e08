import json
import os
from dataclasses import dataclass

import numpy as np
import pytest

from emavos import MemoryPolicy, Session
from emavos.evaluation import PROTOCOLS, find_videos
from emavos.evaluation.baseline import CopyFirstMask
from emavos.evaluation.prediction import Run, predict
from emavos.io import read_frame, read_mask, write_image, write_mask
from golden import reference
from trees import davis_tree, youtube_tree

SETTINGS = {"model": "a", "every": 5}


@dataclass(frozen=True)
class Answer:
    mask: np.ndarray


class Counter:
    """A follower that answers the number of frames it has seen, and keeps what it was given."""

    made: list["Counter"]

    def __init__(self, log):
        self.masks = []
        log.append(self)

    def step(self, frame, mask=None):
        self.masks.append(mask)
        return Answer(np.full(frame.shape[:2], len(self.masks), np.int32))


@pytest.fixture
def videos(tmp_path):
    return find_videos(davis_tree(tmp_path / "data", {"one": 4, "two": 3}, (32, 40)), PROTOCOLS["davis-like"])


def run(videos, out, settings=SETTINGS):
    """The followers that were made, and the run."""
    log = []
    return log, predict(videos, lambda: Counter(log), out, settings)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_every_frame_gets_a_mask_and_only_the_first_is_given(videos, tmp_path):
    log, made = run(videos, tmp_path / "out")
    wanted = ["one", *(f"one/0000{t}.png" for t in range(4)), "run.json", "two"]
    assert names(tmp_path / "out") == [*wanted, *(f"two/0000{t}.png" for t in range(3))]
    assert (read_mask(tmp_path / "out/one/00002.png") == 3).all()
    for follower in log:
        assert [mask is None for mask in follower.masks][:2] == [False, True]
    assert {name: timing.frames for name, timing in made.timings.items()} == {"one": 4, "two": 3}
    assert made.fps > 0


def test_youtube_steps_every_frame_and_writes_those_that_are_asked_for(tmp_path):
    found = find_videos(youtube_tree(tmp_path / "data"), PROTOCOLS["youtube-vos-2018-all-frames"])
    log, made = run(found, tmp_path / "out")
    assert names(tmp_path / "out/ab") == ["00000.png", "00005.png", "00010.png", "00015.png"]
    assert names(tmp_path / "out/cd") == ["00005.png", "00010.png", "00015.png"]
    assert made.timings["ab"].frames == 16
    assert [i for i, mask in enumerate(log[0].masks) if mask is not None] == [0, 5]


def test_a_finished_video_is_not_followed_again(videos, tmp_path):
    log, made = run(videos[:1], tmp_path / "out")
    assert len(log) == 1
    log, again = run(videos, tmp_path / "out")
    assert len(log) == 1
    assert again.timings["one"] == made.timings["one"]
    assert run(videos, tmp_path / "out") == ([], again)


def test_a_video_that_lost_a_mask_is_followed_again(videos, tmp_path):
    run(videos, tmp_path / "out")
    (tmp_path / "out/two/00001.png").unlink()
    assert len(run(videos, tmp_path / "out")[0]) == 1
    assert (tmp_path / "out/two/00001.png").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
@pytest.mark.parametrize("folder", ["JPEGImages", "Annotations"])
def test_a_pipe_among_the_data_is_refused_by_name_and_not_waited_for(videos, tmp_path, folder):
    (path,) = (tmp_path / "data" / folder).glob("*/one/00000.*")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=rf"{path.name} is a pipe or a device, not a"):
        run(videos, tmp_path / "out")


def test_a_run_that_stops_leaves_no_half_of_a_video(videos, tmp_path):
    class Stopping(Counter):
        def step(self, frame, mask=None):
            if len(made) == 2 and self.masks:
                raise KeyboardInterrupt
            return super().step(frame, mask)

    made = []
    with pytest.raises(KeyboardInterrupt):
        predict(videos, lambda: Stopping(made), tmp_path / "out", SETTINGS)
    assert "two" not in names(tmp_path / "out")
    assert not [name for name in names(tmp_path / "out") if "partial" in name]
    assert Run.read(tmp_path / "out").timings.keys() == {"one"}
    assert len(run(videos, tmp_path / "out")[0]) == 1


def test_masks_of_other_settings_are_not_taken_for_these(videos, tmp_path):
    run(videos, tmp_path / "out")
    with pytest.raises(ValueError, match=r"out holds masks made with other settings \(every, flip differ\)"):
        run(videos, tmp_path / "out", {"model": "a", "every": 3, "flip": True})


def test_a_spoiled_record_is_named(videos, tmp_path):
    (tmp_path / "run.json").write_text('{"settings": 1}')
    with pytest.raises(ValueError, match=r"run.json is not a record of a run"):
        Run.read(tmp_path)
    assert Run.read(tmp_path / "nowhere") is None


def test_a_mask_of_another_size_than_its_frame_is_named(videos, tmp_path):
    write_mask(videos[0].masks[0], np.ones((8, 9), np.int32))
    with pytest.raises(ValueError, match=r"the mask of .*one/00000.jpg is 8x9 but the frame is 32x40"):
        run(videos, tmp_path / "out")


def test_the_baseline_copies_what_was_given_and_late_objects_lie_above(tmp_path):
    ab, _ = find_videos(youtube_tree(tmp_path), PROTOCOLS["youtube-vos-2018"])
    follower, given = CopyFirstMask(), {}
    for path, mask in ab.introductions():
        if mask is not None:
            given[path.stem] = mask
        answer = follower.step(read_frame(path), mask).mask
        if path.stem == "00000":
            np.testing.assert_array_equal(answer, given["00000"])
    expected = np.where(given["00005"] > 0, given["00005"], given["00000"])
    np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize("name", ["yv_E_96x160_K4", "yv_F_96x160_K2_req"])
def test_youtube_from_files_to_files_agrees_with_the_references_loop(tmp_path, name):
    golden = reference.load(name)
    meta = golden["meta"]
    root = tmp_path / "data"
    for t, frame in enumerate(golden["frames"]):
        write_image(folder_of(root / "valid_all_frames/JPEGImages/video") / f"{t:05d}.png", frame)
    annotations = dict(zip(meta["ann_frames"], golden["annotations"], strict=True))
    for t, mask in annotations.items():
        write_mask(folder_of(root / "valid/Annotations/video") / f"{t:05d}.png", mask)
    wanted = meta.get("req_frames") or list(range(meta["T"]))
    objects = {"1": {"frames": [f"{t:05d}" for t in wanted]}}
    (root / "valid/meta.json").write_text(json.dumps({"videos": {"video": {"objects": objects}}}))
    videos = find_videos(root, PROTOCOLS["youtube-vos-2018-all-frames"])
    policy = MemoryPolicy(every=meta["mem_every"], include_last=meta["include_last"], top_k=meta["top_k"])
    predict(videos, lambda: Session(reference.model(), policy, None), tmp_path / "out", {})
    assert names(tmp_path / "out/video") == [f"{t:05d}.png" for t in wanted]
    differing = [
        (read_mask(tmp_path / f"out/video/{t:05d}.png") != golden["argmax"][t]).mean() for t in wanted
    ]
    assert np.mean(differing) <= 1e-4


def folder_of(path):
    path.mkdir(parents=True, exist_ok=True)
    return path
