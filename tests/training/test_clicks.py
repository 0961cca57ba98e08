"""Training of a click head: a step, and a run that goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from emavos.clicks import ClickHead
from emavos.models import PRESETS, STCN
from emavos.training.click_samples import draw_sample, is_measured, prompts_of
from emavos.training.clicks import ClickConfig, StillsApart, _Learner, open_sets, train_clicks

CONFIG = ClickConfig(iterations=3, batches=((64, 2),), rounds=2, warmup=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Thirty stills with a bright disk each, of which some are set apart."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / "static" / part).mkdir(parents=True)
    y, x = np.mgrid[:80, :96]
    for i in range(30):
        mask = (x - rng.integers(30, 66)) ** 2 + (y - rng.integers(30, 50)) ** 2 < rng.integers(12, 25) ** 2
        picture = rng.integers(0, 80, (80, 96, 3), dtype=np.uint8) + mask[..., None].astype(np.uint8) * 150
        Image.fromarray(picture).save(root / "static/images" / f"s{i}.jpg")
        Image.fromarray(mask.astype(np.uint8)).save(root / "static/masks" / f"s{i}.png")
    return root


@pytest.fixture
def network():
    torch.manual_seed(0)
    return STCN(PRESETS["stcn-tiny"]).eval()


def test_stills_that_are_measured_are_not_trained_on(data):
    trained, measured = (StillsApart(data / "static", measured=apart) for apart in (False, True))
    names = [{path.stem for path in part.masks} for part in (trained, measured)]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 30
    assert all(map(is_measured, names[1]))


def test_a_sample_is_a_function_of_its_seed_and_says_something_of_its_object(data):
    sets, weights = open_sets(data, CONFIG)
    kinds = set()
    for i in range(40):
        one, same = (draw_sample(sets, weights, 64, (0, i)) for _ in range(2))
        assert torch.equal(one.frame, same.frame)
        assert one.points == same.points
        assert one.points or one.box or one.mask is not None
        assert all(0 <= x <= 64 and 0 <= y <= 64 for x, y, _ in one.points)
        kinds.add((one.box is not None, one.mask is not None))
        prompts = prompts_of([one])
        assert prompts.mask.shape == (1, 1, 16, 16)
    assert len(kinds) == 3


def test_a_run_learns_and_goes_on_as_if_it_had_not_stopped(data, network, tmp_path):
    torch.manual_seed(1)
    begun = ClickHead.of(network)
    runs = {}
    for name, stops in (("whole", [3]), ("halves", [1, 3])):
        for stop in stops:
            head = ClickHead(network.config, network.key_encoder.trunk.channels)
            head.load_state_dict(begun.state_dict())
            runs[name] = train_clicks(head, network, data, tmp_path / name, CONFIG, stop=stop).state_dict()
    before = begun.state_dict()
    assert any(not torch.equal(x, before[key]) for key, x in runs["whole"].items())
    for key, x in runs["whole"].items():
        torch.testing.assert_close(x, runs["halves"][key])
    assert len((tmp_path / "halves/log.csv").read_text().splitlines()) == 3


def test_a_checkpoint_of_another_config_is_refused(data, network, tmp_path):
    train_clicks(ClickHead.of(network), network, data, tmp_path, CONFIG, stop=1)
    other = ClickConfig(iterations=3, batches=((64, 2),), rounds=1, warmup=1)
    with pytest.raises(ValueError, match="begun with another config"):
        train_clicks(ClickHead.of(network), network, data, tmp_path, other, stop=2)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="damaged, or no checkpoint"):
        train_clicks(ClickHead.of(network), network, data, tmp_path, CONFIG, stop=2)


def test_a_run_needs_pictures(network, tmp_path):
    with pytest.raises(ValueError, match="has none of static/"):
        train_clicks(ClickHead.of(network), network, tmp_path, tmp_path / "out", CONFIG)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"iterations": 0}, "iterations is a whole number of at least 1"),
        ({"lr": 2}, "lr is a number between 0 and 1"),
        ({"batches": ((60, 2),)}, "in steps of 16"),
        ({"batches": 3}, "batches are pairs"),
        ({"leave_out": "surf"}, "leave_out is a list of names"),
        ({"warmup": -1}, "warmup is a whole number of at least 0"),
    ],
)
def test_a_config_that_cannot_be_says_why(fields, error):
    with pytest.raises(ValueError, match=error):
        ClickConfig(**fields)


def test_a_config_comes_back_from_json():
    assert ClickConfig.from_json(CONFIG.to_json()) == CONFIG
    with pytest.raises(ValueError, match="unknown training fields: rate"):
        ClickConfig.from_json('{"rate": 1}')


@pytest.mark.parametrize("change", ["no step", "another shape", "NaN", "whole numbers", "nested notes"])
def test_a_checkpoint_that_cannot_be_is_refused_and_nothing_of_it_is_taken(network, tmp_path, change):
    learner = _Learner(ClickHead.of(network), CONFIG)
    for parameter in learner.head.parameters():
        parameter.grad = torch.zeros_like(parameter)
    learner.optimiser.step()
    path = tmp_path / "checkpoint.safetensors"
    learner.save(path, 1)
    assert learner.resume(path) == 1
    with safe_open(path, "pt") as file:
        notes = file.metadata()
    tensors = load_file(path)
    last = [name for name in tensors if name.startswith("step.")][-1]
    moment = last.replace("step.", "exp_avg.")
    if change == "no step":
        del tensors[last]
    elif change == "another shape":
        tensors[last] = torch.zeros(3)
    elif change == "NaN":
        tensors[moment].flatten()[0] = float("nan")
    elif change == "whole numbers":
        tensors[moment] = tensors[moment].long()
    else:
        notes["config"] = "[" * 100_000
    save_file(tensors, path, metadata=notes)
    other = _Learner(ClickHead.of(network), CONFIG)
    before = [parameter.clone() for parameter in other.head.parameters()]
    with pytest.raises(ValueError, match="is damaged, or no checkpoint of a click head"):
        other.resume(path)
    assert all(torch.equal(a, b) for a, b in zip(before, other.head.parameters(), strict=True))
