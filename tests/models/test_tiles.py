from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from emavos.models import PRESETS, STCN
from emavos.models.tiles import tiles_over

SMALL = PRESETS["stcn-tiny"]


@pytest.fixture(scope="module", params=[1, 3], ids=["skips 1x1", "skips 3x3"])
def model(request):
    config = dataclasses.replace(SMALL, decoder_channels=(24, 16, 8), skip_kernel=request.param)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return STCN(config).eval()


def inputs(model, height, width, objects, batch=1):
    g = torch.Generator().manual_seed(height * width)
    features = model.encode_key(torch.randn(batch, 3, 16 * height, 16 * width, generator=g))
    return torch.randn(batch, objects, 128, height, width, generator=g), features, g


def pixels(cells):
    return cells.repeat_interleave(16, -2).repeat_interleave(16, -1)


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 2), (7, 13), (17, 12)])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.9])
def test_logits_of_tiles_are_those_of_the_whole_frame(model, size, share):
    readout, features, g = inputs(model, *size, objects=5)
    cells = torch.rand(1, 5, *size, generator=g) < share
    whole, near = model.decode(readout, features), model.decode(readout, features, cells)
    assert near.shape == whole.shape
    assert near[pixels(cells)].isfinite().all()
    torch.testing.assert_close(near[near > -torch.inf], whole[near > -torch.inf], atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("place", [(0, 0), (0, 12), (8, 12), (8, 0), (4, 6), (0, 6), (4, 0)])
def test_one_cell_anywhere_is_exact_to_its_edge(model, place):
    readout, features, _ = inputs(model, 9, 13, objects=1)
    cells = torch.zeros(1, 1, 9, 13, dtype=torch.bool)
    cells[0, 0, place[0], place[1]] = True
    near = model.decode(readout, features, cells)
    assert torch.equal(near > -torch.inf, pixels(cells))
    whole = model.decode(readout, features)
    torch.testing.assert_close(near[pixels(cells)], whole[pixels(cells)], atol=2e-5, rtol=0)


@torch.no_grad()
def test_objects_without_cells_are_nowhere_and_frames_of_a_batch_have_cells_of_their_own(model):
    readout, features, _ = inputs(model, 6, 5, objects=3, batch=2)
    cells = torch.zeros(2, 3, 6, 5, dtype=torch.bool)
    assert (model.decode(readout, features, cells) == -torch.inf).all()
    cells[1, 2, 2:4, 1:3] = True
    near = model.decode(readout, features, cells)
    assert torch.equal(near > -torch.inf, pixels(cells))
    whole = model.decode(readout, features)
    torch.testing.assert_close(near[pixels(cells)], whole[pixels(cells)], atol=2e-5, rtol=0)


@pytest.mark.parametrize("seed", range(20))
def test_tiles_are_disjoint_and_over_all_cells(seed):
    random = np.random.default_rng(seed)
    cells = random.random(random.integers(1, 40, 2)) < random.choice([0.01, 0.1, 0.5, 0.95])
    times = np.zeros(cells.shape, int)
    for tile in tiles_over(cells):
        times[tile.index] += 1
    assert times.max() <= 1
    assert (times[cells] == 1).all()


def test_what_is_far_apart_has_tiles_of_its_own_and_what_is_near_shares_one():
    cells = np.zeros((30, 54), bool)
    assert tiles_over(cells) == []
    cells[2:5, 3:6] = cells[20:28, 40:50] = True
    assert [(t.top, t.bottom, t.left, t.right) for t in tiles_over(cells)] == [(2, 5, 3, 6), (20, 28, 40, 50)]
    cells[:] = False
    cells[2:5, 3:6] = cells[6:8, 6:9] = True
    assert [(t.top, t.bottom, t.left, t.right) for t in tiles_over(cells)] == [(2, 8, 3, 9)]


@pytest.mark.parametrize(("objects", "most"), [(1, 0.45), (3, 0.4)])
def test_objects_on_a_tenth_of_a_frame_are_decoded_in_less_than_half_of_the_flops(objects, most):
    with torch.device("meta"), torch.no_grad():
        model = STCN(PRESETS["stcn"]).eval()
        features = model.encode_key(torch.empty(1, 3, 480, 864))
        readout = torch.empty(1, objects, 512, 30, 54)
    cells = torch.zeros(1, objects, 30, 54, dtype=torch.bool)
    cells[0, :, 8:21, 20:33] = True  # 169 of 1,620
    counts = []
    for some in (None, cells):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.decode(readout, features, some)
        counts.append(counter.get_total_flops())
    assert counts[1] / counts[0] < most
