"""The attention modules in what other people do with modules."""

from __future__ import annotations

import copy
import io
import os

import pytest
import torch
from torch import nn

from emavos.models import ExternalAttention, MultiHeadExternalAttention, SelfAttention

MODULES = {
    "external": lambda: ExternalAttention(32, residual=False),
    "external-residual": lambda: _awake(ExternalAttention(32)),
    "external-block": lambda: _awake(ExternalAttention(32, form="block")).eval(),
    "multi-head": lambda: MultiHeadExternalAttention(32, heads=4, residual=False),
    "self": lambda: SelfAttention(32, residual=False),
}


def _awake(module):
    """With random parameters, so that a residual form is not the identity."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 6)
    return module


@pytest.fixture(params=MODULES)
def module(request):
    torch.manual_seed(0)
    return MODULES[request.param]()


@pytest.fixture
def maps():
    return torch.randn(2, 32, 6, 10, generator=torch.Generator().manual_seed(0))


def test_one_graph_without_breaks_and_sizes_that_vary(module, maps):
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for x in (maps, maps[:, :, 1:, :7], maps.flatten(2).transpose(1, 2)):
        torch.testing.assert_close(compiled(x), module(x))


def test_gradients_of_the_compiled_module(module, maps):
    torch.compiler.reset()
    twin = copy.deepcopy(module)
    torch.compile(twin, fullgraph=True, backend="aot_eager")(maps).square().sum().backward()
    module(maps).square().sum().backward()
    for ours, theirs in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_export_with_sizes_left_open_and_back_from_a_file(module, maps):
    batch, height, width = (torch.export.Dim(name, min=1, max=64) for name in ("b", "h", "w"))
    program = torch.export.export(module, (maps,), dynamic_shapes=({0: batch, 2: height, 3: width},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for x in (maps, maps[:1, :, :5, :9], torch.cat([maps, maps], dim=3)):
        torch.testing.assert_close(loaded(x), module(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_near_single_precision(module, maps, dtype):
    expected = module(maps)
    with torch.autocast("cpu", dtype=dtype):
        out = module(maps)
    assert (out.float() - expected).abs().max() <= 0.02 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_type_and_stays_near(module, maps, dtype):
    expected = module(maps)
    half = copy.deepcopy(module).to(dtype)
    out = half(maps.to(dtype))
    assert out.dtype == dtype
    assert (out.float() - expected).abs().max() <= 0.03 * expected.abs().max()


def test_channels_last_maps_give_the_same_values(module, maps):
    out = module(maps.to(memory_format=torch.channels_last))
    torch.testing.assert_close(out, module(maps))


def test_the_state_survives_a_file_without_a_pickle_of_code(module, maps):
    expected = module(maps)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    twin = copy.deepcopy(module)
    for parameter in twin.parameters():
        nn.init.ones_(parameter)
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(twin(maps), expected)


def test_data_parallel_and_its_copies(module, maps):
    """DataParallel replicates a module for each device; without CUDA it calls the module itself."""
    assert torch.equal(nn.DataParallel(module)(maps), module(maps))


def test_distributed_data_parallel_reduces_every_parameter(module, maps, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(module)
        for _ in range(2):  # the second would fail if a parameter had got no gradient in the first
            wrapped(maps).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_gradients_agree_with_differences(maps):
    attention = _awake(ExternalAttention(4, slots=3)).double()
    x = torch.randn(1, 4, 2, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(attention, (x,))


def test_the_cost_grows_with_the_positions_and_not_with_their_square():
    """Counted, not timed: multiplications of external attention, by torch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    counts = []
    for side in (8, 16):
        with FlopCounterMode(display=False) as counter:
            ExternalAttention(32, residual=False)(torch.zeros(1, 32, side, side))
        counts.append(counter.get_total_flops())
    assert counts[1] == 4 * counts[0]
    assert counts[0] == 2 * 2 * 64 * 32 * 64  # 2 N C S multiplications, and as many additions
