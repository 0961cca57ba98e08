"""Samples drawn in batches on a device are those of the definition, `MixedSamples`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from emavos.data import Clips, Joined, MixedSamples, StaticImages
from emavos.data.device_samples import draw_plans
from emavos.data.loaded import Loaded
from emavos.data.stacked_plans import stack_plans
from emavos.demo import synthetic_clip
from emavos.io import write_mask
from trees import stills_tree, training_tree

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Samples of small and of large pictures, one of them without an object."""
    root = training_tree(tmp_path_factory.mktemp("data"))
    stills_tree(root / "large", 2, size=(230, 410))
    empty = root / "large" / "masks" / "none.png"
    write_mask(empty, np.zeros((41, 57), np.int32))
    Image.fromarray(synthetic_clip(frames=1, size=(41, 57))[0][0]).save(
        root / "large" / "images" / "none.jpg"
    )
    return MixedSamples(
        Loaded(Joined([StaticImages(root / "static"), StaticImages(root / "large")])),
        Loaded(Clips(root / "clips")),
        count=40,
        batch=3,
        size=48,
        frames=3,
        blur=0.5,
        seed=4,
    )


def drawn(samples, indices):
    plans = stack_plans([samples.plan(i) for i in indices], samples.size)
    return draw_plans(plans, samples.stills, samples.clips, samples.size, CPU)


def assert_same(ours, theirs):
    """The same but for rounding, which may move a copied object's colours by a level of 255."""
    assert (ours.masks != theirs.masks).float().mean() < 1e-4
    difference = (ours.frames - theirs.frames).abs()
    assert difference.max() < 0.03
    assert (difference > 1e-3).float().mean() < 0.01
    assert torch.equal(ours.valid, theirs.valid)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"lookalike": 1.0, "occluder": 1.0, "under": 0.0},
        {"under": 1.0, "objects": (0.0, 0.0, 1.0), "lookalike": 0.0},
        {"real": 0.0, "zoom": (0.9, 1.0), "size": 32},
        {"real": 1.0, "occluder": 0.0, "frames": 2, "blur": 1.0},
    ],
    ids=lambda fields: ",".join(fields),
)
def test_a_batch_has_the_samples_of_the_definition(samples, fields):
    samples = dataclasses.replace(samples, **fields)
    for first in range(0, 12, 3):
        batch = drawn(samples, range(first, first + 3))
        for i in range(3):
            assert_same(type(batch)(*(x[i] for x in batch)), samples[first + i])


def test_pictures_with_more_pixels_than_the_view_are_averaged(samples):
    """The pictures of the batch are reduced by different numbers."""
    samples = dataclasses.replace(samples, size=16, real=0.0, zoom=(0.8, 1.0))
    plans = [samples.plan(i) for i in range(3)]
    assert len({plan.scene.view.reduction(16) for plan in plans}) > 1
    batch = drawn(samples, range(3))
    for i in range(3):
        assert_same(type(batch)(*(x[i] for x in batch)), samples[i])


def test_a_batch_has_the_same_bytes_each_time(samples):
    assert all(map(torch.equal, drawn(samples, range(3, 6)), drawn(samples, range(3, 6))))


def test_drawing_a_batch_changes_no_picture(samples):
    before = samples.stills.load(0, 0)[0].clone(), samples.clips.load(1, 2)[1].clone()
    drawn(samples, range(9, 12))
    assert torch.equal(samples.stills.load(0, 0)[0], before[0])
    assert torch.equal(samples.clips.load(1, 2)[1], before[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_loaded_videos_are_the_videos(tmp_path, workers):
    videos = Joined([StaticImages(training_tree(tmp_path) / "static"), Clips(tmp_path / "clips")])
    loaded = Loaded(videos, workers).to(CPU)
    assert len(loaded) == len(videos) == 4
    pixels = 0
    for video in range(4):
        assert (loaded.length(video), loaded.step(video)) == (videos.length(video), videos.step(video))
        for frame in range(loaded.length(video)):
            assert all(map(torch.equal, loaded.load(video, frame), videos.load(video, frame)))
            pixels += loaded.load(video, frame)[1].numel()
    assert loaded.nbytes == 4 * pixels


def test_pictures_that_do_not_fit_into_memory_are_counted_in_bytes(tmp_path):
    videos = StaticImages(training_tree(tmp_path) / "static")
    assert Loaded(videos, room=2 * 4 * 80 * 100).nbytes == 64_000
    with pytest.raises(ValueError, match=r"2 of 2 pictures take 64,000 bytes, but only 63,999 are free"):
        Loaded(videos, room=63_999)
