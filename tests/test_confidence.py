"""What a result says of its objects: present or absent, how sure, how large."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emavos import Predictor, Session
from emavos.clicks.seen import score_of
from emavos.confidence.expected import Evidence
from emavos.demo import synthetic_clip
from emavos.session.frame import signs_of

FRAMES, TRUTH = synthetic_clip(frames=6, size=(96, 160))


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained(size=None)


def blob(inside, outside=0.0, rows=slice(10, 20)):
    """Probabilities (2, 40, 40) of background and one square object."""
    prob = torch.full((40, 40), outside)
    prob[rows, 10:20] = inside
    return torch.stack([1 - prob, prob])


def confidence(prob, edge=0.0):
    """Of the first object, last seen with this share of its outline at the border."""
    signs = signs_of(prob)
    return Evidence(signs, torch.full((len(signs),), edge), (False,) * len(signs)).confidences()[0]


def test_a_mask_is_surer_the_clearer_it_stands_out():
    values = [confidence(blob(*pair)) for pair in ((0.6, 0.0), (0.9, 0.0), (0.99, 0.0))]
    assert values == sorted(values)
    assert confidence(blob(0.9, outside=0.02)) < confidence(blob(0.9))
    assert all(0 <= value <= 1 for value in values)


def test_confidence_does_not_depend_on_other_objects_or_size():
    one, large = blob(0.9), blob(0.9).repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert confidence(large) == pytest.approx(confidence(one))
    other = torch.zeros(1, 40, 40)
    other[0, 30:35, 30:35] = 0.8
    two = torch.cat([one, other])
    two[0] -= other[0]
    assert confidence(two) == pytest.approx(confidence(one))


def test_an_object_that_left_across_the_border_is_surer_gone_than_one_that_faded():
    left, faded = (float(signs_of(prob)[0, 2]) for prob in (blob(0.9, rows=slice(0, 5)), blob(0.9)))
    nothing = blob(0.0)
    assert confidence(nothing, left) > 0.5 > confidence(nothing, faded)


def test_an_object_of_which_a_trace_is_left_is_less_surely_gone():
    for edge in (0.0, 0.3):
        values = [confidence(blob(trace), edge) for trace in (0.0, 0.03, 0.08)]
        assert values == sorted(values, reverse=True)
        assert len({*values}) == 3


def test_the_score_of_clicks_is_the_agreement_of_a_confidence_in_and_near_the_mask():
    for prob in (blob(0.9), blob(0.6), blob(0.0)):
        assert score_of(prob[1]) == pytest.approx(float(signs_of(prob)[0, 1]))
    prob = blob(0.9)
    prob[1, :2] = 0.4  # far from the mask, as of a look-alike
    assert score_of(prob[1]) == score_of(blob(0.9)[1])
    assert float(signs_of(prob)[0, 1]) < score_of(prob[1])


def test_a_result_keeps_its_confidences_whatever_happens_before_they_are_read(predictor):
    read, later = predictor.session(), predictor.session()
    results = []
    for session in (read, later):
        session.step(FRAMES[0], TRUTH[0])
        results.append(session.step(FRAMES[1]))
    before = results[0].confidences
    for session, result in zip((read, later), results, strict=True):
        result.prob.zero_()
        session.remove([1])
        session.step(FRAMES[2])
    assert results[1].confidences == before


def test_a_given_mask_is_sure_and_one_given_as_absent_stays_so(predictor):
    session = predictor.session()
    first = session.step(FRAMES[0], TRUTH[0])
    assert first.confidences == (1.0, 1.0, 1.0)
    session.step(FRAMES[1])
    result = session.correct({2: np.zeros_like(TRUTH[1])})
    state = result.objects[2]
    assert (state.present, state.confidence, state.area) == (False, 1.0, 0)
    assert result.objects[1].confidence < 1


def test_areas_are_those_of_the_mask_and_add_up(predictor):
    result = list(predictor.propagate(FRAMES, TRUTH[0]))[-1]
    assert list(result.objects) == [1, 2, 3]
    for id, state in result.objects.items():
        assert state.area == np.count_nonzero(result.mask == id)
        assert state.present
        assert 0.2 < state.confidence < 1


def test_an_edit_that_is_undone_leaves_the_confidences_as_they_were(predictor):
    session = predictor.session()
    session.step(FRAMES[0], TRUTH[0])
    before = session.step(FRAMES[1])
    session.correct({1: TRUTH[1] == 1})
    assert session.undo().confidences == before.confidences
    again = predictor.session()
    again.step(FRAMES[0], TRUTH[0])
    again.step(FRAMES[1])
    assert session.step(FRAMES[2]).confidences == again.step(FRAMES[2]).confidences


def test_a_session_that_was_saved_goes_on_with_the_same_confidences(predictor, tmp_path):
    session = predictor.session()
    session.step(FRAMES[0], TRUTH[0])
    session.step(FRAMES[1])
    session.correct({3: np.zeros_like(TRUTH[1])})
    session.save(tmp_path / "session")
    resumed = Session.load(tmp_path / "session", predictor.model)
    assert resumed.step(FRAMES[2]).confidences == session.step(FRAMES[2]).confidences


def test_a_correction_takes_from_other_objects_only_the_pixels_they_cede(predictor):
    session = predictor.session()
    session.step(FRAMES[0], TRUTH[0])
    before = session.step(FRAMES[1]).mask
    claimed = np.roll(TRUTH[1] == 1, 6, axis=1)
    after = session.correct({1: claimed}).mask
    for id in (2, 3):
        kept = (before == id) & ~claimed
        assert (after[kept] == id).all()
    assert (after[claimed] == 1).all()
