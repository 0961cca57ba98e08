from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18, resnet50

from emavos.data import Sample
from emavos.data.places import gap_at
from emavos.frames.preprocess import normalize
from emavos.models import PRESETS, STCN
from emavos.training import STAGES, TrainConfig, start_from_imagenet, train
from emavos.training.checkpoint import load_checkpoint, save_checkpoint
from emavos.training.clip import clip_logits
from emavos.training.learner import Learner, make_optimiser
from emavos.training.losses import dice_loss
from emavos.training.sources import open_samples
from emavos.training.stages import PAPER
from emavos.weights.convert import from_stcn
from golden import reference
from golden.fill import fill_state_dict
from trees import davis_tree, training_tree

SMALL = TrainConfig(
    iterations=4, decay_from=2, warmup=2, batch=2, size=48, all_pixels_until=1, hardest_from=3
)


def fresh():
    torch.manual_seed(0)
    return STCN(PRESETS["stcn-tiny"])


def batch(objects=2, clips=2):
    generator = torch.Generator().manual_seed(1)
    masks = torch.zeros(clips, 3, objects, 48, 48)
    for i in range(objects):
        masks[:, :, i, 8 * i : 8 * i + 20, 5:40] = 1
        masks[:, :, :i] *= 1 - masks[:, :, i : i + 1]
    frames = torch.randn(clips, 3, 3, 48, 48, generator=generator)
    return Sample(frames, masks, torch.ones(clips, objects))


def test_the_stages_are_those_of_the_paper():
    table = {
        name: (c.batch, c.iterations, c.decay_from, c.optimiser, c.lr, c.learning_rate(c.decay_from - 1))
        for name, c in STAGES.items()
        if name.isdecimal()
    }
    assert table == {
        "0": (2 * 8, 300_000, 150_000, "adam", 1e-5, 1.0),  # batches of two processes
        "1": (2 * 4, 500_000, 400_000, "adam", 1e-5, 1.0),
        "2": (2 * 4, 300_000, 250_000, "adam", 1e-5, 1.0),
        "3": (2 * 4, 150_000, 125_000, "adam", 1e-5, 1.0),
    }
    for name in PAPER:
        config = STAGES[name]
        assert config.learning_rate(config.decay_from) == pytest.approx(0.1)
        assert (config.all_pixels_until, config.hardest_from, config.least_fraction) == (20_000, 70_000, 0.15)
        assert config.bootstrapping == "hardest"


def test_the_gaps_and_crops_of_the_stages_are_those_of_stcn():
    fractions = (0.05, 0.15, 0.25, 0.35, 0.6, 0.79, 0.81, 0.89, 0.91)
    gaps = {
        name: [gap_at(config.gaps, f) for f in fractions] for name, config in PAPER.items() if config.gaps
    }
    main = [5, 10, 15, 20, 25, 25, 25, 25, 5]
    assert gaps.pop("1") == [5, 10, 15, 20, 25, 25, 5, 5, 5]
    assert gaps == dict.fromkeys(["2", "3", "paper-pretrained", "paper-alone"], main)
    # areas of STCN's crops begin at 0.25 in BL30K, else at 0.36
    assert {name: config.zoom[0] ** 2 for name, config in PAPER.items() if config.gaps} == pytest.approx(
        {"1": 0.25, "2": 0.36, "3": 0.36, "paper-pretrained": 0.36, "paper-alone": 0.36}
    )


def test_the_table_of_the_stages_says_what_the_stages_are():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    rows = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall("`([^`]+)`", cells[0]) if len(cells) == 6 else ():
            rows[name] = cells[2:]
    for name, config in PAPER.items():
        sources = ", ".join(f"`{source}`" for source in config.sources)
        assert rows[name] == [sources, f"{config.iterations:,}", str(config.batch), str(config.size)], name


def test_a_clip_of_one_object_among_clips_of_two_gives_what_the_reference_gives_it_alone(parity):
    with np.load(parity / "real" / "train_forward.npz") as file:
        forward = dict(file)
    shapes = reference.shapes()
    shapes["value_encoder.conv1.weight"] = (64, 4, 7, 7)
    model = from_stcn(fill_state_dict(shapes))
    frames = normalize(torch.from_numpy(forward["frames"]).permute(0, 3, 1, 2).float() / 255)
    first = torch.stack([torch.from_numpy(forward[key][0]).float() for key in ("gt", "sec_gt")])
    alone = first * torch.tensor([1.0, 0.0]).view(2, 1, 1)
    valid = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    with torch.no_grad():
        logits = clip_logits(model, torch.stack([frames, frames]), torch.stack([alone, first]), valid)
    for t, ours in enumerate(logits, 1):
        assert reference.relative_error(ours[:1, :2], forward[f"so_logits{t}"]) <= 1e-4
        assert float(ours[0].softmax(0)[2].max()) < 1e-6


