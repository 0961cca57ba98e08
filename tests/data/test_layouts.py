from __future__ import annotations

import os
import shutil
import struct
import zlib
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from emavos.cli import main
from emavos.data import BL30K, Clips, Davis, Joined, StaticImages, VideoSamples, YouTubeVOS
from emavos.data.check import list_groups
from emavos.data.places import draw_places, gap_at
from emavos.data.static import read_still_mask
from emavos.data.thin_plate import thin_plate_warp
from emavos.io import read_frame, write_mask
from trees import davis_tree, training_tree


@pytest.fixture
def davis(tmp_path):
    root = davis_tree(tmp_path / "DAVIS", {"bear": 5, "judo": 4})
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "train.txt").write_text("bear\n")
    return root


@pytest.fixture
def flat(davis):
    """The same frames without the folder that DAVIS has in between, as YouTube-VOS and BL30K unpack."""
    root = davis.parent / "flat"
    for kind in ("JPEGImages", "Annotations"):
        shutil.copytree(davis / kind / "480p", root / "train" / kind)
    return root


def test_davis_has_the_sequences_of_its_split(davis):
    assert Davis(davis).names == ["bear"]
    with pytest.raises(ValueError, match=r"2017/val\.txt does not exist"):
        Davis(davis, split="2017/val")


def test_layouts_differ_in_where_things_are_and_in_their_steps(davis, flat):
    youtube, rendered = YouTubeVOS(flat), BL30K(flat / "train")
    assert youtube.names == rendered.names == Clips(davis).names == ["bear", "judo"]
    assert [x.step(0) for x in (youtube, rendered, Davis(davis))] == [5, 1, 1]
    assert youtube.length(1) == 4
    for image, mask in (youtube.load(0, 2), Clips(davis).load(0, 2)):
        assert image.shape == (3, 96, 128)
        assert mask.dtype == torch.uint8
        assert mask.shape == (96, 128)


def test_frames_without_a_mask_are_passed_over(flat):
    for name in ("00000", "00003"):
        (flat / "train" / "Annotations" / "bear" / f"{name}.png").unlink()
    assert [frame.stem for frame in YouTubeVOS(flat).frames(0)] == ["00001", "00002", "00004"]


def test_files_beside_the_masks_are_no_masks(flat):
    masks = flat / "train" / "Annotations" / "bear"
    (masks / "00001.png").rename(masks / "00001.jpg")
    (masks / "00003.png").rename(masks / "00003.txt")
    assert [frame.stem for frame in YouTubeVOS(flat).frames(0)] == ["00000", "00002", "00004"]


def test_pictures_are_read_as_a_session_reads_them(tmp_path):
    """Upright; over black; and what is no mask of ids is refused rather than trained on."""
    root = training_tree(tmp_path / "data") / "clips"
    frame, path = (root / kind / "480p" / "one" for kind in ("JPEGImages", "Annotations"))
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera that was held upright
    with Image.open(frame / "00000.jpg") as image:
        image.rotate(90, expand=True).save(frame / "00000.jpg", exif=turned)
    image, mask = Clips(root).load(0, 0)
    assert image.shape == (3, 96, 128)
    assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(read_frame(frame / "00000.jpg")))
    write_mask(path / "00000.png", mask.numpy().astype(np.int32) * 300)
    with pytest.raises(ValueError, match=r"00000\.png has id 900; a sample holds ids 0 to 255"):
        Clips(root).load(0, 0)
    Image.open(frame / "00001.jpg").save(path / "00000.png")
    with pytest.raises(ValueError, match=r"00000\.png is an RGB image of .* anti-aliased or compressed"):
        Clips(root).load(0, 0)


