from __future__ import annotations

import copy
import pickle

import pytest
import torch

from emavos.models import ExternalAttention, MultiHeadExternalAttention, SelfAttention
from emavos.models.attention import double_norm
from golden import reference

MODULES = [
    lambda **kw: ExternalAttention(32, **kw),
    lambda **kw: MultiHeadExternalAttention(32, heads=4, **kw),
    lambda **kw: SelfAttention(32, **kw),
]
NAMES = ["external", "multi-head", "self"]


@pytest.fixture
def maps():
    return torch.randn(2, 32, 5, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["ea_c32", "ea_c256"])
def test_block_form_agrees_with_the_published_block(name):
    golden = reference.load(name)
    channels = golden["x"].shape[1]
    block = ExternalAttention(channels, form="block").eval()
    weights = {key[3:]: torch.from_numpy(golden[key]) for key in golden if key.startswith("w__")}
    block.load_state_dict(
        {
            "key_memory": weights["linear_0.weight"][:, :, 0],
            "value_memory": weights["linear_1.weight"][:, :, 0].T,
            "proj_in.weight": weights["conv1.weight"][:, :, 0, 0],
            "proj_in.bias": weights["conv1.bias"],
            "proj_out.weight": weights["conv2.0.weight"][:, :, 0, 0],
            **{key.replace("conv2.1", "norm"): w for key, w in weights.items() if key.startswith("conv2.1")},
        }
    )
    with torch.no_grad():
        out = block(torch.from_numpy(golden["x"]))
    assert (out - torch.from_numpy(golden["y"])).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["ea_c32", "ea_c256"])
def test_the_double_normalisation_agrees_with_the_published_one(name):
    golden = {
        key: torch.from_numpy(x).mT for key, x in reference.load(name).items() if key.startswith("attn")
    }
    assert (
        golden["attn_logits"].softmax(dim=1) - golden["attn_softmax"]
    ).abs().max() <= 1e-6  # over positions
    assert (double_norm(golden["attn_logits"]) - golden["attn_norm"]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["ea_c32", "ea_c256"])
def test_equation_form_is_the_middle_of_the_published_block(name):
    golden = reference.load(name)
    channels = golden["x"].shape[1]
    attention = ExternalAttention(channels, form="equation", residual=False)
    with torch.no_grad():
        attention.key_memory.copy_(torch.from_numpy(golden["w__linear_0.weight"])[:, :, 0])
        attention.value_memory.copy_(torch.from_numpy(golden["w__linear_1.weight"])[:, :, 0].T)
        conv_in = torch.nn.functional.conv2d(
            torch.from_numpy(golden["x"]),
            torch.from_numpy(golden["w__conv1.weight"]),
            torch.from_numpy(golden["w__conv1.bias"]),
        )
        out = attention(conv_in).flatten(2)
    assert (out - torch.from_numpy(golden["core"])).abs().max() <= 1e-5


def test_multi_head_form_agrees_with_the_reference():
    golden = reference.load("mhea_d32_h8")
    attention = MultiHeadExternalAttention(32, heads=8, slots=64, expansion=4, residual=False)
    names = {
        "trans_dims": "proj_in",
        "linear_0": "key_memory",
        "linear_1": "value_memory",
        "proj": "proj_out",
    }
    attention.load_state_dict(
        {
            f"{ours}.{kind}": torch.from_numpy(golden[f"w__{theirs}.{kind}"])
            for theirs, ours in names.items()
            for kind in ("weight", "bias")
        }
    )
    with torch.no_grad():
        out = attention(torch.from_numpy(golden["x"]))
    assert (out - torch.from_numpy(golden["y"])).abs().max() <= 1e-5


def test_self_attention_is_its_equation(maps):
    attention = SelfAttention(32, dim=8, residual=False)
    features = maps.flatten(2).transpose(1, 2)
    with torch.no_grad():
        query, key = attention.query(features), attention.key(features)
        expected = (query @ key.transpose(1, 2) / 8**0.5).softmax(-1) @ attention.value(features)
        torch.testing.assert_close(attention(features), expected)


@pytest.mark.parametrize("make", MODULES, ids=NAMES)
def test_residual_forms_start_as_the_identity_and_can_leave_it(make, maps):
    attention = make()
    out = attention(maps)
    assert torch.equal(out, maps)
    out.square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in attention.parameters())


def test_block_form_starts_as_the_identity_on_the_output_of_a_relu(maps):
    assert torch.equal(ExternalAttention(32, form="block").eval()(maps.relu()), maps.relu())


@pytest.mark.parametrize("make", MODULES, ids=NAMES)
def test_maps_and_sequences_agree(make, maps):
    attention = make(residual=False)
    sequence = attention(maps.flatten(2).transpose(1, 2))
    torch.testing.assert_close(attention(maps).flatten(2).transpose(1, 2), sequence)


@pytest.mark.parametrize("make", MODULES, ids=NAMES)
def test_positions_have_no_order(make, maps):
    attention = make(residual=False)
    sequence = maps.flatten(2).transpose(1, 2)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(attention(sequence[:, order]), attention(sequence)[:, order])


@pytest.mark.parametrize("make", MODULES, ids=NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (13, 3)])
def test_any_size_and_half_precision(make, size):
    attention = make(residual=False).to(torch.bfloat16)
    x = torch.full((1, 32, *size), 300.0, dtype=torch.bfloat16)
    out = attention(x)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert out.isfinite().all()


def test_modules_print_the_arguments_that_they_were_made_with():
    assert repr(ExternalAttention(32)) == "ExternalAttention(32, slots=64, form='equation', residual=True)"
    assert "32, slots=8, form='block', " in repr(ExternalAttention(32, 8, form="block"))
    heads = repr(MultiHeadExternalAttention(32, heads=4, slots=16, residual=False))
    assert "32, heads=4, slots=16, expansion=4, residual=False" in heads
    assert "32, dim=4, residual=True" in repr(SelfAttention(32))


def test_the_two_memories_share_no_storage():
    attention = ExternalAttention(32)
    assert attention.key_memory.data_ptr() != attention.value_memory.data_ptr()
    assert (
        attention.key_memory.untyped_storage().data_ptr()
        != attention.value_memory.untyped_storage().data_ptr()
    )


@pytest.mark.parametrize("make", MODULES, ids=NAMES)
def test_copies_and_pickles(make, maps):
    attention = make(residual=False)
    for twin in (copy.deepcopy(attention), pickle.loads(pickle.dumps(attention))):
        assert torch.equal(twin(maps), attention(maps))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExternalAttention(0), "at least 1"),
        (lambda: ExternalAttention(8, slots=0), "at least 1"),
        (lambda: ExternalAttention(8, form="bloc"), '"equation" or "block"'),
        (lambda: ExternalAttention(8, form="block", residual=False), "adds its input by definition"),
        (lambda: MultiHeadExternalAttention(30, heads=8), "multiple of heads"),
        (lambda: MultiHeadExternalAttention(64, expansion=0), "not 64, 8, 64 and 0"),
        (lambda: SelfAttention(8, dim=0), "at least 1"),
        (lambda: ExternalAttention(8)(torch.zeros(1, 9, 4, 4)), r"expected \(B, 8, H, W\)"),
        (lambda: SelfAttention(8)(torch.zeros(8, 4)), r"not \(8, 4\)"),
    ],
)
def test_bad_arguments_say_what_was_given(make, message):
    with pytest.raises(ValueError, match=message):
        make()
