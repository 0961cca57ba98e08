from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from emavos.frames.preprocess import normalize, one_hot, pad_to_stride, to_frame
from emavos.memory import topk_readout
from emavos.models import PRESETS, STCN, Features, STCNConfig, aggregate, efficientnet_lite
from emavos.models.blocks import ResBlock
from emavos.models.encoders import positions
from emavos.models.folding import folded
from golden import reference


def thinned(x, golden, name):
    stride = golden["meta"]["stride"][name]
    return x[:, :: stride["channel"], ..., :: stride["spatial"], :: stride["spatial"]]


@pytest.mark.parametrize("name", ["encoders_96x160", "encoders_120x215"])
def test_encoders_agree_with_the_reference(name):
    golden = reference.load(name)
    model = reference.model()
    mask = torch.from_numpy(golden["mask"])
    objects = len(golden["value"])
    with torch.inference_mode():
        frame, _ = pad_to_stride(normalize(to_frame(golden["frame"]))[None])
        prob, _ = pad_to_stride(one_hot(mask, range(1, objects + 1))[None])
        features = model.encode_key(frame)
        outputs = {
            "k16": features.key,
            "f16_thin": features.context,
            "f16": features.f16,
            "f8": features.f8,
            "f4": features.f4,
            "value": model.encode_value(frame, features, prob)[0].unsqueeze(2),
            "value_single": model.encode_value(frame, features, prob[:, :1])[0].unsqueeze(2),
        }
    for key, output in outputs.items():
        assert reference.relative_error(thinned(output, golden, key), golden[key]) <= 2e-5, key
        checksum = golden["meta"]["checksums"][key]
        assert list(output.shape) == checksum["shape"], key
        assert float(output.double().abs().sum()) == pytest.approx(checksum["abs_sum"], rel=2e-5), key


def test_decoder_agrees_with_the_reference():
    golden = reference.load("decoder_6x10")
    tensors = {key: torch.from_numpy(golden[key]).float() for key in ("mem", "f16_thin", "f8", "f4")}
    empty = torch.empty(0)
    features = Features(empty, tensors["f16_thin"], empty, tensors["f8"], tensors["f4"])
    with torch.inference_mode():
        logits = reference.model().decode(tensors["mem"][None], features)[0]
        prob = aggregate(logits.sigmoid())
    step = golden["stride"]
    logits, prob = logits[:, None, ::step, ::step], prob[:, None, ::step, ::step]
    assert reference.relative_error(logits, golden["logits"]) <= 1e-5
    assert np.abs(prob.numpy() - golden["aggregate_keep_bg"]).max() <= 1e-4


VARIANTS = [config for config in PRESETS.values() if not config.unit_keys]  # of the attention


@pytest.mark.parametrize("trunk", ["resnet", "efficientnet-lite0"])
def test_the_seven_variants_are_presets_for_each_trunk(trunk):
    placements = [(c.key_attention, c.value_attention) for c in VARIANTS if c.trunk == trunk]
    kinds = [("none", "none")]
    for kind in ("self", "external"):
        kinds += [(kind, "none"), ("none", kind), (kind, kind)]
    assert sorted(placements) == sorted(kinds)


