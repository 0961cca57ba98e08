from __future__ import annotations

import dataclasses

import pytest
import torch

from emavos.data import Clips, Joined, MixedSamples, Remembered, StaticImages
from trees import training_tree


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return training_tree(tmp_path_factory.mktemp("data"))


@pytest.fixture
def samples(root):
    return MixedSamples(
        Joined([StaticImages(root / "static")]),
        Joined([Clips(root / "clips")]),
        count=40,
        batch=4,
        size=64,
        frames=3,
    )


def test_a_mixed_sample_depends_on_its_number_and_the_seed_alone(samples):
    again = samples[5]
    for ours, theirs in zip(samples[5], again, strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(dataclasses.replace(samples, seed=1)[5].frames, again.frames)


def test_batches_have_one_number_of_objects_and_all_numbers_occur(samples):
    counts = [{samples[i].masks.shape[1] for i in range(first, first + 4)} for first in range(0, 40, 4)]
    assert all(len(count) == 1 for count in counts)
    assert set.union(*counts) == {1, 2, 3}


def test_objects_are_disjoint_and_there_in_the_first_frame(samples):
    for i in range(20):
        frames, masks, valid = samples[i]
        assert frames.shape == (3, 3, 64, 64)
        assert masks.unique().tolist() == [0, 1]
        assert bool((masks.sum(dim=1) <= 1).all())
        assert bool(valid.all())


def test_things_that_lie_under_hide_nothing_of_the_others(samples):
    """With every thing pasted under, the first object keeps the pixels that it has alone."""
    alone = dataclasses.replace(samples, objects=(1.0,), occluder=0.0, blur=0.0)
    hidden = dataclasses.replace(samples, objects=(1.0,), occluder=1.0, under=1.0, lookalike=0.0, blur=0.0)
    for i in range(8):
        assert torch.equal(hidden[i].masks[0], alone[i].masks[0])


def test_copied_things_are_objects_of_the_first_frame(samples):
    counts = []
    for lookalike in (0.0, 0.5, 1.0):
        some = dataclasses.replace(samples, lookalike=lookalike, objects=(1.0,), occluder=1.0)
        plans = [some.plan(i) for i in range(40)]
        copies = [plan for plan in plans if plan.pastes[0].still is None]
        assert all(1 <= plan.pastes[0].source_id <= len(plan.chosen) for plan in copies)
        counts.append(len(copies))
    assert counts[0] == 0
    assert 10 <= counts[1] <= 30
    assert counts[2] >= 32  # all but those of frames without an object large enough to track


def test_a_still_image_and_a_pasted_thing_do_not_move_in_the_first_frame(samples):
    for plan in map(dataclasses.replace(samples, real=0.0, occluder=1.0).plan, range(8)):
        for motions in (plan.scene.motions, *(paste.motions for paste in plan.pastes)):
            assert torch.equal(motions[0].matrix, torch.eye(2, 3))
            assert not motions[0].warp.any()
            assert not torch.equal(motions[1].matrix, torch.eye(2, 3))


def test_the_choices_of_a_sample_depend_on_masks_and_not_on_colours(root, samples):
    class Inverted(StaticImages):
        def load(self, video, frame):
            image, mask = super().load(video, frame)
            return 255 - image, mask

    inverted = dataclasses.replace(samples, stills=Inverted(root / "static"), real=0.0)
    samples = dataclasses.replace(samples, real=0.0)
    for i in range(8):
        ours, theirs = samples[i], inverted[i]
        assert torch.equal(ours.masks, theirs.masks)
        assert not torch.allclose(ours.frames, theirs.frames)


def test_remembered_pictures_are_the_same_and_loaded_once(root):
    loads = []

    class Counted(Clips):
        def load(self, video, frame):
            loads.append((video, frame))
            return super().load(video, frame)

    clips = Counted(root / "clips")
    kept = Remembered(clips)
    assert (len(kept), kept.length(0), kept.step(0)) == (len(clips), clips.length(0), clips.step(0))
    first, second = kept.load(0, 0), kept.load(0, 0)
    assert loads == [(0, 0)]
    assert all(map(torch.equal, first, second))
    none = Remembered(clips, nbytes=1)
    none.load(0, 0)
    none.load(0, 0)
    assert loads == [(0, 0)] * 3
