"""The native readout that is prepared ahead: what "auto" is then, and what is not trusted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from emavos import MemoryPolicy, Predictor, doctor
from emavos.batch import find_jobs, run_batch
from emavos.batch.run import Batch
from emavos.cli import main, resuming
from emavos.cli.resuming import Progress, facts_of_stopped
from emavos.evaluation import PROTOCOLS
from emavos.evaluation.comparison import Model, compare
from emavos.io import open_frames, write_mask
from emavos.memory import choose_backend, native_build, native_readout, prepare, topk_readout
from emavos.session.file import _settings
from emavos.settings import Settings, differences
from emavos.ui.importing import import_video
from emavos.ui.project import Project
from emavos.ui.tracking import track_forward
from emavos.weights import load_model
from trees import davis_tree

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


def test_only_prepare_writes_to_the_cache(empty, tmp_path, monkeypatch):
    topk_readout(*draw(), backend="native")
    predictor = Predictor(load_model(), MemoryPolicy(backend="native"))
    predictor.session().save(tmp_path / "saved")
    assert Predictor(load_model()).session(tmp_path / "saved").policy.backend == "native"
    assert not empty.exists()
    assert auto() == "blocks"
    prepare()
    assert auto() == "native"
    assert stat.S_IMODE(empty.stat().st_mode) == 0o700


@pytest.mark.parametrize("error", [PermissionError, OSError])
@pytest.mark.parametrize("place", ["exists", "lstat"])
def test_a_cache_that_cannot_be_looked_at_is_not_used(cache, monkeypatch, error, place):
    def refused(path, **_):
        raise error(13, "refused", str(path))

    monkeypatch.setattr(native_build.Path, place, refused)
    assert "cannot be loaded" in native_readout.unprepared()
    assert Predictor(load_model()).facts()["backend"] == "blocks"


def test_a_cache_of_an_impossible_name_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("EMAVOS_CACHE", str(tmp_path / ("x" * 300)))
    monkeypatch.setattr(native_readout, "_loaded", [])
    assert auto() == "blocks"
    with pytest.raises(RuntimeError, match="cannot be kept"):
        prepare()


def another_build(cache, content=b"x"):
    """A library of the same name by another compiler, as a second process leaves it."""
    path = native_build.prepared().path
    other = path.with_name(f"{path.stem[:-16]}{hashlib.sha256(content).hexdigest()[:16]}.so")
    other.write_bytes(content)
    other.chmod(0o600)
    return other


def test_builds_of_two_processes_do_not_remove_each_other(cache):
    other = another_build(cache)
    assert native_build.build().path != other
    assert other.exists()
    os.utime(other, (0, 0))  # nobody is about to load it any more
    native_build.build()
    assert not other.exists()
    assert auto() == "native"


def build_of_another_source(cache, age):
    """A build of an older version, last used `age` seconds ago: its facts and its library."""
    described = cache / f"readout-{'0' * 16}.json"
    old = described, described.with_name(f"{described.stem}-{'1' * 16}.so")
    for path in old:
        path.write_text("{}")
        path.chmod(0o600)
        os.utime(path, (time.time() - age,) * 2)
    return old


def test_a_build_of_an_older_version_is_removed_once_nobody_uses_it(cache):
    old = build_of_another_source(cache, age=20 * 24 * 3600)
    native_build.build()
    assert all(path.exists() for path in old)
    old = build_of_another_source(cache, age=31 * 24 * 3600)
    os.utime(old[0])  # its facts were read: another version, or another machine, uses the library
    native_build.build()
    assert all(path.exists() for path in old)
    old = build_of_another_source(cache, age=31 * 24 * 3600)
    for path in cache.iterdir():  # the own build stays at any age
        os.utime(path, (0, 0))
    native_build.build()
    assert not any(path.exists() for path in old)
    assert auto() == "native"


def test_sweeping_follows_no_link_and_touches_nothing_else(cache, tmp_path):
    old = build_of_another_source(cache, age=31 * 24 * 3600)
    mine = tmp_path / "mine.json"
    mine.write_text("{}")
    old[0].unlink()
    old[0].symlink_to(mine)
    others = [cache / name for name in ("readout.json", "notes.json", "reader-1.so")]
    for path in others:
        path.write_text("{}")
    for path in (mine, *old, *others):
        os.utime(path, (0, 0), follow_symlinks=False)
    native_build.build()
    assert mine.exists()
    assert old[0].is_symlink()
    assert all(path.exists() for path in others)


def test_a_build_that_is_loaded_is_marked_as_used(cache):
    os.utime(facts(cache), (0, 0))
    assert auto() == "native"
    assert time.time() - facts(cache).stat().st_mtime < 3600


def test_a_build_that_is_replaced_at_once_is_loaded_all_the_same(cache, monkeypatch):
    replaced = os.replace

    def replace_and_remove(source, target):
        replaced(source, target)
        if target.suffix == ".so":
            target.unlink()

    monkeypatch.setattr(os, "replace", replace_and_remove)
    assert callable(native_build.build().scan)


def test_a_build_that_is_replaced_while_it_is_read_is_read_again(cache, monkeypatch):
    whole, reads = library(cache), []
    away = whole.rename(whole.with_suffix(".away"))
    loads = json.loads

    def slow(text):
        reads.append(text)
        if len(reads) == 2:
            away.rename(whole)
        return loads(text)

    monkeypatch.setattr(native_build.json, "loads", slow)
    assert native_build.prepared().path == whole
    assert len(reads) == 2


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
    session = predictor.session()
    assert predictor.facts()["backend"] == session.policy.backend == "native"
    monkeypatch.setenv("EMAVOS_CACHE", "")
    later = Predictor(model, MemoryPolicy(every=2))
    assert later.facts()["backend"] == later.session().policy.backend == "blocks"
    session.save(tmp_path / "saved")
    assert later.session(tmp_path / "saved").policy.backend == "native"
    monkeypatch.setattr(native_readout, "_loaded", [])
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(ValueError, match=r"saved was tracked with the native readout: .* does not compile"):
        later.session(tmp_path / "saved")
    with pytest.raises(RuntimeError, match="does not compile"):
        Predictor(model, MemoryPolicy(backend="native"))


def test_facts_name_the_library_and_a_run_continues_with_a_rebuilt_one(cache, monkeypatch, tmp_path):
    predictor = Predictor(load_model(), MemoryPolicy(every=2))
    facts_now = predictor.facts()
    assert facts_now["library"] == library(cache).stem[-16:]
    assert doctor.examine().library in (facts_now["library"], None)  # None: there is a GPU here
    assert "library" not in Predictor(load_model(), MemoryPolicy(backend="blocks")).facts()
    rebuilt = facts_now | {"library": "0" * 16}
    older = {name: fact for name, fact in facts_now.items() if name != "library"}
    assert differences(rebuilt, facts_now) == differences(older, facts_now) == []
    assert predictor.continuing(rebuilt).facts() == facts_now
    predictor.session().save(tmp_path / "saved")
    monkeypatch.setattr(native_readout, "_loaded", [replace(native_readout.load(), sha256="0" * 64)])
    later = Predictor(load_model()).session(tmp_path / "saved")
    assert later.settings.facts()["library"] == "0" * 16


def test_a_predictor_keeps_the_backend_that_was_asked_for(cache):
    predictor = Predictor(load_model())
    rarer = predictor.with_settings(policy=replace(predictor.policy, every=3))
    for one in (predictor, rarer, predictor.continuing(None)):
        assert (one.facts()["backend"], one.session().policy.backend) == ("native", "native")
    pinned = rarer.continuing({"backend": "blocks"})
    for one in (predictor, rarer, pinned.to("meta")):  # all of one network
        assert one.policy.backend == "auto"
        assert one.settings.decided(one.network).facts()["backend"] == "auto"
    blocks = Predictor(load_model(), MemoryPolicy(backend="blocks")).continuing({"backend": "native"})
    assert blocks.to("meta").policy.backend == "blocks"


@pytest.mark.parametrize("backend", ["native", "triton"])
def test_a_backend_that_cannot_run_on_a_device_is_refused_before_the_first_frame(cache, backend, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    model, policy = load_model(), MemoryPolicy(backend=backend)
    with pytest.raises(RuntimeError, match=f"the {backend} readout cannot run: "):
        Predictor(load_model().to("meta"), policy)
    if backend == "native":
        predictor = Predictor(model, policy)
        with pytest.raises(RuntimeError, match="the native readout cannot run: query is on meta"):
            predictor.to("meta")
        assert predictor.device.type == "cpu"  # nothing was moved
    predictor = Predictor(model)
    with pytest.raises(RuntimeError, match=f"the {backend} readout cannot run: "):
        predictor.to("meta").with_settings(policy=policy)


@pytest.mark.parametrize(("backend", "loaded"), [("auto", "auto"), ("blocks", "blocks"), ("native", "auto")])
def test_a_session_saved_on_a_cpu_decides_on_another_device_what_auto_is(cache, tmp_path, backend, loaded):
    predictor = Predictor(load_model(), MemoryPolicy(backend=backend))
    for number in range(2):  # saved again after loading
        predictor.session(tmp_path / "0" if number else None).save(tmp_path / str(number))
    pinned = predictor.continuing({"backend": "blocks"})
    pinned.session().save(tmp_path / "2")
    network = load_model().to("meta")
    for path in sorted(tmp_path.glob("?")):
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["session"])
        extra = {name: facts[name] for name in ("auto_backend",) if name in facts}
        assert _settings(facts["settings"] | extra, network).policy.backend == loaded


VIDEO = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)


def mask_of_one():
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 10:30] = 1
    return mask


def unprepare(monkeypatch):
    monkeypatch.setenv("EMAVOS_CACHE", "")


def backends(out, jobs):
    return [
        json.loads((out / "status" / f"{job.name}.json").read_text())["settings"]["backend"] for job in jobs
    ]


@pytest.mark.parametrize("prepared_first", [True, False])
def test_a_begun_batch_continues_with_its_backend_and_repeats_nothing(
    cache, monkeypatch, tmp_path, prepared_first
):
    jobs = find_jobs(davis_tree(tmp_path / "data", dict.fromkeys("abc", 3), size=(32, 48)))
    model, places = load_model(), (str(cache), "") if prepared_first else ("", str(cache))
    begun = "native" if prepared_first else "blocks"
    monkeypatch.setenv("EMAVOS_CACHE", places[0])
    run_batch(jobs[:1], Predictor(model, size=None), tmp_path / "out")
    monkeypatch.setenv("EMAVOS_CACHE", places[1])
    predictor = Predictor(model, size=None)
    made = [one.made for one in run_batch(jobs[:2], predictor, tmp_path / "out")]
    assert (made, backends(tmp_path / "out", jobs[:2])) == ([False, True], [begun, begun])
    other = predictor.with_settings(policy=MemoryPolicy(backend="dense"))
    with pytest.raises(ValueError, match=r"other settings \(backend\)"):
        run_batch(jobs, other, tmp_path / "out")
    run_batch(jobs[2:], other, tmp_path / "out")  # another shard, with another option
    made = [one.made for one in run_batch(jobs, predictor, tmp_path / "out", force=True)]
    assert made == [False, False, False]


@pytest.mark.parametrize("first", ["native", "blocks"])
def test_shards_that_start_together_on_unequal_machines_share_a_backend(cache, monkeypatch, tmp_path, first):
    jobs, out = (
        find_jobs(davis_tree(tmp_path / "data", dict.fromkeys("ab", 3), size=(32, 48))),
        tmp_path / "out",
    )
    model, predictors, batches = load_model(), {}, {}
    for name, place in (("native", str(cache)), ("blocks", "")):
        monkeypatch.setenv("EMAVOS_CACHE", place)
        predictors[name] = Predictor(model, size=None)
        batches[name] = Batch.of(predictors[name], out)
    assert [batch.settings["backend"] for batch in batches.values()] == ["native", "blocks"]
    for batch in batches.values():
        batch.begin(jobs)
    order = sorted(batches, key=lambda name: name != first)
    for name, job in zip(order, jobs, strict=True):
        batches[name].agreed(predictors[name]).run(predictors[name], job)
    assert backends(out, jobs) == [first, first]
    assert not list(out.rglob("*.partial"))
    made = [one.made for one in run_batch(jobs, predictors["blocks"], out)]
    assert made == [False, False]


def test_a_batch_keeps_its_backend_while_the_cache_changes(cache, monkeypatch, tmp_path):
    jobs = find_jobs(davis_tree(tmp_path / "data", dict.fromkeys("ab", 3), size=(32, 48)))
    run_batch(
        jobs, Predictor(load_model(), size=None), tmp_path / "out", each=lambda _: unprepare(monkeypatch)
    )
    assert backends(tmp_path / "out", jobs) == ["native", "native"]


def test_a_video_with_a_backend_of_its_own_is_compared_by_it(cache, tmp_path):
    (job,) = find_jobs(davis_tree(tmp_path / "data", {"a": 3}, size=(32, 48)))
    predictor = Predictor(load_model(), size=None)
    run_batch([job], predictor, tmp_path / "out")
    asked = replace(job, options={"backend": "auto"})
    assert not run_batch([asked], predictor, tmp_path / "out")[0].made
    with pytest.raises(ValueError, match=r"other settings \(backend\)"):
        run_batch([replace(job, options={"backend": "blocks"})], predictor, tmp_path / "out")


def test_a_page_continues_a_project_with_the_backend_it_was_begun_with(cache, monkeypatch, tmp_path):
    model = load_model()
    list(import_video(tmp_path / "project", open_frames([*VIDEO]), "clip"))
    project = Project.open(tmp_path / "project")
    project.give(0, mask_of_one())
    assert project.continuing(Predictor(model, size=None)).policy.backend == "native"
    unprepare(monkeypatch)
    assert project.continuing(Predictor(model, size=None)).policy.backend == "blocks"  # none is tracked
    list(track_forward(project, Predictor(model, size=None), until=2))
    monkeypatch.setenv("EMAVOS_CACHE", str(cache))
    predictor = Predictor(model, size=None)
    list(track_forward(project, predictor))
    assert project.settings["backend"] == project.continuing(predictor).policy.backend == "blocks"
    assert project.states.latest(3, predictor).policy.backend == "blocks"
    with pytest.raises(ValueError, match="begun with backend blocks"):
        project.continuing(predictor.with_settings(policy=MemoryPolicy(backend="native")))


def test_an_evaluation_continues_with_the_backend_it_was_begun_with(cache, monkeypatch, tmp_path):
    data = davis_tree(tmp_path / "data", dict.fromkeys("ab", 3), size=(32, 48))
    models = {"tiny": Model(lambda: Predictor(load_model(), size=None), "tiny")}
    for sequences in (["a"], ["a", "b"]):
        compare(data, PROTOCOLS["davis-like"], tmp_path / "out", models=models, sequences=sequences)
        unprepare(monkeypatch)
    record = json.loads((tmp_path / "out" / "masks" / "tiny" / "run.json").read_text())
    assert (record["settings"]["backend"], {*record["timings"]}) == ("native", {"a", "b"})


def test_a_stopped_run_continues_with_the_backend_it_was_begun_with(cache, monkeypatch, tmp_path):
    predictor, out = Predictor(load_model(), size=None), tmp_path / "out"
    assert facts_of_stopped(out) is None
    progress = Progress(out, predictor.facts(), force=False)
    monkeypatch.setattr(resuming, "SECONDS", -1.0)
    session = predictor.session()
    result = session.step(VIDEO[0], mask_of_one())
    (tmp_path / "masks").mkdir()
    write_mask(tmp_path / "masks" / "0.png", result.mask)
    progress.note("0", result, states=False)
    progress.save_if_due(session, tmp_path / "masks")()
    unprepare(monkeypatch)
    later = Predictor(load_model(), size=None)
    again = later.continuing(facts_of_stopped(out))
    assert again.policy.backend == again.session(progress.session).policy.backend == "native"
    assert Progress(out, again.facts(), force=False).done == 1
    with pytest.raises(ValueError, match="other backend"):
        Progress(out, later.facts(), force=False)


def test_a_run_that_was_begun_with_native_says_so_if_it_cannot_continue(cache, monkeypatch):
    predictor = Predictor(load_model())
    unprepare(monkeypatch)
    assert (predictor.facts()["backend"], predictor.session().policy.backend) == ("native", "native")
    monkeypatch.setattr(native_readout, "_loaded", [])
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        ValueError,
        match=r"begun with backend 'native'.* is found; install g\+\+ or .*, or start a new run",
    ):
        predictor.continuing({"backend": "native"})


def test_a_session_of_native_says_how_to_get_a_compiler_and_another_obstacle_does_not(
    cache, tmp_path, monkeypatch
):
    predictor = Predictor(load_model())
    predictor.session().save(tmp_path / "saved")
    unprepare(monkeypatch)
    monkeypatch.setattr(native_readout, "_loaded", [])
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"was tracked with the native readout: .* install g\+\+ or clang"):
        Predictor(load_model()).session(tmp_path / "saved")
    monkeypatch.setattr(native_readout, "obstacle", lambda *_: "it is broken")
    with pytest.raises(ValueError, match=r"the native readout: it is broken$"):
        Predictor(load_model()).session(tmp_path / "saved")
    with pytest.raises(
        ValueError, match=r"the native readout cannot run: it is broken; start a new run in another folder$"
    ):
        Predictor(load_model()).continuing({"backend": "native"})


def test_a_session_that_was_saved_with_auto_goes_on_with_blocks(cache, tmp_path, monkeypatch):
    predictor = Predictor(load_model(), MemoryPolicy(backend="blocks"))
    session = predictor.session()
    # as on a GPU, or as older versions wrote it
    monkeypatch.setattr(session, "settings", Settings(MemoryPolicy(top_k=session.policy.top_k)))
    session.save(tmp_path / "saved")
    assert predictor.session(tmp_path / "saved").policy.backend == "blocks"


def test_auto_of_older_facts_is_blocks(cache):
    one = Settings().facts()
    assert Predictor(load_model()).continuing(one).policy.backend == "blocks"
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
    monkeypatch.setattr(doctor, "load_model", lambda name: SimpleNamespace(config=None))
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
