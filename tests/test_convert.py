from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from torch.torch_version import TorchVersion

from emavos.cli import main
from emavos.models import PRESETS
from emavos.models.efficientnet_lite import EfficientNetLiteTrunk
from emavos.models.resnet import ResNetTrunk
from emavos.weights import load_model, save_model
from emavos.weights.convert import from_stcn, load_efficientnet_lite, load_resnet, read_checkpoint
from golden import reference
from golden.fill import fill_state_dict, fill_tensor


def published(**changes):
    return {key: changes.get(key, shape) for key, shape in reference.shapes().items()}


def test_the_test_weights_are_those_of_the_reference():
    for key, expected in json.loads((reference.HERE / "weights_spotcheck.json").read_text()).items():
        tensor = fill_tensor(key, reference.shapes()[key])
        assert float(tensor.double().sum()) == pytest.approx(expected["sum"], rel=1e-6)
        assert float(tensor.double().norm()) == pytest.approx(expected["l2"], rel=1e-6)
        assert tensor.flatten()[:4].tolist() == pytest.approx(expected["first"])


def test_every_published_tensor_finds_its_place():
    model = reference.model()
    biases = sum(
        1
        for key in reference.shapes()
        if key.startswith("value_encoder.")
        and key.endswith(".bias")
        and "fuser" not in key
        and "bn" not in key
    )
    folded = biases - sum(
        1 for key in reference.shapes() if key.endswith("downsample.1.bias") and "value" in key
    )
    assert len(model.state_dict()) == len(reference.shapes()) - folded


def test_prefixes_of_parallel_training_are_taken_off():
    state = fill_state_dict(reference.shapes())
    model = from_stcn({f"module.{key}": tensor for key, tensor in state.items()})
    expected = reference.model().state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())


def test_a_checkpoint_without_the_others_mask_gets_a_channel_of_zeros():
    shapes = published(**{"value_encoder.conv1.weight": (64, 4, 7, 7)})
    weight = from_stcn(fill_state_dict(shapes)).state_dict()["value_encoder.trunk.conv1.weight"]
    assert weight.shape == (64, 5, 7, 7)
    assert not weight[:, 4].any()
    assert weight[:, :4].any()


def test_attention_can_be_added_to_a_checkpoint():
    model = from_stcn(fill_state_dict(reference.shapes()), PRESETS["stcn-external-both"])
    assert model.config == PRESETS["stcn-external-both"]
    assert not model.state_dict()["key_encoder.attention.norm.weight"].any()


def test_something_else_is_refused_and_what_differs_is_listed():
    state = fill_state_dict(reference.shapes())
    del state["decoder.pred.bias"]
    with pytest.raises(ValueError, match=r"not a published STCN checkpoint: missing decoder\.pred\.bias"):
        from_stcn(state)
    with pytest.raises(ValueError, match=r"and .* more"):
        from_stcn({"conv.weight": torch.zeros(1)})


class Payload:
    def __reduce__(self):
        return os.system, ("touch payload-has-run",)


class STCNLike(torch.nn.Module):
    """A module saved whole, as some checkpoints are."""


def test_a_malicious_pickle_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"_conv_stem.weight": Payload()}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth has more than tensors"):
        read_checkpoint(tmp_path / "x.pth")
    assert not (tmp_path / "payload-has-run").exists()


@pytest.mark.parametrize("version", ["2.5.1", "2.6.0", "2.9.1+cu128", "2.10.0rc1"])
def test_a_torch_with_a_known_hole_opens_nothing(tmp_path, monkeypatch, version, capsys):
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth")
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the file was opened"))
    assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "model")]) == 1
    assert f"a file can make torch {version} run code" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("protocol", ["zip", "legacy"])
def test_no_way_of_writing_a_payload_makes_it_run(tmp_path, monkeypatch, protocol, capsys):
    """A tensor's reduction, a whole module and a bare pickle, through the command."""
    monkeypatch.chdir(tmp_path)
    files = {"state.pth": {"network": {"a": Payload()}}, "module.pth": STCNLike(), "list.pth": [Payload()]}
    for name, content in files.items():
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=protocol == "zip")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Payload()))
    for name in (*files, "bare.pth"):
        assert main(["convert", name, "model"]) == 1
        assert f"{name} has more than tensors" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "payload-has-run").exists()
    pickle.loads((tmp_path / "bare.pth").read_bytes())  # the payload is a real one
    assert (tmp_path / "payload-has-run").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pth has more than tensors, or is damaged"):
        read_checkpoint(tmp_path / "x.pth")


