from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from emavos.models import PRESETS, STCN, folded
from emavos.weights import load_model


@pytest.fixture(scope="module", params=["stcn-tiny", "stcn-external-both"])
def model(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = STCN(PRESETS[request.param]).eval()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 2)
        return model


@torch.no_grad()
def outputs(model):
    """Features, values and logits, in float32."""
    g = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    frame = torch.randn(1, 3, 48, 80, generator=g).to(dtype)
    prob = torch.rand(1, 2, 48, 80, generator=g).to(dtype)
    features = model.encode_key(frame)
    values = model.encode_value(frame, features, prob)
    return [x.float() for x in (*features, values, model.decode(values, features))]


def error(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def test_a_folded_network_gives_what_the_model_gives(model):
    for ours, theirs in zip(outputs(folded(model)), outputs(model), strict=True):
        assert error(ours, theirs) < 1e-5


def test_no_batch_norm_is_left_in_small_trunks_and_nothing_is_learned():
    network = folded(load_model())
    for encoder in (network.key_encoder, network.value_encoder):
        assert not [x for x in encoder.trunk.modules() if isinstance(x, nn.BatchNorm2d)]
    assert not [x for x in network.parameters() if x.requires_grad]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_stays_what_it_was_and_later_changes_do_not_reach_a_copy(model, dtype):
    before = {key: x.clone() for key, x in model.state_dict().items()}
    network = folded(model, dtype)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(x, before[key]) for key, x in model.state_dict().items())
    assert all(x.requires_grad for x in model.parameters())
    ours = {x.data_ptr() for x in model.parameters()}
    copied = ours.isdisjoint(x.data_ptr() for x in network.parameters())
    assert copied == (network is not model)


def test_where_there_is_nothing_to_fold_or_round_it_is_the_model_itself(model):
    small = model.config.trunk == "efficientnet-lite0"
    assert (folded(model) is model) == (not small)
    assert folded(model, torch.bfloat16) is not model


def test_bfloat16_after_folding_is_nearer_to_single_precision_than_before():
    model, plain = load_model(), load_model(dtype=torch.bfloat16)
    exact, before, after = outputs(model), outputs(plain), outputs(folded(model, torch.bfloat16))
    assert error(after[0], exact[0]) < 0.6 * error(before[0], exact[0])  # keys


def test_the_first_layers_of_small_trunks_keep_single_precision():
    network = folded(load_model(), torch.bfloat16)
    for encoder in (network.key_encoder, network.value_encoder):
        trunk = encoder.trunk
        first = {x.dtype for part in (trunk.stem, trunk.blocks[:2]) for x in part.parameters()}
        assert first == {torch.float32}
        assert {x.dtype for x in trunk.blocks[2:].parameters()} == {torch.bfloat16}
    assert {x.dtype for x in network.decoder.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folded_network_with_a_transformer_gives_nearly_the_same_features(dtype):
    torch.manual_seed(0)
    model = STCN(dataclasses.replace(PRESETS["stcn-base"], vit_depth=1)).eval()
    frame = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected, found = model.encode_key(frame), folded(model, dtype).encode_key(frame)
    assert found.key.dtype == torch.float32  # cells that differ would look the same
    cosine = torch.cosine_similarity(expected.key, found.key, dim=1)
    assert cosine.min() > (0.99 if dtype == torch.bfloat16 else 1 - 1e-5)
    assert torch.allclose(found.key.norm(dim=1), expected.key.norm(dim=1), rtol=1e-4)