def test_a_plane_without_an_object_changes_neither_loss_nor_gradient():
    one = batch(objects=1)
    empty = torch.zeros_like(one.masks)
    two = Sample(one.frames, torch.cat([one.masks, empty], 2), torch.tensor([[1.0, 0.0]] * 2))
    results = []
    for sample in (one, two):
        learner = Learner(fresh(), SMALL)
        loss = learner.step(sample, 0)
        grads = torch.cat([p.grad.flatten() for p in learner.model.parameters()])
        results.append((loss, grads))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-3)


def test_dice_is_a_mean_over_clips_of_the_objects_that_are_there():
    target = torch.zeros(2, 2, 20, 20)
    target[..., :10] = 1
    prob = target.clone()
    prob[0, 1] = 1 - prob[0, 1]  # wrong, but there is no such object
    prob[1, 0] = 1 - prob[1, 0]
    loss = dice_loss(prob, target, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert float(loss) == pytest.approx(0.25, abs=0.01)


def test_a_learner_takes_the_bootstrapping_of_its_config():
    config = dataclasses.replace(SMALL, all_pixels_until=0, hardest_from=0, dice=0.0)
    plain = dataclasses.replace(config, least_fraction=1.0)
    scaled = dataclasses.replace(config, bootstrapping="scaled")
    losses = [Learner(fresh(), c).step(batch(), 0).loss for c in (plain, config, scaled)]
    assert losses[1] > losses[0]
    assert losses[2] == pytest.approx(0.15 * losses[0])


def test_a_run_from_before_bootstrapping_could_be_chosen_took_the_hardest_pixels():
    fields = json.loads(SMALL.to_json())
    del fields["bootstrapping"]
    assert TrainConfig.from_json(json.dumps(fields)) == SMALL


def test_the_optimiser_is_the_one_of_the_config():
    kinds = {
        name: type(make_optimiser(fresh(), dataclasses.replace(SMALL, optimiser=name)))
        for name in ("adam", "adamw")
    }
    assert kinds == {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def test_trunks_and_transformer_have_learning_rates_of_their_own(monkeypatch):
    monkeypatch.setitem(PRESETS, "stcn-base", dataclasses.replace(PRESETS["stcn-base"], vit_depth=1))
    model = STCN(PRESETS["stcn-base"])
    names = {id(p): name for name, p in model.named_parameters()}
    config = dataclasses.replace(SMALL, lr=1e-3, trunk_lr=1e-4, vit_lr=1e-5)
    rates = {
        names[id(p)]: group["base"]
        for group in make_optimiser(model, config).param_groups
        for p in group["params"]
    }
    assert set(rates) == set(names.values())
    assert {rate for name, rate in rates.items() if ".trunk." in name} == {1e-4}
    assert {rate for name, rate in rates.items() if name.startswith("key_encoder.vit.")} == {1e-5}
    assert rates["key_encoder.vit_proj.weight"] == rates["decoder.pred.weight"] == 1e-3
    for group in make_optimiser(model, dataclasses.replace(config, vit_lr=0.0)).param_groups:
        assert group["base"] == (1e-4 if ".trunk." in names[id(group["params"][0])] else 1e-3)


def test_the_scaler_of_half_precision_is_resumed(tmp_path):
    config = dataclasses.replace(SMALL, precision="float16")
    learner = Learner(fresh(), config)
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # too large: the step is left out
    before = [p.detach().clone() for p in learner.model.parameters()]
    learner.step(batch(), 0)
    assert all(map(torch.equal, before, learner.model.parameters()))
    assert learner.scaler.get_scale() == 2.0**39
    save_checkpoint(tmp_path / "x.safetensors", learner, 1)
    resumed = Learner(fresh(), config)
    assert load_checkpoint(tmp_path / "x.safetensors", resumed) == 1
    assert resumed.scaler.get_scale() == 2.0**39
    resumed.scaler.load_state_dict(resumed.scaler.state_dict() | {"scale": 1024.0})
    resumed.step(batch(), 1)
    assert not all(map(torch.equal, before, resumed.model.parameters()))


def test_resnet_trunks_start_from_the_weights_of_torchvision(tmp_path):
    theirs = {"key": resnet50(weights=None), "value": resnet18(weights=None)}
    paths = [tmp_path / f"{name}.safetensors" for name in theirs]
    for net, path in zip(theirs.values(), paths, strict=True):
        save_file(net.state_dict(), path)
    model = start_from_imagenet("stcn-external-both", trunks=paths)
    key, value = model.key_encoder.trunk, model.value_encoder.trunk
    assert torch.equal(key.layer3[5].conv2.weight, theirs["key"].layer3[5].conv2.weight)
    assert torch.equal(value.conv1.weight[:, :3], theirs["value"].conv1.weight)
    mask = value.conv1.weight[:, 3:].flatten(1)
    torch.testing.assert_close(mask @ mask.T, torch.eye(64), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="does not hold torchvision's ResNet of this depth"):
        start_from_imagenet("stcn", trunks=paths[::-1])
    with pytest.raises(ValueError, match="has no ResNets"):
        start_from_imagenet("stcn-tiny", trunks=paths)


@pytest.fixture
def everything(tmp_path):
    """The data sets of the paper's stages, in small, as they unpack."""
    davis_tree(tmp_path / "DAVIS", {"bear": 5, "judo": 4})
    (tmp_path / "DAVIS" / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "DAVIS" / "ImageSets" / "2017" / "train.txt").write_text("bear\n")
    training_tree(tmp_path / "tree")
    (tmp_path / "tree" / "static").rename(tmp_path / "static")
    for name in ("BL30K", "YouTubeVOS/train"):
        davis_tree(tmp_path / "deep", {"a": 4, "b": 3})
        for kind in ("JPEGImages", "Annotations"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "deep" / kind / "480p").rename(tmp_path / name / kind)
            (tmp_path / "deep" / kind).rmdir()
    return tmp_path


@pytest.mark.parametrize("stage", list(PAPER))
def test_each_stage_of_the_paper_draws_from_its_data_sets(everything, stage):
    config = dataclasses.replace(STAGES[stage], size=48)
    samples = open_samples(everything, config)
    assert len(samples) == config.iterations * config.batch
    sample = samples[0]
    assert sample.masks.shape == (3, config.objects, 48, 48)
    assert sample.valid[0] == 1


def test_a_stage_of_the_paper_learns_from_end_to_end(everything):
    config = dataclasses.replace(
        STAGES["3"],
        preset="stcn-tiny",
        iterations=2,
        decay_from=1,
        size=48,
        batch=2,
        all_pixels_until=0,
        hardest_from=1,
    )
    model = train(fresh(), everything, everything / "run", config, workers=0)
    assert not all(map(torch.equal, model.parameters(), fresh().parameters()))


def test_a_source_that_does_not_exist_or_fit_is_named(everything):
    with pytest.raises(ValueError, match="there is no source nope; they are static, clips, more-static"):
        open_samples(everything, dataclasses.replace(STAGES["3"], sources=("nope",)))
    with pytest.raises(ValueError, match="composed samples are made of static and clips, not DAVIS"):
        open_samples(everything, dataclasses.replace(SMALL, sources=("DAVIS",)))


def test_a_source_that_counts_more_often_is_drawn_more_often(everything):
    config = dataclasses.replace(SMALL, sampling="mixed", sources=("static", "DAVIS", "BL30K"))
    often = dataclasses.replace(config, repeats=(2, 6, 1))
    assert [len(open_samples(everything, one).clips) for one in (config, often)] == [1 + 2, 6 * 1 + 2]
    assert len(open_samples(everything, often).stills) == 2 * len(open_samples(everything, config).stills)


def test_a_run_whose_gaps_grow_keeps_its_length(everything):
    config = dataclasses.replace(
        STAGES["3"], preset="stcn-tiny", iterations=4, decay_from=3, size=48, batch=1
    )
    train(fresh(), everything, everything / "run", config, workers=0, stop=1)
    with pytest.raises(ValueError, match="iterations was 4, is 6"):
        train(fresh(), everything, everything / "run", dataclasses.replace(config, iterations=6), workers=0)
