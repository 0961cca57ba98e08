"""The native readout that is prepared ahead: what "auto" is then, and what is not trusted."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from types import SimpleNamespace

import pytest
import torch

from emavos import MemoryPolicy, Predictor, doctor
from emavos.batch import Job
from emavos.batch.run import Batch
from emavos.cli import main
from emavos.memory import choose_backend, native_build, native_readout, prepare, topk_readout
from emavos.settings import Settings, differences
from emavos.weights import load_model

pytestmark = pytest.mark.skipif(
    shutil.which("c++") is None or sys.platform == "win32", reason="there is no C++ compiler here"
)
CPU = torch.device("cpu")


def auto(dtype=torch.float32):
    return choose_backend("auto", CPU, dtype)


def draw():
    g = torch.Generator().manual_seed(0)
    query, keys = torch.randn(5, 30, generator=g), torch.randn(90, 5, generator=g)
    return query, keys, torch.randn(90, 2, 3, generator=g)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A cache with a build."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMAVOS_CACHE", str(tmp_path_factory.mktemp("home") / "cache"))
        return prepare().path.parent


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """The cache of a user who has prepared nothing, in a new process."""
    monkeypatch.setenv("EMAVOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(native_readout, "_loaded", [])
    return tmp_path / "cache"


@pytest.fixture
def cache(empty, built):
    """The cache of a user who has prepared the readout, in a new process."""
    shutil.copytree(built, empty)
    return empty


@pytest.fixture
def compiles_nothing(monkeypatch):
    def compiled(*_):
        pytest.fail("it was compiled")

    monkeypatch.setattr(native_build, "_compile", compiled)


def test_auto_is_native_once_it_is_prepared_and_never_compiles(cache, compiles_nothing):
    assert auto() == auto(torch.bfloat16) == "native"  # keys of halves are float32
    assert auto(torch.float64) == "blocks"
    assert choose_backend("auto", torch.device("meta"), torch.float32) == "auto"
    torch.testing.assert_close(topk_readout(*draw(), backend="native"), topk_readout(*draw()))


def test_auto_is_blocks_while_nothing_is_prepared(empty, compiles_nothing):
    assert auto() == "blocks"
    assert not empty.exists()


def test_asking_for_native_prepares_it(empty, monkeypatch):
    topk_readout(*draw(), backend="native")
    monkeypatch.setattr(native_readout, "_loaded", [])
    assert auto() == "native"
    assert stat.S_IMODE(empty.stat().st_mode) == 0o700


def test_without_a_cache_native_still_runs_and_auto_is_blocks(monkeypatch):
    monkeypatch.setenv("EMAVOS_CACHE", "")
    monkeypatch.setattr(native_readout, "_loaded", [])
    topk_readout(*draw(), backend="native")
    assert auto() == "blocks"
    with pytest.raises(RuntimeError, match="EMAVOS_CACHE is empty"):
        prepare()


def library(cache):
    (found,) = cache.glob("*.so")
    return found


def facts(cache):
    (found,) = cache.glob("*.json")
    return found


def another_sha(cache):
    content = json.loads(facts(cache).read_text()) | {"sha256": "../" + "0" * 61}
    facts(cache).write_text(json.dumps(content))


def linked(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda cache: library(cache).write_bytes(library(cache).read_bytes() + b"x"), "is damaged"),
        (lambda cache: library(cache).unlink(), "not prepared for this processor"),
        (lambda cache: facts(cache).write_text("{"), "cannot be loaded"),
        (lambda cache: facts(cache).write_text("[]"), "cannot be loaded"),
        (another_sha, "cannot be loaded"),
        (lambda cache: cache.chmod(0o770), "others may write to .*cache"),
        (lambda cache: library(cache).chmod(0o666), "others may write to .*so"),
        (lambda cache: facts(cache).chmod(0o620), "others may write to .*json"),
        (linked, "cache is a link"),
        (lambda cache: linked(library(cache)), "so is a link"),
    ],
)
def test_a_build_that_others_may_have_written_or_that_is_damaged_is_not_loaded(
    cache, compiles_nothing, harm, reason
):
    harm(cache)
    assert auto() == "blocks"
    with pytest.raises(native_build.NotReadyError, match=reason):
        native_build.prepared()


def test_a_build_of_another_user_is_not_loaded(cache, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "belongs to another user" in native_readout.unprepared()
    with pytest.raises(RuntimeError, match="another user; name a folder of your own by EMAVOS_CACHE"):
        prepare()


def test_a_build_of_another_processor_source_or_compiler_is_not_loaded(cache, monkeypatch, tmp_path):
    assert auto() == "native"
    with monkeypatch.context() as patch:
        patch.setattr(native_build, "_processor", lambda: "another")
        assert auto() == "blocks"
    with monkeypatch.context() as patch:
        (tmp_path / "source.cpp").write_bytes(native_build.SOURCE.read_bytes() + b"//")
        patch.setattr(native_build, "SOURCE", tmp_path / "source.cpp")
        assert auto() == "blocks"
    with monkeypatch.context() as patch:
        patch.setenv("CXX", "c++ -g0")
        assert auto() == "blocks"
        patch.setenv("CXX", "no-such-compiler")
        assert auto() == "blocks"
    with monkeypatch.context() as patch:  # where it was prepared it runs without a compiler
        patch.setattr(shutil, "which", lambda *_: None)
        assert auto() == "native"
        topk_readout(*draw(), backend="native")


def test_preparing_twice_compiles_once_and_a_new_compiler_compiles_anew(cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(native_build, "_compile", None)
        assert prepare().path == library(cache)
    content = json.loads(facts(cache).read_text()) | {"compiler": "an older one"}
    facts(cache).write_text(json.dumps(content))
    assert prepare().compiler == native_build.version()
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".so"]


def test_a_compiler_that_fails_leaves_the_cache_as_it_was(cache, monkeypatch):
    before = {path.name: path.read_bytes() for path in cache.iterdir()}
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(RuntimeError, match="does not compile"):
        prepare()
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == before


def test_what_was_decided_stays_if_the_cache_goes(cache, compiles_nothing):
    assert auto() == "native"
    shutil.rmtree(cache)
    topk_readout(*draw(), backend="native")


def test_settings_say_which_readout_auto_is(cache, monkeypatch, tmp_path):
    model = load_model()
    predictor = Predictor(model, MemoryPolicy(every=2))
    assert predictor.facts()["backend"] == predictor.session().policy.backend == "native"
    monkeypatch.setenv("EMAVOS_CACHE", "")
    later = Predictor(model, MemoryPolicy(every=2))
    assert later.settings.facts()["backend"] == "blocks"
    assert predictor.with_settings(size=96).policy.backend == "native"  # it was decided
    assert predictor.with_settings(policy=MemoryPolicy()).policy.backend == "blocks"
    session = predictor.session()
    session.save(tmp_path / "saved")
    assert later.session(tmp_path / "saved").policy.backend == "native"
    job = Job("one", tmp_path, tmp_path, options={"backend": "auto"})
    assert Batch.of(predictor, tmp_path)._settings(job)["backend"] == "native"
    monkeypatch.setattr(native_readout, "_loaded", [])
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(ValueError, match=r"saved was tracked with the native readout: .* does not compile"):
        later.session(tmp_path / "saved")
    with pytest.raises(RuntimeError, match="does not compile"):
        Predictor(model, MemoryPolicy(backend="native"))


def test_auto_is_decided_again_on_another_device(cache):
    assert Predictor(load_model()).to("meta").policy.backend == "auto"
    asked = Predictor(load_model(), MemoryPolicy(backend="blocks"))
    assert asked.to("meta").policy.backend == "blocks"


def test_a_session_that_was_saved_with_auto_goes_on_with_blocks(cache, tmp_path, monkeypatch):
    predictor = Predictor(load_model(), MemoryPolicy(backend="blocks"))
    session = predictor.session()
    policy = MemoryPolicy()  # as on a GPU, or as older versions wrote it
    monkeypatch.setattr(session, "settings", Settings(policy))
    session.save(tmp_path / "saved")
    assert predictor.session(tmp_path / "saved").policy.backend == "blocks"


def test_auto_of_older_facts_is_blocks():
    one = Settings().facts()
    assert one["backend"] == "auto"
    assert differences(one, one | {"backend": "blocks"}) == []
    assert differences(one, one | {"backend": "native"}) == ["backend"]


def test_prepare_says_where_the_build_is_and_doctor_what_auto_is(cache, capsys, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert main(["prepare"]) == 0
    assert capsys.readouterr().out == f"the native readout is ready: {library(cache)}\n"
    report = doctor.examine()
    assert (report.auto, report.prepared, report.readouts["native"]) == ("native", None, None)


def test_doctor_prepares_nothing_and_says_how_to(empty, capsys, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "load_model", lambda name: SimpleNamespace())
    assert main(["doctor"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("readout auto")]
    assert line.split(maxsplit=2)[2] == (
        "blocks; native is not used: it is not prepared; `emavos prepare` makes it native"
    )
    assert not empty.exists()


def test_prepare_fails_in_a_line(empty, capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main(["prepare"]) == 1
    assert "no C++ compiler is found" in capsys.readouterr().err
