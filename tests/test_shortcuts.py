from __future__ import annotations

import numpy as np
import pytest
import torch

from emavos import MemoryPolicy, Predictor, Session, Shortcuts
from emavos.demo import synthetic_clip
from emavos.models import STCN
from emavos.session.shortcuts import cells_near, coverage, encode_near
from emavos.weights import load_model

FRAMES, MASKS = synthetic_clip(frames=8, size=(96, 160))
NEAR = Shortcuts(decode_near=True)


@pytest.fixture(scope="module")
def model():
    return load_model()


def run(model, shortcuts, frames=FRAMES, mask=MASKS[0], **settings):
    session = Session(model, MemoryPolicy(every=2), 192, shortcuts, **settings)
    return session, [session.step(frame, None if i else mask) for i, frame in enumerate(frames)]


def agreement(ours, theirs):
    """Share of pixels of equal label, of those that either says are of an object."""
    pairs = [(a.mask, b.mask) for a, b in zip(ours, theirs, strict=True)]
    some = [(a > 0) | (b > 0) for a, b in pairs]
    return np.mean([(a == b)[s].mean() for (a, b), s in zip(pairs, some, strict=True)])


@pytest.mark.parametrize("shortcuts", [NEAR, Shortcuts(encode_near=True), Shortcuts(True, True)])
def test_masks_with_shortcuts_are_nearly_those_without(model, shortcuts):
    whole, near = (run(model, some)[1] for some in (None, shortcuts))
    assert agreement(near, whole) > 0.95
    for result in near:
        torch.testing.assert_close(result.prob.sum(dim=0), torch.ones(96, 160))


def test_nothing_is_left_out_unless_told(model):
    assert Shortcuts() == Shortcuts(decode_near=False, encode_near=False, still=0.0)
    assert Session(model).shortcuts == Predictor(model).shortcuts == Shortcuts()
    for a, b in zip(run(model, None)[1], run(model, Shortcuts())[1], strict=True):
        assert torch.equal(a.prob, b.prob)


def test_an_object_that_is_nowhere_is_not_decoded(model, monkeypatch):
    session = Session(model, None, 192, NEAR)
    session.step(FRAMES[0], MASKS[0])
    asked = []
    decode = STCN.decode
    monkeypatch.setattr(
        STCN, "decode", lambda self, r, f, cells: asked.append(cells) or decode(self, r, f, cells)
    )
    seen = session.step(FRAMES[1])
    gone = session.step(np.random.default_rng(0).integers(0, 256, FRAMES[0].shape, dtype=np.uint8))
    assert asked[0].any(dim=(2, 3)).all()
    assert set(np.unique(seen.mask)) == {0, 1, 2, 3}
    absent = ~asked[1].any(dim=(2, 3))[0]
    assert (gone.prob[1:][absent] < 1e-6).all()


def test_objects_of_several_frames_are_decoded_near_where_each_was_seen(model):
    first, second = (np.where(MASKS[i] == id, id, 0) for i, id in ((0, 1), (3, 2)))
    session = Session(model, None, 192, NEAR)
    plain = Session(model, None, 192)
    pairs = []
    for i, frame in enumerate(FRAMES):
        mask = {0: first, 3: second}.get(i)
        pairs.append((session.step(frame, mask), plain.step(frame, mask)))
    assert pairs[-1][0].ids == (1, 2)
    assert agreement(*zip(*pairs, strict=True)) > 0.95


def test_coverage_is_the_most_of_a_cell_and_cells_near_are_it_and_its_neighbours():
    prob = torch.zeros(2, 64, 80)
    prob[0, 17, 33] = 0.7
    covered = coverage(prob)
    assert covered.shape == (2, 1, 4, 5)
    assert covered[0, 0, 1, 2] == pytest.approx(0.7)
    assert covered.sum() == pytest.approx(0.7)
    near = cells_near(covered[:, 0])
    assert near[0, 0:3, 1:4].all()
    assert near.sum() == 9


@torch.no_grad()
@pytest.mark.parametrize("box", [(40, 56, 40, 56), (0, 8, 100, 160), (80, 96, 0, 160)])
def test_values_near_an_object_have_the_shape_of_all_and_one_value_elsewhere(model, box):
    frame = torch.randn(1, 3, 96, 288, generator=torch.Generator().manual_seed(0))
    prob = torch.zeros(1, 2, 96, 288)
    top, bottom, left, right = box
    prob[0, 1, top:bottom, left:right] = 1
    features = model.encode_key(frame)
    values = encode_near(model, frame, features, prob)[0]
    whole = model.encode_value(frame, features, prob)[0]
    assert values.shape == whole.shape
    far = values[:, :, :, 17]
    torch.testing.assert_close(far, far[:, :, :1].expand_as(far))
    assert not torch.allclose(values, far[:, :, :1, None].expand_as(values))


@torch.no_grad()
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_frame_of_no_object_or_of_nothing_else_is_encoded_whole(model, level):
    frame = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    prob = torch.full((1, 1, 48, 64), level)
    features = model.encode_key(frame)
    whole = model.encode_value(frame, features, prob)[0]
    torch.testing.assert_close(encode_near(model, frame, features, prob)[0], whole)


def test_a_still_video_is_kept_once_and_one_that_moves_as_ever(model):
    still, _ = run(model, Shortcuts(still=0.5), [FRAMES[0]] * 8)
    assert len(still.groups[0].bank) == 1
    moving, _ = run(model, Shortcuts(still=0.5))
    assert len(moving.groups[0].bank) == len(run(model, None)[0].groups[0].bank) == 4


def test_a_saved_session_goes_on_with_its_shortcuts_in_its_dtype(model, tmp_path):
    predictor = Predictor(model, MemoryPolicy(every=2), 96, NEAR, torch.bfloat16)
    session, expected = predictor.session(), []
    for i, frame in enumerate(FRAMES):
        if i == 4:
            session.save(tmp_path / "saved")
        expected.append(session.step(frame, None if i else MASKS[0]))
    other = predictor.session(tmp_path / "saved")
    assert other.shortcuts == NEAR
    for frame, result in zip(FRAMES[4:], expected[4:], strict=True):
        assert torch.equal(other.step(frame).prob, result.prob)
    with pytest.raises(ValueError, match="saved with another model, another dtype"):
        Predictor(model).session(tmp_path / "saved")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decode_near": 1}, "decode_near is True or False, not 1"),
        ({"encode_near": "yes"}, "encode_near is True or False, not 'yes'"),
        ({"still": -0.1}, r"still is a number of at least 0, not -0\.1"),
        ({"still": float("nan")}, "still is a number of at least 0, not nan"),
        ({"still": True}, "still is a number of at least 0, not True"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Shortcuts(**fields)