def test_a_soft_mask_of_a_still_image_is_cut_at_half(tmp_path):
    """As sets of salient objects have them: white on black, with gray on the edges."""
    root = training_tree(tmp_path / "data") / "static"
    soft = np.zeros((80, 100), dtype=np.uint8)
    soft[20:60, 30:70] = 255
    soft[20:60, 29], soft[20:60, 70], soft[61, 30:70] = 127, 128, 1
    Image.fromarray(soft).save(root / "masks" / "a.png")
    images = StaticImages(root)
    assert torch.equal(images[0][1], torch.from_numpy(soft >= 128).to(torch.uint8))
    assert images[1][1].unique().tolist() == [0, 1, 2, 3]
    assert main(["data", "check", str(root)]) == 0


def huge(path):
    size, pixels = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0), zlib.compress(b"")
    chunks = ((b"IHDR", size), (b"IDAT", pixels), (b"IEND", b""))
    whole = (struct.pack(">I", len(x)) + k + x + struct.pack(">I", zlib.crc32(k + x)) for k, x in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(whole))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (huge, "is not an image that can be read"),
        pytest.param(
            os.mkfifo if hasattr(os, "mkfifo") else None,
            "is a pipe or a device, not an image",
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here"),
        ),
    ],
    ids=["declares 30000x30000", "a pipe"],
)
def test_a_hostile_mask_of_a_still_image_is_refused_by_name(tmp_path, capsys, spoil, message):
    root = training_tree(tmp_path / "data") / "static"
    mask = root / "masks" / "a.png"
    mask.unlink()
    spoil(mask)
    with pytest.raises(ValueError, match=f"a\\.png {message}"):
        StaticImages(root)[0]
    assert main(["data", "check", str(root)]) == 1
    assert f"a.png {message}" in capsys.readouterr().out


def test_a_mask_of_a_still_image_is_turned_as_its_exif_says(tmp_path):
    white = np.zeros((4, 6), dtype=np.uint8)
    white[:2] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    Image.fromarray(white).save(tmp_path / "a.png", exif=turned)
    assert np.array_equal(read_still_mask(tmp_path / "a.png"), np.rot90(white == 255, -1))


def test_still_images_may_lie_beside_their_masks(tmp_path):
    apart = training_tree(tmp_path / "data") / "static"
    beside = tmp_path / "beside" / "deep"
    shutil.copytree(apart / "images", beside)
    shutil.copytree(apart / "masks", beside, dirs_exist_ok=True)
    images = StaticImages(beside.parent)
    assert len(images) == images.length(0) + 1 == 2
    for ours, theirs in zip(images.load(1, 0), StaticImages(apart)[1], strict=True):
        assert torch.equal(ours, theirs)


def test_joined_sets_count_as_often_as_they_are_repeated(davis, flat):
    few, many = Davis(davis), YouTubeVOS(flat)
    both = Joined([few, many], [3, 1])
    assert [both.length(i) for i in range(len(both))] == [5, 5, 5, 5, 4]
    assert [both.step(i) for i in range(len(both))] == [1, 1, 1, 5, 5]
    assert torch.equal(both.load(4, 3)[0], many.load(1, 3)[0])


def test_places_keep_to_the_gap_and_to_the_video():
    rng = np.random.default_rng(0)
    for _ in range(200):
        length, count, gap = (int(x) for x in rng.integers((1, 2, 1), (30, 6, 12)))
        places = draw_places(rng, length, count, gap)
        steps = np.diff(places)
        assert len(places) == count
        assert min(places) >= 0
        assert max(places) < length
        assert (np.abs(steps) <= gap).all()
        assert (steps != 0).all() or length == 1
        if length >= count:
            assert (steps > 0).all() or (steps < 0).all()


def test_gaps_grow_with_the_run_and_shrink_at_its_end():
    gaps = ((0.0, 5), (0.1, 10), (0.9, 5))
    assert [gap_at(gaps, x) for x in (0, 0.09, 0.1, 0.5, 0.89, 0.9, 1)] == [5, 5, 10, 10, 10, 5, 5]


