from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.nn import functional

from emavos.cli import _parser, main
from emavos.cli.train import _start
from emavos.models import PRESETS, STCN, weights_sha256
from emavos.models.encoders import SCENE_SHARE
from emavos.models.scene_key import SceneKey
from emavos.training import TrainConfig, distil
from emavos.training.distil import _directions, add_scene_key, learn_scene_key
from emavos.training.sources import open_samples
from emavos.weights import load_model, save_model


@pytest.fixture
def samples(root):
    config = TrainConfig(sampling="mixed", size=64, frames=2, batch=2, iterations=8, decay_from=8)
    return open_samples(root, config)


@pytest.fixture
def teacher(monkeypatch):
    """A model like base, with a transformer of one block."""
    torch.manual_seed(1)
    small = dataclasses.replace(PRESETS["stcn-base-parts"], vit_depth=1)
    monkeypatch.setitem(PRESETS, "stcn-base-parts", small)
    return STCN(small).eval()


def test_the_scene_part_learns_the_directions_of_a_key_and_not_its_length():
    torch.manual_seed(0)
    maps = 5 * torch.randn(24, 20, 6, 6) + 3
    mixed = torch.nn.Conv2d(20, 6, 1, bias=False)(functional.avg_pool2d(maps, 3, 1, 1)).detach()
    lengths = torch.rand(24, 1, 6, 6) * 100 + 1
    scene = SceneKey((4, 6, 10), 6)
    loss = learn_scene_key(scene, maps.half(), (mixed * lengths / 30).half(), steps=150)
    assert loss < 0.15
    with torch.no_grad():
        learned = scene.proj(scene.seen(maps))
        target = torch.einsum("bkhw,kc->bchw", mixed, _directions(mixed, 6))
        assert functional.cosine_similarity(learned, target, dim=1).mean() > 0.85


def test_a_scene_part_takes_its_share_of_the_similarity_and_the_others_keep_theirs(samples, teacher):
    torch.manual_seed(0)
    model = STCN(PRESETS["stcn-tiny-fine"]).eval()
    for name, length in (("log_scale", 15.0), ("log_fine_scale", 7.0), ("log_position", 3.0)):
        getattr(model.key_encoder, name).data.fill_(math.log(length))
    grown = add_scene_key(model, "stcn-tiny-scene", teacher, samples, pictures=3, steps=2).eval()
    frames = samples[5].frames[:1]
    with torch.no_grad():
        before, after = (x.encode_key(frames).key[0].flatten(1) for x in (model, grown))  # (Ck, P)

    def similarity(part, whole):  # STCN's, without the norms, which are equal in all cells
        return part.T @ part / len(whole) ** 0.5

    kept = similarity(before[:84], before)
    assert torch.allclose(similarity(after[:84], after), (1 - SCENE_SHARE) * kept, rtol=1e-3, atol=1e-3)
    assert torch.allclose(similarity(after[-4:], after), similarity(before[-4:], before), atol=1e-3)
    scene = similarity(after[84:116], after).diagonal()
    assert torch.allclose(scene, SCENE_SHARE * kept.diagonal(), rtol=1e-3)


def test_a_scene_part_is_refused_for_other_models_and_teachers(samples, teacher):
    model = STCN(PRESETS["stcn-tiny-fine"])
    with pytest.raises(ValueError, match="the teacher's key has no transformer's part"):
        add_scene_key(model, "stcn-tiny-scene", model, samples)
    with pytest.raises(ValueError, match="for a preset with it, not stcn-tiny-fine"):
        add_scene_key(model, "stcn-tiny-fine", teacher, samples)
    with pytest.raises(ValueError, match="in more than the scene's part"):
        add_scene_key(STCN(PRESETS["stcn-tiny-position"]), "stcn-tiny-scene", teacher, samples)


def test_a_stage_with_a_scene_part_asks_for_a_teacher(root, tmp_path, capsys):
    arguments = ["train", "--stage", "tiny-9", "--data", str(root), "--out", str(tmp_path / "run")]
    assert main([*arguments, "--teacher", "base"]) == 1
    assert "--teacher extends a model; add --init tiny" in capsys.readouterr().err
    save_model(STCN(PRESETS["stcn-tiny-fine"]), tmp_path / "fine")
    assert main([*arguments, "--init", str(tmp_path / "fine")]) == 1
    assert "has no scene's part of the key; add --teacher base" in capsys.readouterr().err


def test_what_was_distilled_is_kept_and_read_again_on_resuming(root, tmp_path, monkeypatch):
    grown = STCN(PRESETS["stcn-tiny-scene"]).eval()
    calls = []
    monkeypatch.setattr(distil, "add_scene_key", lambda *arguments: calls.append(arguments) or grown)
    arguments = ["train", "--stage", "tiny-9", "--data", str(root), "--out", str(tmp_path / "run")]
    args = _parser().parse_args(
        [*arguments, "--init", "tiny", "--teacher", "tiny", "--set", 'sources=["static","clips"]']
    )
    for _ in range(2):
        config, start = _start(args)
        assert config.preset == "stcn-tiny-scene"
        assert weights_sha256(start) == weights_sha256(grown)
    assert len(calls) == 1
    assert weights_sha256(load_model(tmp_path / "run" / "start")) == weights_sha256(grown)
