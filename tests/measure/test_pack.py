from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import pack
from emavos.data import Clips, StaticImages
from emavos.data.check import check_group, list_groups
from trees import davis_tree, stills_tree


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    root = tmp_path_factory.mktemp("train")
    davis_tree(root / "clips", {"one": 5, "two": 4})
    davis_tree(root / "more" / "clips", {"three": 3}, size=(48, 64))
    stills_tree(root / "static", 6)
    stills_tree(root / "more" / "static", 4)
    Image.fromarray(np.pad(np.full((50, 60), 255, np.uint8), 20)).save(root / "static" / "masks" / "0.png")
    return root


def test_a_pack_has_the_folders_of_the_data_and_nothing_is_wrong_with_it(train, tmp_path, capsys):
    out = tmp_path / "pack"
    pack.main(["--data", str(train), "--out", str(out), "--short-side", "64"])
    clips, more = Clips(out / "clips"), Clips(out / "more" / "clips")
    assert (out / "clips" / "JPEGImages" / "480p").is_dir()
    assert [clips.length(i) for i in range(2)] == [3, 2]
    assert more.length(0) == 2
    assert len(StaticImages(out / "static")) == 6
    assert len(StaticImages(out / "more" / "static")) == 4
    groups, wrong = list_groups(out)
    assert not wrong
    assert not [line for group in groups for line in check_group(group)]
    printed = capsys.readouterr().out
    assert "clips: 5 images" in printed
    assert f"{out}: 0." in printed


def test_masks_keep_their_ids_and_images_shrink_to_the_short_side(train, tmp_path):
    pack.pack(train, tmp_path / "pack", pack.Look(short_side=64))
    packed, whole = Clips(tmp_path / "pack" / "clips"), Clips(train / "clips")
    image, mask = packed.load(0, 1)
    full = whole.load(0, 2)[1]
    assert image.shape == (3, 64, 85)
    assert mask.shape == (64, 85)
    assert mask.unique().tolist() == full.unique().tolist()
    for id in full.unique():
        assert (mask == id).float().mean().item() == pytest.approx(
            (full == id).float().mean().item(), abs=0.01
        )
    assert Clips(tmp_path / "pack" / "more" / "clips").load(0, 0)[0].shape == (3, 48, 64)  # was smaller
    white_on_black = StaticImages(tmp_path / "pack" / "static")[0][1]
    assert white_on_black.unique().tolist() == [0, 1]


def test_a_pack_of_webp_has_stills_of_their_own_side_and_the_same_ids(train, tmp_path):
    out = tmp_path / "pack"
    sides = ["--short-side", "64", "--still-side", "40", "--quality", "52", "--still-quality", "58"]
    pack.main(["--data", str(train), "--out", str(out), "--format", "webp", *sides])
    assert not list(out.rglob("*.jpg"))
    groups, wrong = list_groups(out)
    assert not wrong
    assert not [line for group in groups for line in check_group(group)]
    frame, mask = Clips(out / "clips").load(0, 0)
    still, ids = StaticImages(out / "static")[1]
    assert (frame.shape, still.shape) == ((3, 64, 85), (3, 40, 53))
    for packed, whole in (
        (mask, Clips(train / "clips").load(0, 0)[1]),
        (ids, StaticImages(train / "static")[1][1]),
    ):
        assert packed.unique().tolist() == whole.unique().tolist()
    full = StaticImages(train / "static")[1][0].float()
    small = torch.nn.functional.interpolate(full[None], (40, 53), mode="area")[0]
    assert (still - small).abs().mean() < 12


def test_a_pack_stays_within_its_limit_and_is_equal_every_time(train, tmp_path):
    whole = pack.pack(train, tmp_path / "whole")
    size = sum(pair.size for pair in whole)
    limit = 0.8 * size / pack.MIB
    pairs = pack.pack(train, tmp_path / "pack", limit=limit)
    files = {path.relative_to(tmp_path / "pack"): path.read_bytes() for path in tmp_path.glob("pack/**/*.*")}
    assert sum(map(len, files.values())) == sum(pair.size for pair in pairs) <= limit * pack.MIB
    assert len([pair for pair in pairs if pair.source in pack.CLIPS]) == 7
    assert 0 < len(pairs) < len(whole)
    pack.pack(train, tmp_path / "again", limit=limit)
    for path, content in files.items():
        assert (tmp_path / "again" / path).read_bytes() == content


def test_what_fits_is_spread_over_all_items():
    chosen = pack.spread([1] * 100, room=25)
    assert len(chosen) == 25
    assert np.diff(chosen).max() <= 5
    assert pack.spread([1, 1], room=2) == [0, 1]
    assert pack.spread([5, 5], room=1) == []


def test_what_cannot_be_packed_says_why_and_leaves_nothing(train, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    cases = {
        "there exists; choose another folder": ["--data", str(train), "--out", str(tmp_path / "there")],
        "holds none of clips, more/clips, static": ["--data", str(tmp_path), "--out", str(tmp_path / "new")],
        "raise --step or lower --quality": [
            *("--data", str(train), "--out", str(tmp_path / "new"), "--limit", "0.001")
        ],
    }
    for message, arguments in cases.items():
        with pytest.raises(SystemExit):
            pack.main(arguments)
        assert message in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