@pytest.mark.parametrize("name", ["stcn-self-both", "stcn-external-both"])
def test_fresh_attention_leaves_a_trained_network_unchanged(name):
    base = reference.model()
    model = STCN(PRESETS[name])
    model.load_state_dict(base.state_dict(), strict=False)
    model.eval()
    frame = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    prob = torch.rand(1, 2, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features, wanted = model.encode_key(frame), base.encode_key(frame)
        torch.testing.assert_close(features.key, wanted.key)
        torch.testing.assert_close(
            model.encode_value(frame, features, prob), base.encode_value(frame, wanted, prob)
        )


def test_objects_of_a_batch_do_not_depend_on_their_place():
    torch.manual_seed(0)
    model = STCN(PRESETS["stcn-tiny"]).eval()
    frames = torch.randn(2, 3, 32, 48)
    prob = torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        features = model.encode_key(frames)
        values = model.encode_value(frames, features, prob)
        logits = model.decode(values, features)
        order = [2, 0, 1]
        swapped = model.encode_value(frames, features, prob[:, order])
        torch.testing.assert_close(swapped, values[:, order])
        torch.testing.assert_close(model.decode(swapped, features), logits[:, order])
        second = Features(*(x[1:] for x in features))
        torch.testing.assert_close(model.decode(values[1:], second), logits[1:])


def test_batch_norm_stays_frozen_in_training():
    model = STCN(PRESETS["stcn-tiny"]).train()
    before = {key: x.clone() for key, x in model.named_buffers()}
    model.encode_key(torch.randn(2, 3, 32, 32))
    assert model.training
    assert all(torch.equal(x, before[key]) for key, x in model.named_buffers())


def test_config_survives_json():
    for config in PRESETS.values():
        assert STCNConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        STCNConfig().slots = 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"key_atention": "self"}, "unknown config fields: key_atention"),
        ({"key_attention": "extern"}, "key_attention is one of none, self, external, not 'extern'"),
        ({"trunk": "vit"}, "trunk is one of"),
        ({"trunk": ["resnet"]}, "trunk is one of"),
        ({"value_channels": -1}, "value_channels is a whole number from 1 to 4096, not -1"),
        ({"value_channels": 8}, "at least 16"),
        ({"key_channels": 64.0}, "whole number"),
        ({"key_channels": True}, "whole number"),
        ({"decoder_channels": [1, 2]}, "three numbers"),
        ({"decoder_channels": 5}, "three numbers"),
        ({"decoder_channels": [64, "x", 3]}, r"decoder_channels\[1\]"),
        ({"skip_kernel": 2}, "odd"),
        ({"slots": 10**9}, "slots is a whole number from 1 to 4096"),
        ({"key_positions": 1}, "key_positions is true or false, not 1"),
        ({"key_positions": True, "key_channels": 4}, "key_channels is 5 or more with these parts, not 4"),
        ({"fine_key_channels": True}, "fine_key_channels is a whole number from 0, not True"),
        ({"vit_key_channels": -1}, "vit_key_channels is a whole number from 0, not -1"),
        ({"top_k": 0}, "top_k is a whole number from 1 to 4096, not 0"),
        ({"scene_key_channels": 8}, "scene_key_channels needs unit_keys"),
        ({"fine_key_channels": 8}, "fine_key_channels needs unit_keys"),
        ({"vit_key_channels": 8, "unit_keys": True}, "vit_key_channels needs a transformer"),
        ({"fine_key_channels": 64, "unit_keys": True}, "key_channels is 65 or more with these parts, not 64"),
    ],
)
def test_a_wrong_config_says_which_field(fields, message):
    with pytest.raises(ValueError, match=message):
        STCNConfig.from_dict(fields)


