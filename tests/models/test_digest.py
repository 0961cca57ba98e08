"""The digest of the weights: computed once, and again after any change."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from emavos.models import digest, weights_sha256


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(40, 40)).eval()


def fresh(model):
    return weights_sha256(copy.deepcopy(model))


def test_the_weights_are_hashed_once(model, monkeypatch):
    first = weights_sha256(model)
    monkeypatch.setattr(digest, "hashlib", None)
    assert weights_sha256(model) == first
    model[2].weight = nn.Parameter(model[2].weight.detach().clone())  # of the same numbers
    assert weights_sha256(model) == first
    with pytest.raises(AttributeError):
        weights_sha256(copy.deepcopy(model))


def by_an_optimizer(model):
    for x in model.parameters():
        x.grad = torch.ones_like(x)
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def by_loading(model):
    model.load_state_dict({name: x + 1 for name, x in model.state_dict().items()})


def in_one_number(model):
    with torch.no_grad():
        model[2].weight[17, 5] += 1


def beside_the_counter(model):
    model[2].weight.data.mul_(0.5)


def beside_the_counter_in_one_number(model):
    model[2].weight.data[31, 7] += 1e-6


def by_numpy(model):
    model[2].weight.detach().numpy()[3, 4] = -model[2].weight.detach().numpy()[3, 4]


def by_exchanging_two_numbers(model):
    weight = model[2].weight.detach().numpy()
    weight[0, 0], weight[1, 1] = weight[1, 1].copy(), weight[0, 0].copy()


def in_running_statistics(model):
    model[1].train()
    model[1](torch.randn(2, 8, 4, 4))
    model[1].eval()


def by_a_fused_optimizer(model):
    for x in model.parameters():
        x.grad = torch.zeros_like(x)
    model[2].weight.grad[5, 6] = 1
    torch.optim.SGD(model.parameters(), lr=0.1, fused=True).step()


def by_another_tensor(model):
    model[2].weight.data = model[2].weight.data.clone() + 1


def by_another_parameter(model):
    model[2].bias = nn.Parameter(torch.ones(40))


def in_a_buffer(model):
    model[1].running_var.fill_(2)


def by_another_type(model):
    model.double()


@pytest.mark.parametrize(
    "change",
    [
        by_an_optimizer,
        by_loading,
        in_one_number,
        beside_the_counter,
        beside_the_counter_in_one_number,
        by_numpy,
        by_exchanging_two_numbers,
        in_running_statistics,
        by_a_fused_optimizer,
        by_another_tensor,
        by_another_parameter,
        in_a_buffer,
        by_another_type,
    ],
)
def test_changed_weights_are_hashed_again(model, change):
    before = weights_sha256(model)
    change(model)
    assert weights_sha256(model) == fresh(model) != before


def test_tensors_that_count_no_writes_are_compared_too(model):
    with torch.inference_mode():
        model[2].bias = nn.Parameter(torch.zeros(40), requires_grad=False)
        before = weights_sha256(model)
        model[2].bias[39] = 1
        assert weights_sha256(model) != before


def test_a_digest_does_not_keep_its_model():
    model = nn.Linear(2, 2)
    weights_sha256(model)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None
