from __future__ import annotations

import csv
import dataclasses
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from emavos.cli import main
from emavos.data import Clips
from emavos.models import PRESETS, STCN
from emavos.training import TrainConfig, train
from emavos.training.clip import clip_logits
from emavos.training.sources import open_samples
from emavos.training.start import add_key_parts, add_positions, add_transformer, mean_of_weights
from emavos.training.validation import validate
from emavos.training.widen import widened
from emavos.weights import load_model, save_model
from trees import davis_tree, training_tree

SMALL = TrainConfig(
    iterations=4,
    decay_from=2,
    warmup=2,
    batch=2,
    size=48,
    all_pixels_until=1,
    hardest_from=3,
    ema=0.5,
    leave_out=("two",),
)


def fresh():
    torch.manual_seed(0)
    return STCN(PRESETS["stcn-tiny"])


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_is_scored_on_what_it_leaves_out_and_its_best_model_kept(root, tmp_path):
    watched = train(fresh(), root, tmp_path / "a", SMALL, workers=0, validate_every=2, pictures_every=3)
    scores = rows(tmp_path / "a" / "validation.csv")
    assert [row["iteration"] for row in scores] == ["1", "3"]
    assert all(row["mean"] == row["two"] for row in scores)
    best = load_model(tmp_path / "a" / "best")
    (score,) = validate(best, [Clips(root / "clips", leave_out=("one",))]).values()
    assert score == pytest.approx(max(float(row["mean"]) for row in scores), abs=1e-5)
    with Image.open(tmp_path / "a" / "pictures" / "000003.png") as picture:
        assert picture.width == 960
    assert TrainConfig.from_json((tmp_path / "a" / "config.json").read_text()) == SMALL
    alone = train(fresh(), root, tmp_path / "b", SMALL, workers=0)
    assert all(map(torch.equal, watched.parameters(), alone.parameters()))


def test_scores_after_the_last_checkpoint_are_taken_again(root, tmp_path):
    train(fresh(), root, tmp_path, SMALL, workers=0, validate_every=1, stop=2)
    with open(tmp_path / "validation.csv", "a") as file:
        file.write("2,0.9,0.9\n")
    train(fresh(), root, tmp_path, SMALL, workers=0, validate_every=1, stop=3)
    scores = rows(tmp_path / "validation.csv")
    assert [row["iteration"] for row in scores] == ["0", "1", "2"]
    assert float(scores[2]["mean"]) < 0.9


def test_a_run_without_held_out_clips_is_not_validated(root, tmp_path):
    with pytest.raises(ValueError, match="nothing to validate on"):
        train(fresh(), root, tmp_path, dataclasses.replace(SMALL, leave_out=()), workers=0, validate_every=1)


def test_a_held_out_clip_of_too_few_masks_is_told_before_training(tmp_path):
    root = training_tree(tmp_path / "data")
    for name in ("00001", "00002", "00003"):
        (root / "clips" / "Annotations" / "480p" / "two" / f"{name}.png").unlink()
    with pytest.raises(ValueError, match="two is held out and has 2 masks; a score takes three or more"):
        train(fresh(), root, tmp_path / "run", SMALL, workers=0, validate_every=4)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_told_to_stop_is_saved_and_goes_on(root, tmp_path):
    whole = train(fresh(), root, tmp_path / "whole", SMALL, workers=0)
    seen = []
    options = {"workers": 0, "report": seen.append, "stopping": lambda: len(seen) == 2}
    train(fresh(), root, tmp_path / "parts", SMALL, **options)
    assert len(rows(tmp_path / "parts" / "log.csv")) == 2
    parts = train(fresh(), root, tmp_path / "parts", SMALL, workers=0)
    assert all(map(torch.equal, whole.parameters(), parts.parameters()))


