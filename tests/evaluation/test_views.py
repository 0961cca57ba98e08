import numpy as np
import pytest
import torch

from emavos import MemoryPolicy, Session
from emavos.demo import synthetic_clip
from emavos.evaluation.views import Views
from emavos.weights import load_model


@pytest.fixture(scope="module")
def begin():
    model = load_model()
    return lambda size: Session(model, MemoryPolicy(every=2), size)


@pytest.fixture(scope="module")
def clip():
    frames, masks = synthetic_clip(frames=5, size=(64, 96))
    return frames, masks[0]


def follow(follower, frames, first):
    return [follower.step(frame, first if i == 0 else None) for i, frame in enumerate(frames)]


def test_one_view_is_a_session(begin, clip):
    ours, theirs = follow(Views(begin, None), *clip), follow(begin(None), *clip)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.index, a.ids) == (b.index, b.ids)
        torch.testing.assert_close(a.prob, b.prob, rtol=0, atol=0)


def test_with_the_mirrored_view_left_and_right_are_treated_alike(begin, clip):
    frames, first = clip
    straight = follow(Views(begin, None, flip=True), frames, first)
    turned = follow(
        Views(begin, None, flip=True), [np.ascontiguousarray(f[:, ::-1]) for f in frames], first[:, ::-1]
    )
    alone = follow(begin(None), frames, first)
    for a, b in zip(straight, turned, strict=True):
        torch.testing.assert_close(a.prob, b.prob.flip(-1), rtol=0, atol=1e-5)
    assert (straight[-1].prob - alone[-1].prob).abs().max() > 1e-3


def test_the_result_is_the_mean_of_views_that_are_followed_alone(begin, clip):
    merged = follow(Views(begin, 64, scales=(1, 1.5)), *clip)
    each = [follow(begin(size), *clip) for size in (64, 96)]
    for result, a, b in zip(merged, *each, strict=True):
        torch.testing.assert_close(result.prob, (a.prob + b.prob) / 2)
        torch.testing.assert_close(result.prob.sum(0), torch.ones(64, 96))


def test_scales_of_frames_without_a_short_side_are_those_of_the_frames(begin, clip):
    merged = follow(Views(begin, None, scales=(1.5,)), *clip)
    for a, b in zip(merged, follow(begin(96), *clip), strict=True):
        torch.testing.assert_close(a.prob, b.prob, rtol=0, atol=0)


def test_a_given_frame_comes_back_as_it_was_given_and_late_objects_join(begin, clip):
    frames, first = clip
    follower = Views(begin, None, scales=(1, 1.25), flip=True)
    result = follower.step(frames[0], np.where(first == 3, 0, first))
    np.testing.assert_array_equal(result.mask, np.where(first == 3, 0, first))
    assert follower.step(frames[1], np.where(first == 3, 3, 0)).ids == (1, 2, 3)


@pytest.mark.parametrize("scales", [(), (0.0,), (5.0,), (float("nan"),)])
def test_scales_that_are_none_are_refused(begin, scales):
    with pytest.raises(ValueError, match="scales are one or more numbers"):
        Views(begin, None, scales=scales)


def test_views_that_a_failure_left_at_different_frames_are_not_gone_on_with(begin, clip):
    frames, first = clip
    views = Views(begin, None, flip=True)
    with pytest.raises(ValueError, match="empty"):
        views.step(frames[0], np.zeros_like(first))  # refused by the first view: none has gone on
    views.step(frames[0], first)

    def fail(*_):
        raise MemoryError

    views._sessions[1].step = fail
    with pytest.raises(MemoryError):
        views.step(frames[1])
    with pytest.raises(RuntimeError, match="begin the video anew"):
        views.step(frames[1])
