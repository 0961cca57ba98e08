from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from emavos.data import Clips, ClipSamples, StaticImages, VideoSamples
from emavos.data.samples import object_of
from emavos.data.thin_plate import _basis
from emavos.data.transforms import Blur, Colour, Motion, View, draw_object_view, draw_view
from trees import training_tree


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return training_tree(tmp_path_factory.mktemp("data"))


@pytest.fixture
def samples(root):
    return ClipSamples(StaticImages(root / "static"), Clips(root / "clips"), count=24, batch=4, size=48)


@pytest.fixture
def threads():
    """Sets how many threads torch has; afterwards it has as many as before."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_sample_depends_on_its_number_and_the_seed_alone(samples):
    later = [samples[i] for i in (7, 3)]
    assert torch.equal(samples[3].frames, later[1].frames)
    assert torch.equal(samples[3].masks, later[1].masks)
    other = dataclasses.replace(samples, seed=1)
    assert not torch.equal(samples[3].frames, other[3].frames)


def test_workers_draw_the_same_samples(samples):
    alone = list(DataLoader(samples, batch_size=4))
    shared = list(DataLoader(samples, batch_size=4, num_workers=2))
    for ours, theirs in zip(alone, shared, strict=True):
        assert torch.equal(ours.frames, theirs.frames)
        assert torch.equal(ours.masks, theirs.masks)


@pytest.mark.parametrize("default", ["device", "dtype"])
@pytest.mark.parametrize("kind", [ClipSamples, VideoSamples])
def test_the_callers_default_device_and_type_change_no_sample(root, samples, default, kind):
    drawn = samples if kind is ClipSamples else VideoSamples(Clips(root / "clips"), count=24, size=48)
    plain = drawn[1]
    _basis.cache_clear()
    try:
        torch.set_default_device("meta") if default == "device" else torch.set_default_dtype(torch.float64)
        sample = drawn[1]
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    for ours, theirs in zip(sample, plain, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def test_threads_do_not_change_a_picture(threads):
    """A worker has one thread; the process that trains, without workers, has many."""
    images = torch.rand(12, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    colours = [Colour.draw(np.random.default_rng(seed)) for seed in range(12)]
    seen = []
    for count in (1, 4):
        threads(count)
        seen.append([colour(image) for colour, image in zip(colours, images, strict=True)])
    assert all(map(torch.equal, *seen))


def test_samples_of_a_batch_have_as_many_objects_and_both_numbers_occur(samples):
    counts = [[samples[i].masks.shape[1] for i in range(b, b + 4)] for b in range(0, 24, 4)]
    assert all(len(set(batch)) == 1 for batch in counts)
    assert {batch[0] for batch in counts} == {1, 2}


def test_masks_are_zero_and_one_and_disjoint(samples):
    for i in range(12):
        frames, masks, _ = samples[i]
        assert frames.shape == (3, 3, 48, 48)
        assert masks.shape[2:] == (48, 48)
        assert set(masks.unique().tolist()) <= {0.0, 1.0}
        assert masks.sum(1).max() <= 1
        assert frames.isfinite().all()


@pytest.mark.parametrize("real", [0.0, 1.0])
def test_image_and_mask_move_together(real):
    """Pictures whose brightness is their mask: what is seen bright is what the mask says."""

    class Static:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            mask = torch.zeros(64, 80, dtype=torch.uint8)
            mask[20:44, 30:60] = 1
            return (mask * 255).expand(3, -1, -1), mask

    class Moving:
        def __len__(self):
            return 2

        def length(self, video):
            return (6, 9)[video]

        def load(self, sequence, frame):
            mask = torch.zeros(64, 80, dtype=torch.uint8)
            mask[10 + 2 * frame : 40 + 2 * frame, 20:50] = 1
            return (mask * 255).expand(3, -1, -1), mask

    samples = ClipSamples(Static(), Moving(), count=8, batch=1, size=48, real=real, two_objects=0, occluder=0)
    for i in range(8):
        frames, masks, _ = samples[i]
        for frame, (mask,) in zip(frames, masks, strict=True):
            if 0 < mask.mean() < 1:
                low, high = frame.mean(0)[mask == 0].median(), frame.mean(0)[mask == 1].median()
                assert high > low
                assert ((frame.mean(0) > (low + high) / 2) == (mask == 1)).float().mean() > 0.95


def test_a_second_object_lies_on_top_of_the_first(samples):
    for i in range(24):
        masks = samples[i].masks
        if masks.shape[1] == 2:
            assert masks[0, 1].any()
            break
    else:
        pytest.fail("no sample with two objects")


def test_a_lookalike_is_a_copy_of_the_object_and_in_no_mask():
    frame, ids = torch.rand(3, 40, 40), torch.zeros(40, 40, dtype=torch.uint8)
    ids[10:20, 10:20] = 1
    frame[:, ids == 0] = 0
    image, mask = object_of(frame, ids)
    assert torch.equal(mask, ids)
    assert (image.float() / 255 - frame).abs().max() < 0.004


def test_a_lookalike_comes_from_the_clip_itself(root):
    class NoStatic(StaticImages):
        def __getitem__(self, index):
            raise AssertionError("a still image was drawn")

    clips, static = Clips(root / "clips"), NoStatic(root / "static")
    options = {"count": 4, "batch": 4, "size": 48, "real": 1.0, "two_objects": 0.0, "occluder": 1.0}
    assert ClipSamples(static, clips, **options, lookalike=1.0)[0].masks.shape[1] == 1
    with pytest.raises(AssertionError, match="still image"):
        ClipSamples(static, clips, **options)[0]


def test_a_line_of_blur_spreads_a_point_and_keeps_its_light():
    point = torch.zeros(3, 31, 31)
    point[:, 15, 15] = 1
    for seed in range(8):
        blur = Blur.draw(np.random.default_rng(seed), longest=9)
        smeared = blur(point)
        assert smeared.sum() == pytest.approx(3, rel=1e-5)
        assert 2 <= int((smeared[0] > 0).sum()) <= 2 * 9
        assert (smeared[:, [0, -1]] == 0).all()
        assert torch.allclose(blur(torch.full((3, 16, 16), 0.5)), torch.full((3, 16, 16), 0.5))


def test_sequences_that_are_left_out_are_not_there(root):
    clips = Clips(root / "clips", leave_out=("one", "not there at all"))
    assert clips.names == ["two"]


def test_data_that_is_not_there_is_named(root, tmp_path):
    with pytest.raises(ValueError, match="holds no masks"):
        StaticImages(tmp_path)
    with pytest.raises(ValueError, match="holds no sequence"):
        Clips(tmp_path)
    with pytest.raises(ValueError, match="holds no sequence"):
        Clips(root / "clips", leave_out=("one", "two"))


def test_an_image_and_a_mask_of_different_size_are_named(root, tmp_path):
    from emavos.data.static import load_pair

    image, mask = root / "static/images/a.jpg", root / "clips/Annotations/480p/one/00000.png"
    with pytest.raises(ValueError, match=r"a\.jpg is \(80, 100\) but .*00000\.png is \(96, 128\)"):
        load_pair(image, mask)


def test_a_view_without_motion_is_a_crop():
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mask = (image[0] > 128).to(torch.uint8)
    seen, ids = View((20.0, 16.0), (8.0, 8.0), False).sample(image, mask, Motion.still(), 16)
    torch.testing.assert_close(seen, image[:, 8:24, 12:28].float() / 255, atol=1e-5, rtol=0)
    assert torch.equal(ids, mask[8:24, 12:28])
    mirrored, _ = View((20.0, 16.0), (8.0, 8.0), True).sample(image, mask, Motion.still(), 16)
    torch.testing.assert_close(mirrored, seen.flip(2), atol=1e-5, rtol=0)


def test_a_large_picture_is_averaged_not_thinned_out():
    """Stripes a pixel wide are gray from afar; every eighth pixel alone would be a moire of both."""
    stripes = torch.zeros(3, 400, 520, dtype=torch.uint8)
    stripes[..., ::2] = 255
    mask = torch.zeros(400, 520, dtype=torch.uint8)
    mask[120:280, 130:390] = 7
    view = View((260.0, 200.0), (200.0, 200.0), False)
    seen, ids = view.sample(stripes, mask, Motion.still(), 48)
    assert (seen - 0.5).abs().max() < 0.02
    assert set(ids.unique().tolist()) == {0, 7}
    near, _ = View((260.0, 200.0), (24.0, 24.0), False).sample(stripes, mask, Motion.still(), 48)
    assert set(near.unique().tolist()) == {0.0, 1.0}


def test_what_lies_outside_the_picture_is_its_mean_and_no_object():
    image = torch.full((3, 10, 10), 102, dtype=torch.uint8)
    view = View((5.0, 5.0), (20.0, 20.0), False)
    seen, ids = view.sample(image, torch.ones(10, 10, dtype=torch.uint8), Motion.still(), 16)
    torch.testing.assert_close(seen, torch.full((3, 16, 16), 0.4))
    assert ids[0, 0] == 0
    assert ids[8, 8] == 1


def test_views_hold_a_pixel_of_the_object():
    mask = torch.zeros(60, 90, dtype=torch.bool)
    mask[50:55, 3:6] = True
    image = torch.zeros(3, 60, 90, dtype=torch.uint8)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        for view in (draw_view(mask, rng, (0.45, 1.0)), draw_object_view(mask, rng)):
            assert view.sample(image, mask.to(torch.uint8), Motion.still(), 64)[1].any()


def test_motion_and_colour_of_no_strength_change_nothing():
    rng = np.random.default_rng(0)
    still = Motion.draw(rng, 0.0)
    torch.testing.assert_close(still.matrix, torch.eye(2, 3))
    assert not still.warp.any()
    image = torch.rand(3, 8, 8)
    torch.testing.assert_close(Colour.draw(rng, 0.0)(image), image)