def test_a_loss_that_is_not_finite_leaves_its_batch(root, tmp_path):
    model = fresh()
    with torch.no_grad():
        model.decoder.pred.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"iteration 0 is nan; the batch is .*failed-000000-0"):
        train(model, root, tmp_path, SMALL, workers=0)
    batch = load_file(tmp_path / "failed-000000-0.safetensors")
    assert batch["frames"].shape == (2, 3, 3, 48, 48)
    assert set(batch) == {"frames", "masks", "valid"}
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_tensorboard_gets_what_the_files_get(root, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    train(fresh(), root, tmp_path, SMALL, workers=0, stop=1, validate_every=1, tensorboard=True)
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert all(tag in content for tag in (b"train/loss", b"train/waited", b"validation/two"))


def command(root, out, *more):
    fields = (
        "size=48",
        "iterations=4",
        "decay_from=4",
        "hardest_from=4",
        "all_pixels_until=0",
        'sampling="videos"',
    )
    settings = [part for field in fields for part in ("--set", field)]
    return ["train", "--stage", "tiny-1", "--init", "tiny", "--data", str(root), "--out", str(out),
            "--device", "cpu", "--workers", "0", *settings, *more]  # fmt: skip


def test_sigterm_to_all_processes_of_a_run_saves_and_ends_it(root, tmp_path):
    code = "import os, signal, sys; from emavos import training; from emavos.cli import main\n"
    code += "step = training.learner.Learner.step\n"
    code += "def stopped(self, *args):\n    os.killpg(0, signal.SIGTERM)\n    return step(self, *args)\n"
    code += "training.learner.Learner.step = stopped\nsys.exit(main(sys.argv[1:]))\n"
    arguments = command(root, tmp_path / "run", "--workers", "1")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert len(rows(tmp_path / "run" / "log.csv")) == 1
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "run" / "model").exists()
    assert main(command(root, tmp_path / "run")) == 0
    assert len(rows(tmp_path / "run" / "log.csv")) == 4


def test_a_sequence_to_hold_out_that_is_not_there_is_an_error(root, tmp_path, capsys):
    assert main(command(root, tmp_path / "run", "--hold-out", "won")) == 1
    assert "--hold-out won is not a sequence of" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_fields_of_a_stage_are_set_on_the_command_line(root, tmp_path, capsys):
    assert (
        main(command(root, tmp_path, "--iterations", "1", "--hold-out", "one", "--validate-every", "1")) == 0
    )
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["size"], config["sampling"], config["leave_out"]) == (48, "videos", ["one"])
    assert float(rows(tmp_path / "validation.csv")[0]["one"]) > 0
    for setting, message in (
        ("size", "--set size is not FIELD=VALUE"),
        ("sise=48", "unknown training fields: sise"),
        ('batch="x"', "batch is a whole number, not 'x'"),
        ("zoom=5", "zoom is a list of two numbers, not 5"),
    ):
        assert main(command(root, tmp_path / "other", "--set", setting)) == 1
        assert message in capsys.readouterr().err


def test_a_run_starts_from_a_model_or_from_trunks(root, tmp_path, capsys):
    assert main(command(root, tmp_path / "run", "--trunks", "resnet50.pth", "resnet18.pth")) == 1
    assert "--init is a whole model and --trunks begin a new one; give one" in capsys.readouterr().err


def test_own_clips_need_few_masks_and_a_model_to_start_from(tmp_path, capsys):
    root = davis_tree(tmp_path / "clips", {"one": 6, "two": 5})
    for kind in ("JPEGImages", "Annotations"):  # without the folder that DAVIS has in between
        (root / kind / "480p").rename(root / "x")
        (root / kind).rmdir()
        (root / "x").rename(root / kind)
    for clip, kept in (("one", ("00000", "00004")), ("two", ("00002",))):
        for mask in (root / "Annotations" / clip).iterdir():
            if mask.stem not in kept:
                mask.unlink()
    settings = [
        "--set",
        "size=48",
        "--set",
        "iterations=2",
        "--set",
        "decay_from=1",
        "--set",
        "hardest_from=1",
    ]
    rest = [
        "--data",
        str(root),
        "--out",
        str(tmp_path / "run"),
        "--device",
        "cpu",
        "--workers",
        "0",
        *settings,
    ]
    assert main(["train", *rest]) == 1
    assert "add --init tiny" in capsys.readouterr().err
    assert main(["train", "--init", "tiny", *rest]) == 0
    before, after = load_model(), load_model(tmp_path / "run" / "model")
    assert before.config == after.config
    assert not all(map(torch.equal, before.parameters(), after.parameters()))


def test_a_transformer_is_added_to_a_model_and_its_tokens_become_keys(root, monkeypatch):
    """With a miniature transformer of random weights; its file is read by tests of the conversion."""
    small = dataclasses.replace(PRESETS["stcn-base"], vit_depth=1)
    monkeypatch.setitem(PRESETS, "stcn-base", small)
    monkeypatch.setattr("emavos.training.start.load_dinov2", lambda vit, path: None)
    config = TrainConfig(sampling="mixed", size=64, frames=2, batch=2, iterations=8, decay_from=8)
    model = STCN(PRESETS["stcn-tiny"])
    grown = add_transformer(model, "stcn-base", Path("vit.onnx"), open_samples(root, config), pictures=3)
    encoder = grown.key_encoder
    assert not encoder.key_proj.weight.any()
    matrix = encoder.vit_key.weight[:, :, 0, 0]
    assert torch.allclose(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-4)
    with pytest.raises(ValueError, match="stcn-tiny-unit has no vision transformer"):
        add_transformer(model, "stcn-tiny-unit", Path("vit.onnx"), open_samples(root, config))


