from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import drawn
import matching
import suite
from emavos.demo import synthetic_clip
from emavos.io import list_images, write_mask
from emavos.training import HELD_OUT
from emavos.weights import load_model


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """The training data in small: every clip of the suite, of four frames."""
    root = tmp_path_factory.mktemp("train")
    for seed, name in enumerate(suite.SUITE_CLIPS):
        frames, masks = synthetic_clip(frames=4, size=(48, 80), seed=seed)
        home = root / "clips" if name in suite.DAVIS else root / "more" / "clips"
        for kind in ("JPEGImages", "Annotations"):
            (home / kind / name).mkdir(parents=True)
        for i, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
            Image.fromarray(frame).save(home / "JPEGImages" / name / f"{i:05d}.jpg")
            write_mask(home / "Annotations" / name / f"{i:05d}.png", mask)
    return root


def test_the_suite_has_twenty_clips_or_more_and_holds_out_all_it_takes(train, tmp_path):
    groups = suite.make_clips(train, tmp_path)
    assert 20 <= len(groups) <= 30
    assert set(groups.values()) == set(suite.GROUPS)
    assert set(suite.SUITE_CLIPS) <= set(suite.HELD_OUT) == set(HELD_OUT)
    for name in groups:
        frames, masks = suite.read_clip(tmp_path, name)
        assert len(frames) == len(masks) <= suite.STEPS + 1
        ids = [id for id in np.unique(masks[0]).tolist() if id]
        assert ids, f"{name} begins without an object"
        assert max(mask.max() for mask in masks) <= max(ids)


def test_the_long_clips_have_every_frame(tmp_path):
    home = tmp_path / "clips"
    for kind in ("JPEGImages", "Annotations"):
        (home / kind / "drift-turn").mkdir(parents=True)
    mask = np.zeros((40, 60), np.int32)
    mask[5:20, 5:20] = 1
    for i in range(suite.STEPS + 10):
        Image.fromarray(np.full((40, 60, 3), i, np.uint8)).save(home / f"JPEGImages/drift-turn/{i:05d}.jpg")
        write_mask(home / f"Annotations/drift-turn/{i:05d}.png", mask)
    suite.write_clip(tmp_path / "cache", "whole", lambda: suite._whole(tmp_path, "drift-turn"))
    frames, masks = suite.read_clip(tmp_path / "cache", "whole")
    assert [round(float(frame.mean())) for frame in frames] == list(range(suite.STEPS + 10))
    assert (masks[-1] == mask).all()


def test_clips_are_made_once_and_a_clip_that_was_interrupted_is_made_anew(train, tmp_path):
    suite.make_clips(train, tmp_path, ["single"])
    kept, torn = (tmp_path / "Annotations" / name for name in ("drift-turn", "mallard-water"))
    before = kept.stat().st_mtime_ns
    torn.rename(tmp_path / "elsewhere")
    suite.make_clips(train, tmp_path, ["single"])
    assert kept.stat().st_mtime_ns == before
    assert len(list_images(torn)) == 4


def test_clips_of_another_version_are_refused(train, tmp_path):
    (tmp_path / "version.txt").write_text("0")
    with pytest.raises(ValueError, match="version 0, not 1; delete it"):
        suite.make_clips(train, tmp_path)


def test_long_clips_are_thinned_and_slivers_are_no_objects(tmp_path):
    home = tmp_path / "more" / "clips"
    mask = np.zeros((40, 60), np.int32)
    mask[5:20, 5:20], mask[30, 30], mask[22:36, 40:55] = 4, 5, 9
    for kind in ("JPEGImages", "Annotations"):
        (home / kind / "spbstu_table").mkdir(parents=True)
    for i in range(40):
        Image.fromarray(np.full((40, 60, 3), i, np.uint8)).save(home / f"JPEGImages/spbstu_table/{i:05d}.jpg")
        write_mask(home / f"Annotations/spbstu_table/{i:05d}.png", mask)
    suite.write_clip(tmp_path / "cache", "spbstu_table", lambda: suite._real(tmp_path, "spbstu_table"))
    frames, masks = suite.read_clip(tmp_path / "cache", "spbstu_table")
    assert [round(float(frame.mean())) for frame in frames] == list(range(0, 40, 2))
    assert np.unique(masks[0]).tolist() == [0, 1, 2]
    assert (masks[0][mask == 9] == 2).all()


@pytest.mark.parametrize(
    ("draw", "objects"),
    [
        (drawn.fish_crossing, 4),
        (drawn.balls_circling, 5),
        (drawn.bicycle, 1),
        (drawn.walkers, 2),
        (drawn.fish_returning, 2),
    ],
)
def test_what_is_drawn_is_seen_in_the_first_frame_and_equal_every_time(draw, objects):
    ground = np.random.default_rng(0).integers(0, 256, (72, 128, 3), dtype=np.uint8)
    clip, again = ([*draw(ground, 5)] for _ in range(2))
    assert np.unique(clip[0][1]).tolist() == list(range(objects + 1))
    for (frame, mask), (frame_again, mask_again) in zip(clip, again, strict=True):
        assert frame.shape == (72, 128, 3)
        assert (frame == frame_again).all()
        assert (mask == mask_again).all()


def test_an_object_that_returns_is_away_in_between_and_back_at_the_end():
    ground = np.zeros((72, 128, 3), np.uint8)
    there = [bool((mask == 2).any()) for _, mask in drawn.fish_returning(ground, 25)]
    assert there[0]
    assert there[-1]
    assert there.count(False) >= 6
    assert all((mask == 1).any() for _, mask in drawn.fish_returning(ground, 25))


