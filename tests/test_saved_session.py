from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from emavos import MemoryPolicy, Predictor, Session
from emavos.demo import synthetic_clip
from emavos.models import PRESETS, STCN
from emavos.weights import load_model

FRAMES, TRUTH = synthetic_clip(frames=8, size=(96, 160))


@pytest.fixture(scope="module")
def predictor():
    policy = MemoryPolicy(every=2, include_last=True, max_frames=3)
    return Predictor.from_pretrained(device="cpu", dtype=torch.float32, policy=policy, size=96)


def begun(predictor, frames):
    session = predictor.session()
    for index in range(frames):
        late = {0: TRUTH[0] * (TRUTH[0] < 3), 2: TRUTH[2] * (TRUTH[2] == 3)}
        session.step(FRAMES[index], late.get(index))
    return session


def test_a_saved_session_goes_on_in_another_process(predictor, tmp_path):
    session = begun(predictor, 5)
    session.save(tmp_path / "session.safetensors")
    expected = [session.step(frame) for frame in FRAMES[5:]]
    np.save(tmp_path / "frames.npy", np.stack(FRAMES[5:]))
    code = """
import sys, numpy as np, torch
from emavos import Predictor
session = Predictor.from_pretrained(device="cpu", dtype=torch.float32).session("session.safetensors")
results = [session.step(frame) for frame in np.load("frames.npy")]
assert [r.index for r in results] == [5, 6, 7] and results[0].ids == (1, 2, 3)
np.save("prob.npy", torch.stack([r.prob for r in results]).numpy())
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    prob = torch.from_numpy(np.load(tmp_path / "prob.npy"))
    torch.testing.assert_close(prob, torch.stack([result.prob for result in expected]))


@pytest.mark.parametrize("eviction", ["oldest", "least-used", "consolidate"])
def test_a_loaded_session_evicts_as_the_one_that_was_saved(predictor, tmp_path, eviction):
    session = Session(predictor.model, MemoryPolicy(every=1, max_frames=3, eviction=eviction), size=96)
    for number in range(7):
        session.step(FRAMES[number], TRUTH[0] if number == 0 else None)
    session.save(tmp_path / "saved")
    loaded = predictor.session(tmp_path / "saved")
    assert loaded.policy == session.policy
    assert loaded.nbytes == session.nbytes
    for _ in range(2):
        for frame in (FRAMES[7], FRAMES[2]):
            assert torch.equal(session.step(frame).prob, loaded.step(frame).prob)
    for one, other in zip(session.groups, loaded.groups, strict=True):
        (held, slots), (tensors, places) = one.bank.state(), other.bank.state()
        assert slots == places
        assert held.keys() == tensors.keys()
        assert all(torch.equal(held[name], tensors[name]) for name in held)
    assert ("prototypes.keys" in held) == (eviction == "consolidate")


def test_a_loaded_session_shares_the_keys_of_objects_that_began_apart(predictor, tmp_path):
    session = begun(predictor, 5)
    session.save(tmp_path / "saved")
    loaded = predictor.session(tmp_path / "saved")
    assert len(loaded.groups) == 2
    keys = [group.bank.frame_keys for group in loaded.groups]
    assert any(keys[0][frame] is keys[1][frame] for frame in {*keys[0]} & {*keys[1]})
    assert loaded.nbytes <= session.nbytes
    for frame in FRAMES[5:]:
        assert torch.equal(session.step(frame).prob, loaded.step(frame).prob)


def divided(predictor, path):
    session = predictor.session()
    session.step(FRAMES[0], TRUTH[0])
    session.correct({2: TRUTH[0] == 1})
    session.step(FRAMES[1])
    session.correct({2: TRUTH[1] == 2})
    session.save(path)
    return session


def test_a_session_whose_objects_were_corrected_one_by_one_keeps_their_order(predictor, tmp_path):
    session = divided(predictor, tmp_path / "saved")
    loaded = predictor.session(tmp_path / "saved")
    assert session.ids == loaded.ids == (1, 2, 3)
    for frame in FRAMES[2:5]:
        assert torch.equal(session.step(frame).prob, loaded.step(frame).prob)


def test_the_order_of_objects_in_a_file_is_one_of_them_or_that_of_older_files(predictor, tmp_path):
    divided(predictor, tmp_path / "saved")
    tensors = load_file(tmp_path / "saved")
    with safe_open(tmp_path / "saved", "pt") as file:
        facts = json.loads(file.metadata()["session"])
    for ids in ([1, 2], [1, 2, 3, 3], [1, 2, 4], [1, 2, True], [1, 2, "3"], "123", 3, None):
        save_file(tensors, tmp_path / "odd", {"session": json.dumps(facts | {"ids": ids})})
        with pytest.raises(ValueError, match="odd is not a saved session"):
            predictor.session(tmp_path / "odd")
    del facts["ids"]
    save_file(tensors, tmp_path / "old", {"session": json.dumps(facts)})
    assert predictor.session(tmp_path / "old").ids == (2, 1, 3)


def test_a_session_that_saw_nothing_can_be_saved(predictor, tmp_path):
    predictor.session().save(tmp_path / "empty")
    session = predictor.session(tmp_path / "empty")
    assert (session.index, session.ids, session.policy) == (0, (), predictor.session().policy)
    assert session.step(FRAMES[0], TRUTH[0]).ids == (1, 2, 3)


def test_after_loading_edits_wait_for_a_step_and_sizes_are_still_checked(predictor, tmp_path):
    begun(predictor, 3).save(tmp_path / "saved")
    session = predictor.session(tmp_path / "saved")
    with pytest.raises(ValueError, match="no frame to edit yet"):
        session.correct({1: TRUTH[2] == 1})
    with pytest.raises(ValueError, match="frame 3 is 48x160 but the video began with 96x160"):
        session.step(FRAMES[3][:48])
    session.step(FRAMES[3])
    session.remove([1])
    assert session.ids == (2, 3)


def test_another_model_is_told(predictor, tmp_path):
    begun(predictor, 1).save(tmp_path / "saved")
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="saved was saved with another model"):
        Session.load(tmp_path / "saved", STCN(PRESETS["stcn-tiny"]).eval())


def test_what_is_no_saved_session_is_told_by_name(predictor, tmp_path):
    (tmp_path / "text").write_text("hello")
    save_file({"x": torch.zeros(1)}, tmp_path / "tensors")
    begun(predictor, 2).save(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(content[: len(content) // 2])
    for name, number in (("older", b"2"), ("newer", b"4")):  # the older knows nothing of compiled networks
        changed = content.replace(b'\\"format\\": 3', b'\\"format\\": ' + number)
        assert changed != content
        (tmp_path / name).write_bytes(changed)
    for name in ("text", "tensors", "cut", "older", "newer"):
        with pytest.raises(ValueError, match=f"{name} is not a saved session, or is damaged"):
            predictor.session(tmp_path / name)
    with pytest.raises(ValueError, match="it does not hold a session"):
        predictor.session(tmp_path / "tensors")
    for place in (tmp_path, tmp_path / "no" / "folder"):
        with pytest.raises(ValueError, match="is a folder, or lies in none"):
            predictor.session().save(place)
    with pytest.raises(FileNotFoundError):
        predictor.session(tmp_path / "nothing")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_session_of_every_type_is_saved_and_goes_on(tmp_path, dtype):
    frames, truth = synthetic_clip(frames=3, size=(64, 96))
    predictor = Predictor(load_model(), size=None, dtype=dtype)
    session = predictor.session()
    session.step(frames[0], truth[0])
    session.save(tmp_path / "saved")
    again = predictor.session(tmp_path / "saved")
    assert torch.equal(again.step(frames[1]).prob, session.step(frames[1]).prob)