def test_positions_are_added_and_similarities_stay(root):
    """The channels that go are those in which keys are shortest: here they are empty."""
    torch.manual_seed(0)
    config = TrainConfig(sampling="mixed", size=64, frames=2, batch=2, iterations=8, decay_from=8)
    samples = open_samples(root, config)
    model = STCN(PRESETS["stcn-tiny-unit"]).eval()
    with torch.no_grad():
        model.key_encoder.key_proj.weight[20:24] = 0
    grown = add_positions(model, "stcn-tiny-position", samples, pictures=3).eval()
    frames = samples[5].frames[:1]
    with torch.no_grad():
        before, after = (x.encode_key(frames).key[0].flatten(1) for x in (model, grown))  # (Ck, P)
    assert after.shape == before.shape
    assert torch.allclose(after[:-4].T @ after[:-4], before.T @ before, rtol=1e-3)
    same = {n for n, x in model.state_dict().items() if torch.equal(x, grown.state_dict()[n])}
    assert set(model.state_dict()) - same == {f"key_encoder.key_proj.{part}" for part in ("weight", "bias")}


def test_weights_of_models_of_one_config_have_a_mean():
    models = [STCN(PRESETS["stcn-tiny-position"]) for _ in range(2)]
    model = mean_of_weights(models)
    assert not model.training
    mean = model.state_dict()
    for name, x in models[0].state_dict().items():
        torch.testing.assert_close(2 * mean[name], x + models[1].state_dict()[name], msg=name)
    with pytest.raises(ValueError, match="of one config"):
        mean_of_weights([models[0], STCN(PRESETS["stcn-tiny"])])
    with pytest.raises(ValueError, match="not none"):
        mean_of_weights([])


@pytest.fixture
def miniature(monkeypatch):
    """The presets with a transformer have one of a single block."""
    for name in ("stcn-base-position", "stcn-base-parts"):
        monkeypatch.setitem(PRESETS, name, dataclasses.replace(PRESETS[name], vit_depth=1))


def test_a_wider_model_gives_the_masks_of_the_narrow_one_at_first_and_learns(monkeypatch):
    for name in ("stcn-base-parts", "stcn-base-wide"):
        monkeypatch.setitem(PRESETS, name, dataclasses.replace(PRESETS[name], vit_depth=1))
    torch.manual_seed(0)
    model = STCN(PRESETS["stcn-base-parts"]).eval()
    wide = widened(model, "stcn-base-wide", seed=1).eval()
    frames, first = torch.randn(1, 3, 3, 64, 96), (torch.rand(1, 2, 64, 96) > 0.5).float()
    with torch.no_grad():
        for narrow_logits, logits in zip(
            clip_logits(model, frames, first), clip_logits(wide, frames, first), strict=True
        ):
            torch.testing.assert_close(logits, narrow_logits, atol=1e-4, rtol=1e-4)
    sum(logits.square().mean() for logits in clip_logits(wide, frames, first)).backward()
    values = wide.value_encoder.fusion.block2.conv2.weight.grad[128:]
    assert values.abs().max() > 0  # the new values, zero at first
    assert wide.decoder.pred.weight.grad[:, 32:].abs().max() > 0


def test_a_stage_of_a_wider_preset_widens_the_model_before_it(root, tmp_path, monkeypatch):
    for name in ("stcn-base-parts", "stcn-base-wide"):
        monkeypatch.setitem(PRESETS, name, dataclasses.replace(PRESETS[name], vit_depth=1))
    save_model(STCN(PRESETS["stcn-base-parts"]), tmp_path / "narrow")
    fields = ("iterations=1", "decay_from=1", "batch=1", "size=32", "frames=2", "frozen=[]", "leave_out=[]")
    settings = [part for field in fields for part in ("--set", field)]
    paths = ["--init", str(tmp_path / "narrow"), "--data", str(root), "--out", str(tmp_path / "run")]
    habits = ["--set", 'sources=["static","clips"]', "--device", "cpu", "--workers", "0", "--quiet"]
    assert main(["train", "--stage", "base-7", *paths, *settings, *habits]) == 0
    assert load_model(tmp_path / "run" / "model").config == PRESETS["stcn-base-wide"]


def test_a_model_is_widened_only_to_a_wider_preset():
    model = STCN(PRESETS["stcn-tiny-scene"])
    with pytest.raises(ValueError, match="in more than value_channels"):
        widened(model, "stcn-base-wide")
    with pytest.raises(ValueError, match="not wider"):
        widened(model, "stcn-tiny-scene")


