"""One value says what decides the masks, and whoever must know whether two runs agree compares that."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import fields

import numpy as np
import pytest
import torch

from emavos import MemoryPolicy, Predictor, Session, Settings, Shortcuts
from emavos.batch import Batch
from emavos.io import open_frames
from emavos.memory import MemoryBank
from emavos.models import PRESETS, STCN, compiled, folded
from emavos.settings import differences
from emavos.ui.importing import import_video
from emavos.ui.project import Project
from emavos.ui.tracking import track_forward
from emavos.weights import load_model, save_model

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)
MASK = np.zeros((32, 48), np.int32)
MASK[8:24, 10:30] = 1
CHANGES = {
    "policy": MemoryPolicy(every=2),
    "size": 16,
    "shortcuts": Shortcuts(still=1.0),
    "dtype": torch.bfloat16,
    "compile": True,
    "cuts": "stop",
    "drop_absent": 9,
    "locality": True,
}


@pytest.fixture(scope="module")
def model():
    return load_model()


def test_every_setting_but_when_work_is_done_is_a_fact(model):
    plain = Settings()
    not_set_by_users = {"resize_ahead", "auto_backend", "library"}
    assert {*CHANGES} == {field.name for field in fields(Settings)} - not_set_by_users
    for name, value in CHANGES.items():
        assert len(differences(plain.facts(), Settings(**{name: value}).facts())) == 1, name
    assert Settings(resize_ahead=True).facts() == plain.facts()


def test_a_readout_uses_as_many_cells_as_the_model_has_in_its_config(tmp_path):
    four = STCN(dataclasses.replace(PRESETS["stcn-tiny-fine"], top_k=4))
    save_model(four, tmp_path)
    assert (tmp_path / "config.json").read_text().count('"top_k": 4') == 1
    predictor = Predictor(load_model(tmp_path))
    for other in (predictor, predictor.with_settings(policy=MemoryPolicy(every=3))):
        assert other.facts()["top_k"] == 4
        assert other.session().policy.top_k == 4
    assert predictor.with_settings(policy=MemoryPolicy(top_k=9)).session().policy.top_k == 9
    assert Predictor(STCN(PRESETS["stcn"])).facts()["top_k"] == 20
    assert Predictor(STCN(PRESETS["stcn"])).facts()["top_k"] == MemoryBank().top_k
    session = Session(predictor.model)
    assert session.policy.top_k == 4


UNDECIDED = {
    "all": MemoryPolicy(),
    "backend": MemoryPolicy(top_k=5),
    "top_k": MemoryPolicy(backend="dense"),
    "library": pytest.param(
        MemoryPolicy(backend="native", top_k=5),
        marks=pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler here"),
    ),
}


@pytest.mark.parametrize("policy", UNDECIDED.values(), ids=UNDECIDED)
def test_a_session_decides_what_its_settings_leave_open_and_can_be_loaded(model, tmp_path, policy):
    session = Session(model, settings=Settings(policy, size=None))
    decided = session.settings
    assert dataclasses.asdict(decided) == dataclasses.asdict(decided.decided(model))
    assert decided.facts() == Predictor(model, policy, size=None).session().settings.facts()
    assert decided.policy.top_k is not None
    assert decided.policy.backend != "auto"
    session.step(FRAMES[0], MASK)
    assert {group.bank.top_k for group in session.groups} == {policy.top_k or model.config.top_k}
    session.save(tmp_path / "saved")
    loaded = Session.load(tmp_path / "saved", model)
    assert loaded.settings.facts() == decided.facts()
    np.testing.assert_array_equal(loaded.step(FRAMES[1]).mask, session.step(FRAMES[1]).mask)


@pytest.mark.parametrize("wrong", [{"dtype": torch.bfloat16}, {"compile": True}])
def test_a_session_refuses_settings_of_another_network(model, wrong):
    with pytest.raises(ValueError, match=r"the settings are of a network with .*Settings.of\(network\)"):
        Session(model, settings=Settings(**wrong))
    other = folded(model, torch.bfloat16)
    assert Session(model, network=other, settings=Settings.of(other)).settings.dtype == torch.bfloat16


@pytest.mark.parametrize("change", CHANGES)
def test_all_that_goes_on_refuses_a_predictor_of_other_settings(model, tmp_path, change):
    begun = Predictor(model, size=None)
    if change in ("cuts", "drop_absent", "locality"):
        begun = begun.with_settings(locality=False)
        other = begun.with_settings(**{change: CHANGES[change]})
    else:
        other = Predictor(model, **{"size": None, change: CHANGES[change]})
    assert Batch.of(begun, "out").settings != Batch.of(other, "out").settings
    list(import_video(tmp_path / "project", open_frames([*FRAMES]), "clip"))
    project = Project.open(tmp_path / "project")
    project.give(0, MASK)
    list(track_forward(project, begun, until=2))
    with pytest.raises(ValueError, match="this project was begun with"):
        next(track_forward(project, other))


def test_a_project_that_is_older_than_a_setting_names_what_it_was_begun_with(model, tmp_path):
    list(import_video(tmp_path / "project", open_frames([*FRAMES]), "clip"))
    project = Project.open(tmp_path / "project")
    project.give(0, MASK)
    begun = Predictor(model, size=None).with_settings(locality=False)
    assert "locality" not in begun.facts()
    list(track_forward(project, begun, until=2))
    with pytest.raises(ValueError, match="this project was begun with cuts ignore, locality False; start"):
        next(track_forward(project, begun.with_settings(locality=True, cuts="stop")))


def test_a_saved_session_brings_its_settings_and_refuses_another_arithmetic(model, tmp_path):
    session = Session(model, MemoryPolicy(every=2), 16, Shortcuts(still=1.0))
    session.save(tmp_path / "saved")
    assert Session.load(tmp_path / "saved", model).settings == session.settings
    for network in (folded(model, torch.bfloat16), compiled(model)):
        with pytest.raises(ValueError, match="was saved with another model, another dtype"):
            Session.load(tmp_path / "saved", model, network)


def test_a_predictor_with_other_settings_shares_the_network_and_leaves_the_first_as_it_is(model):
    first = Predictor(model, size=None)
    second = first.with_settings(size=64, resize_ahead=False)
    assert second.network is first.network
    assert (first.size, second.size, second.settings.resize_ahead) == (None, 64, False)
    with pytest.raises(ValueError, match="dtype needs another network; make a new Predictor"):
        first.with_settings(dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="size is a whole number of pixels"):
        first.with_settings(size=3)
    with pytest.raises(TypeError):
        first.with_settings(sise=3)
    with pytest.raises(AttributeError):
        first.policy = MemoryPolicy()


@pytest.mark.parametrize(
    "wrong", [{"shortcuts": True}, {"compile": 3}, {"resize_ahead": "no"}, {"policy": 5}]
)
def test_what_is_no_setting_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} (is|are) "):
        Settings(**wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: Predictor(model, shortcuts={"decode_near": True}), "shortcuts are Shortcuts"),
        (lambda model: Session(model, shortcuts=True), "shortcuts are Shortcuts"),
        (lambda model: Predictor(model, dtype="auto"), "dtype is a floating-point type .*from_pretrained"),
        (lambda model: Predictor(model, dtype=torch.int8), "dtype is a floating-point type"),
        (lambda model: Predictor("tiny"), "model is an STCN, not 'tiny'; .*from_pretrained"),
        (lambda model: Session("tiny"), "model is an STCN, not 'tiny'"),
        (lambda model: Predictor(None), "model is an STCN, not None"),
    ],
)
def test_what_is_no_argument_is_refused_where_it_is_given(model, make, message):
    with pytest.raises(ValueError, match=message):
        make(model)