def test_thin_parts_are_thinner_than_a_cell_of_stride_four():
    ground = np.full((384, 683, 3), 255, np.uint8)
    _, mask = next(drawn.bicycle(ground, 2))
    inner = mask[2:-2, 2:-2] > 0
    for dy, dx in ((-2, 0), (2, 0), (0, -2), (0, 2)):
        inner = inner & (mask[2 + dy : mask.shape[0] - 2 + dy, 2 + dx : mask.shape[1] - 2 + dx] > 0)
    assert inner.sum() < 0.3 * (mask > 0).sum()


def test_a_hard_affinity_reads_one_cell_and_an_even_one_reads_all():
    keys = torch.eye(8)
    assert matching.softness(1000 * keys, 1000 * keys)[:2] == pytest.approx((1, 1), abs=1e-4)
    best, effective, gap = matching.softness(torch.zeros(8, 3), keys)
    assert (best, effective, gap) == pytest.approx((1 / 8, 8, 0), abs=1e-4)


def test_matching_of_a_video_that_stands_still_is_perfect():
    frames, masks = synthetic_clip(frames=1, size=(96, 128))
    model = load_model().eval()
    found = matching.matching(model, frames * 3, masks * 3, top_k=1)
    assert found.cells == 1
    assert 0 < found.pixels <= 1
    with pytest.raises(ValueError, match="a clip of 1 frames has nothing to match"):
        matching.matching(model, frames, masks)


def test_the_interval_of_a_mean_surrounds_it_and_narrows_with_more_values():
    values = np.random.default_rng(0).normal(0.5, 0.1, 40).tolist()
    low, high = suite.bootstrap(values)
    few_low, few_high = suite.bootstrap(values[:6])
    assert low < np.mean(values) < high
    assert few_high - few_low > high - low
    assert suite.bootstrap(values) == (low, high)


def test_two_models_are_compared_clip_by_clip():
    def model(name, scores):
        clips = {f"clip{i}": suite.ClipScore("single", 1, x, x, x) for i, x in enumerate(scores)}
        return suite.ModelScore(name, clips, {}, 1.0)

    first, better = model("first", [0.2, 0.9, 0.5]), model("better", [0.3, 1.0, 0.6])
    assert suite.difference(first, better) == pytest.approx((0.1, 0.1, 0.1))
    text = suite.table([first, better])
    assert "better minus first: +0.1000, 95 % interval +0.1000 to +0.1000: decided" in text
    assert "first minus" not in text


def test_the_command_scores_models_and_writes_what_it_prints(train, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(suite, "SIZE", 48)
    arguments = ["--data", train, "--out", tmp_path / "out", "--cache", tmp_path / "clips"]
    arguments += ["--groups", "single,return", "--model", "tiny", "--model", "tiny"]
    suite.main([str(x) for x in arguments])
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "suite.txt").read_text() == printed
    assert "tiny minus tiny: +0.0000" in printed
    assert "effective cells" in printed
    one, two = json.loads((tmp_path / "out" / "suite.json").read_text())
    assert one["clips"] == two["clips"]
    assert len(one["clips"]) == 10
    assert 0 < one["JF"] < 1

    earlier = tmp_path / "out" / "suite.json"
    arguments = ["--data", train, "--out", tmp_path / "again", "--cache", tmp_path / "clips"]
    arguments += ["--groups", "return", "--model", "tiny", "--against", earlier]
    suite.main([str(x) for x in arguments])
    assert "tiny minus tiny: +0.0000" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        suite.main([str(x) for x in [*arguments, "--groups", "thin"]])
    assert "suite.json lacks drawn-bicycle; run it on the same groups" in capsys.readouterr().err


def test_a_model_is_scored_without_and_with_locality_on_fewer_frames(train, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(suite, "SIZE", 48)
    arguments = [
        "--data",
        train,
        "--out",
        tmp_path / "out",
        "--cache",
        tmp_path / "clips",
        "--groups",
        "thin,long",
    ]
    suite.main([*map(str, arguments), "--model", "tiny", "--locality", "both", "--every", "2"])
    assert "tiny near minus tiny anywhere: " in capsys.readouterr().out
    lengths = {
        name: len(suite.read_clip(tmp_path / "clips", name)[0])
        for name in suite.make_clips(train, tmp_path / "clips", ["thin", "long"])
    }
    for score in json.loads((tmp_path / "out" / "suite.json").read_text()):
        assert set(score["clips"]) == {name for name, length in lengths.items() if length > 4}


def test_a_group_that_does_not_exist_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        suite.main(["--data", "x", "--model", "tiny", "--out", str(tmp_path), "--groups", "single,triple"])
    assert "unknown groups: triple; there are single" in capsys.readouterr().err


def test_a_score_is_named_after_its_model_and_its_dtype(tmp_path):
    frames, masks = synthetic_clip(frames=3, size=(96, 128))
    suite.write_clip(tmp_path, "short", lambda: zip(frames, masks, strict=True))
    scores = [
        suite.score_model("tiny", tmp_path, {"short": "single"}, dtype=t) for t in ("float32", "bfloat16")
    ]
    assert [score.model for score in scores] == ["tiny", "tiny bfloat16"]
    assert abs(scores[0].JF - scores[1].JF) < 0.05