@pytest.mark.parametrize(
    ("old", "preset", "parts"),
    [
        ("stcn-tiny-position", "stcn-tiny-fine", {"fine_key": 0.2}),
        ("stcn-base-position", "stcn-base-parts", {"vit_key": 0.3}),
    ],
)
def test_parts_are_added_to_a_key_and_share_its_similarity(root, miniature, old, preset, parts):
    torch.manual_seed(0)
    config = TrainConfig(sampling="mixed", size=64, frames=2, batch=2, iterations=8, decay_from=8)
    samples = open_samples(root, config)
    model = STCN(PRESETS[old]).eval()
    model.key_encoder.log_scale.data.fill_(math.log(12.0))
    model.key_encoder.log_position.data.fill_(math.log(3.0))
    if model.key_encoder.vit is not None:  # then the old key is that of the last map alone
        model.key_encoder.vit_key.weight.data.zero_()
        model.key_encoder.vit_key.bias.data.zero_()
        model.key_encoder.vit_proj.weight.data.zero_()
    grown = add_key_parts(model, preset, samples, pictures=3).eval()
    frames = samples[5].frames[:1]
    with torch.no_grad():
        before, after = (x.encode_key(frames).key[0].flatten(1) for x in (model, grown))  # (Ck, P)

    def similarity(one, whole):  # STCN's, without the norms, which are equal in all cells
        return one.T @ one / len(whole) ** 0.5

    own = 1 - sum(parts.values())
    assert torch.allclose(similarity(after[:60], after), own * similarity(before[:60], before), rtol=1e-3)
    assert torch.allclose(similarity(after[-4:], after), similarity(before[-4:], before), atol=1e-3)
    at = 60
    for name, share in parts.items():
        matrix = getattr(grown.key_encoder, name).weight[:, :, 0, 0]
        assert torch.allclose(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-4)
        part = after[at : at + len(matrix)]
        length = share * 12.0**2 / 64**0.5
        assert similarity(part, after).diagonal().numpy() == pytest.approx(length, rel=1e-3)
        at += len(matrix)
    assert at + 4 == len(after)


@pytest.mark.parametrize(
    ("add", "old", "preset", "message"),
    [
        (add_positions, "unit", "unit", "positions are added to a model without them"),
        (add_positions, "position", "position", "positions are added to a model without them"),
        (add_positions, "", "position", "differs from stcn-tiny-position in more than positions"),
        (add_key_parts, "position", "position", "parts of the key are added to a model without"),
        (add_key_parts, "fine", "fine", "parts of the key are added to a model without"),
        (add_key_parts, "unit", "fine", "differs from stcn-tiny-fine in more than parts of the key"),
    ],
)
def test_positions_and_parts_are_added_to_the_key_that_lacks_only_them(root, add, old, preset, message):
    old, preset = (f"stcn-tiny-{name}".removesuffix("-") for name in (old, preset))
    config = TrainConfig(sampling="mixed", size=64, frames=2, batch=2, iterations=8, decay_from=8)
    with pytest.raises(ValueError, match=message):
        add(STCN(PRESETS[old]), preset, open_samples(root, config), pictures=1)


@pytest.mark.parametrize("settings", [[], ['preset="stcn-tiny-unit"']])
def test_a_stage_of_unit_keys_grows_a_model_without_them(root, tmp_path, settings):
    save_model(STCN(PRESETS["stcn-tiny"]), tmp_path / "old")
    paths = ["--init", str(tmp_path / "old"), "--data", str(root), "--out", str(tmp_path / "run")]
    settings = [*settings, "size=64", "frames=2", "batch=2", 'sources=["static","clips"]', "leave_out=[]"]
    some = ["--iterations", "1", "--device", "cpu", "--workers", "0", "--quiet"]
    chosen = [x for setting in settings for x in ("--set", setting)]
    assert main(["train", "--stage", "tiny-4", *paths, *some, *chosen]) == 0
    assert load_model(tmp_path / "run" / "model").config == PRESETS["stcn-tiny-unit"]


def test_a_stage_with_a_transformer_wants_one(root, tmp_path, capsys):
    paths = ["--data", str(root), "--out", str(tmp_path)]
    assert main(["train", "--stage", "base-3", "--init", "tiny", *paths]) == 1
    assert (
        "stcn-base-position has a vision transformer and tiny has none; add --vit" in capsys.readouterr().err
    )


def test_a_transformer_is_added_to_a_model_only(root, tmp_path, capsys):
    arguments = ["train", "--stage", "base-1", "--data", str(root), "--out", str(tmp_path), "--vit", "x.onnx"]
    assert main(arguments) == 1
    assert "--vit extends a model; add --init tiny" in capsys.readouterr().err