def test_a_checkpoint_of_something_else_is_named(tmp_path):
    torch.save([1, 2], tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth holds no state dict"):
        read_checkpoint(tmp_path / "x.pth")


def test_the_network_of_a_training_checkpoint_is_found(tmp_path):
    torch.save({"it": 3, "network": {"a": torch.ones(1)}, "optimizer": {}}, tmp_path / "x.pth")
    assert list(read_checkpoint(tmp_path / "x.pth")) == ["a"]


def test_the_command_makes_a_model_that_loads(tmp_path, capsys):
    torch.save(fill_state_dict(reference.shapes()), tmp_path / "stcn.pth")
    command = ["convert", str(tmp_path / "stcn.pth"), str(tmp_path / "model")]
    assert main([*command, "--preset", "stcn-external-value"]) == 0
    model = load_model(tmp_path / "model")
    assert model.config == PRESETS["stcn-external-value"]
    expected = reference.model().state_dict()
    assert all(torch.equal(x, model.state_dict()[key]) for key, x in expected.items())
    assert main([*command, "--preset", "stcn-tiny"]) == 1
    assert main(["convert", str(tmp_path / "no.pth"), str(tmp_path / "other")]) == 1
    assert capsys.readouterr().err.count("\n") == 2
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "state", [{"weight": torch.zeros(1)}, {0: torch.zeros(1)}, {"value_encoder.conv1.weight": torch.zeros(3)}]
)
def test_odd_keys_and_shapes_are_told_in_one_line(tmp_path, state, capsys):
    torch.save(state, tmp_path / "x.pth")
    assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "model")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("emavos: error: ")
    assert error.count("\n") == 1


def test_the_refusal_does_not_tell_how_to_open_it_unsafely(tmp_path):
    (tmp_path / "x.pth").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match="has more than tensors") as refusal:
        read_checkpoint(tmp_path / "x.pth")
    assert "weights_only" not in str(refusal.value)


@pytest.mark.parametrize(
    "odd",
    [
        {"value_encoder.conv1.bias": torch.zeros(7)},
        {"value_encoder.conv1.bias": torch.zeros(1)},  # would be spread over all channels
        {"module.decoder.pred.bias": torch.zeros(1)},
        {"decoder.pred.bias": torch.zeros(1).to_sparse()},
        {"decoder.pred.bias": torch.zeros(1, device="meta")},
        {"decoder.pred.bias": torch.zeros(1, dtype=torch.float8_e4m3fn)},
    ],
    ids=["bias-7", "bias-1", "twice", "sparse", "meta", "float8"],
)
def test_a_checkpoint_with_an_odd_tensor_is_one_line_and_no_model(tmp_path, odd, capsys):
    state = fill_state_dict(reference.shapes()) | odd
    torch.save(state, tmp_path / "x.pth")
    assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "model")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def test_a_model_is_not_written_over_without_force(tmp_path, capsys):
    torch.save(fill_state_dict(reference.shapes()), tmp_path / "stcn.pth")
    save_model(load_model(), tmp_path / "model")
    command = ["convert", str(tmp_path / "stcn.pth"), str(tmp_path / "model")]
    assert main(command) == 1
    assert "is not empty" in capsys.readouterr().err
    assert load_model(tmp_path / "model").config == load_model().config
    assert main([*command, "--force"]) == 0
    assert load_model(tmp_path / "model").config == PRESETS["stcn"]


@pytest.mark.parametrize(
    "state",
    [
        {"_blocks.0._se_reduce.weight": torch.zeros(3)},
        {"_blocks.0": torch.zeros(3)},
        {"_conv_stem.weight": torch.zeros(32, 3, 3, 3), "_bn0.running_mean": torch.zeros(32)},
        {"_conv_stem.weight": torch.zeros(32, 3, 5, 5), "_bn0.running_mean": torch.zeros(32)},
        {"conv1.weight": torch.zeros(64, 3, 3, 3)},
        {},
    ],
    ids=lambda state: " ".join(state),
)
def test_weights_of_another_network_are_refused_by_the_name_of_their_file(tmp_path, state):
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth does not hold EfficientNet-Lite0: missing"):
        load_efficientnet_lite(EfficientNetLiteTrunk(4), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth does not hold torchvision's ResNet"):
        load_resnet(ResNetTrunk(18, 5), tmp_path / "x.pth")