@pytest.mark.parametrize("size", [(16, 16), (48, 64), (176, 32)])
@pytest.mark.parametrize("frames", [1, 3])
def test_a_trunk_gives_in_strips_what_it_gives_whole(size, frames, monkeypatch):
    trunk = STCN(PRESETS["stcn-tiny"]).eval().key_encoder.trunk
    x = torch.randn(frames, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = trunk(x)
        monkeypatch.setattr(efficientnet_lite, "_LARGE", frames * 2000)  # bytes: a few rows a strip
        strips = trunk(x)
    for ours, theirs in zip(strips, whole, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("channels", [4, 6], ids=["a skip that convolves", "a skip that changes nothing"])
def test_a_block_makes_the_same_of_shared_channels_as_of_their_copies(channels):
    torch.manual_seed(0)
    block = ResBlock(4 + 2, channels)
    x, shared = torch.randn(2 * 3, 4, 5, 7), torch.randn(2, 2, 5, 7)
    copies = shared.repeat_interleave(3, dim=0)
    assert torch.allclose(block(x, shared), block(torch.cat([x, copies], dim=1)), atol=1e-6)


@pytest.mark.parametrize("preset", ["stcn", "stcn-tiny"])
def test_objects_decoded_one_by_one_are_those_decoded_together(preset, monkeypatch):
    torch.manual_seed(0)
    model = STCN(PRESETS[preset]).eval()
    with torch.no_grad():
        features = model.encode_key(torch.randn(1, 3, 32, 48))
        readout = torch.randn(1, 3, model.config.value_channels, 2, 3)
        together = model.decode(readout, features)
        monkeypatch.setattr("emavos.models.blocks._LARGE", 0)
        torch.testing.assert_close(model.decode(readout, features), together)


@pytest.mark.parametrize(("height", "width"), [(6, 11), (11, 6), (4, 4)])
def test_positions_part_cells_by_their_distance_as_a_share_of_the_longer_side(height, width):
    planes = positions(height, width)  # (4, h, w)
    longer = max(height, width)
    assert torch.allclose(planes.square().sum(dim=0), torch.full((height, width), 2.0))
    for (a, b), (c, d) in [((0, 0), (0, 0)), ((0, 0), (3, 3)), ((1, 3), (height - 1, 0))]:
        distance = (planes[:, a, b] - planes[:, c, d]).square().sum().item()
        expected = sum(2 - 2 * math.cos(math.pi * (x - y) / longer) for x, y in ((a, c), (b, d)))
        assert distance == pytest.approx(expected, abs=1e-5)
    finer = positions(4 * height, 4 * width)  # the same place in a finer frame
    assert torch.allclose(finer[:, ::4, ::4], planes, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_last_channels_of_a_key_are_the_positions_times_their_amplitude(dtype):
    torch.manual_seed(0)
    model = STCN(PRESETS["stcn-tiny-position"]).eval()
    model.key_encoder.log_position.data.fill_(math.log(3.0))
    network = folded(model, dtype)
    frames = torch.rand(2, 3, 48, 80, dtype=next(network.parameters()).dtype)
    with torch.no_grad():
        key = network.encode_key(frames).key
    assert key.shape == (2, 64, 3, 5)
    assert key.dtype == torch.float32
    for one in key:
        assert torch.allclose(one[-4:], 3 * positions(3, 5), atol=1e-5)
    length = model.key_encoder.log_scale.exp()
    assert torch.allclose(key[:, :-4].norm(dim=1), length.expand(2, 3, 5), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_part_of_a_key_has_its_own_length(dtype):
    torch.manual_seed(0)
    five = {"vit_depth": 1, "key_channels": 184, "fine_key_channels": 24, "scene_key_channels": 32}
    model = STCN(dataclasses.replace(PRESETS["stcn-base-parts"], **five)).eval()
    encoder = model.key_encoder
    lengths = (
        (encoder.log_scale, 60, 5.0),
        (encoder.log_fine_scale, 24, 7.0),
        (encoder.log_vit_scale, 64, 3.0),
        (encoder.log_scene_scale, 32, 4.0),
    )
    for log, _, length in lengths:
        log.data.fill_(math.log(length))
    network = folded(model, dtype)
    frames = torch.rand(2, 3, 48, 80, dtype=next(network.parameters()).dtype)
    with torch.no_grad():
        key = network.encode_key(frames).key
        assert key.shape == (2, 184, 3, 5)
        for part, (_, channels, length) in zip(key.split([60, 24, 64, 32, 4], dim=1), lengths, strict=False):
            assert part.shape[1] == channels
            assert torch.allclose(part.norm(dim=1), torch.full((2, 3, 5), length), rtol=1e-5)
        for one in key:
            assert torch.allclose(one[-4:], encoder.log_position.exp() * positions(3, 5), atol=1e-5)
        network.key_encoder.vit_key.weight.mul_(1024)  # a part that is much longer does not drown the others
        network.key_encoder.vit_key.bias.mul_(1024)
        assert torch.allclose(network.encode_key(frames).key, key, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_the_fine_part_of_a_key_sees_its_own_cell_alone():
    torch.manual_seed(0)
    encoder = STCN(PRESETS["stcn-tiny-fine"]).eval().key_encoder
    f4, f16 = torch.randn(1, 24, 12, 20), torch.randn(1, 112, 3, 5)
    changed = f4.clone()
    changed[..., 4:8, 8:12] += 1
    before, after = (encoder._key(x, f16, None)[0, 60:84] for x in (f4, changed))
    differs = (before != after).any(dim=0)
    assert differs.nonzero().tolist() == [[1, 2]]


def test_of_two_equal_cells_the_nearer_is_read_more():
    plain = torch.zeros(60, 1, 12)
    key = torch.cat([plain, 2 * positions(1, 12)]).flatten(1)  # (64, P), equal but for the place
    columns = torch.arange(12.0)[:, None, None]  # (N, O, Cv)
    read = topk_readout(key, key.T, columns, 12)[0, 0]  # the mean column that each cell reads
    assert bool((read.diff() > 0).all())
    alike = topk_readout(key[:60], key[:60].T, columns, 12)[0, 0]
    assert torch.allclose(alike, torch.full((12,), 5.5))


@torch.no_grad()
def test_the_scene_part_of_a_key_sees_the_whole_frame():
    torch.manual_seed(0)
    scene = STCN(PRESETS["stcn-tiny-scene"]).eval().key_encoder.scene_key
    for block in scene.blocks:
        torch.nn.init.normal_(block.narrow.weight, std=0.1)  # a new block is the identity
    f4, f8, f16 = torch.randn(1, 24, 32, 48), torch.randn(1, 40, 16, 24), torch.randn(1, 112, 8, 12)
    before = scene(f4, f8, f16)
    assert before.shape == (1, 96, 8, 12)
    for changed in ([f4.clone(), f8, f16], [f4, f8.clone(), f16], [f4, f8, f16.clone()]):
        for x in changed:
            if all(x is not same for same in (f4, f8, f16)):
                x[..., :4, :4] += 1
        assert (scene(*changed) != before).any(dim=1).all()