class Numbered:
    """Videos whose pixels tell the frame; objects of id 3 and 7, and in the second video of id 7 alone."""

    def __init__(self, step=1):
        self.every = step
        self.loaded = []

    def __len__(self):
        return 2

    def length(self, video):
        return 40

    def step(self, video):
        return self.every

    def load(self, video, frame):
        self.loaded.append(frame)
        mask = torch.zeros(64, 64, dtype=torch.uint8)
        mask[8:30, 8:56] = 0 if video else 3
        mask[36:56, 8:56] = 7
        return torch.full((3, 64, 64), frame, dtype=torch.uint8), mask


def test_planes_without_an_object_are_empty_and_not_valid():
    samples = VideoSamples(Numbered(), count=40, size=48, zoom=(1.0, 1.0))
    counts = set()
    for i in range(40):
        frames, masks, valid = samples[i]
        assert frames.shape == (3, 3, 48, 48)
        assert masks.shape == (3, 2, 48, 48)
        assert masks.sum(1).max() <= 1
        assert masks[0].flatten(1).any(dim=1).tolist() == valid.bool().tolist()
        assert not masks[:, ~valid.bool()].any()
        counts.add(int(valid.sum()))
    assert counts == {1, 2}


@pytest.mark.parametrize(("step", "largest"), [(1, 10), (5, 2)])
def test_gaps_are_counted_in_frames_of_the_video(step, largest):
    videos = Numbered(step)
    samples = VideoSamples(videos, count=60, size=16, gaps=((0.0, 5), (0.5, 10)))
    early, late = [], []
    for i in range(60):
        videos.loaded.clear()
        samples[i]
        (early if i < 30 else late).extend(abs(b - a) for a, b in pairwise(videos.loaded[-3:]))
    assert max(late) == largest
    assert max(early) == largest // 2


def test_a_sample_of_videos_depends_on_its_number_and_the_seed_alone():
    samples = VideoSamples(Numbered(), count=8, size=32, still=0.5)
    later = [samples[i] for i in (5, 2)]
    for ours, theirs in zip(samples[2], later[1], strict=True):
        assert torch.equal(ours, theirs)
    other = VideoSamples(Numbered(), count=8, size=32, still=0.5, seed=1)
    assert not torch.equal(samples[2].frames, other[2].frames)


def test_a_thin_plate_moves_its_control_points_as_told():
    moves = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    size = 601  # its outermost points are nearly those of the square
    warp = thin_plate_warp(moves, size)
    for i, row in enumerate((0, size // 2, size - 1)):
        for j, column in enumerate((0, size // 2, size - 1)):
            torch.testing.assert_close(warp[row, column], moves[:, i, j], atol=0.02, rtol=0)


def test_a_thin_plate_bends_no_more_than_it_must():
    """Moves that an affine map makes are made by that map everywhere."""
    line = torch.linspace(-1, 1, 4)
    y, x = torch.meshgrid(line, line, indexing="ij")
    warp = thin_plate_warp(torch.stack([0.1 + 0.2 * x - 0.1 * y, 0.3 * y]), 20)
    line = (torch.arange(20) + 0.5) / 10 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    torch.testing.assert_close(warp, torch.stack([0.1 + 0.2 * x - 0.1 * y, 0.3 * y], -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("apart", [True, False])
def test_a_still_image_may_be_webp(tmp_path, apart):
    root = training_tree(tmp_path)
    images, masks = root / "static" / "images", root / "static" / "masks"
    Image.open(images / "a.jpg").save(images / "a.webp", lossless=True)
    with Image.open(images / "a.jpg") as image:
        pixels = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)
    (images / "a.jpg").unlink()
    if not apart:
        for path in list(images.iterdir()):
            path.rename(masks / path.name)
        masks.rename(root / "static" / "both")
    stills = StaticImages(root / "static")
    assert [path.name for path in stills.images] == ["a.webp", "b.jpg"]
    assert torch.equal(stills[0][0], pixels)
    groups, wrong = list_groups(root / "static")
    assert (len(groups), wrong) == (2, [])
