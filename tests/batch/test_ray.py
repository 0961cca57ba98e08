from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

import kills
from emavos import Predictor
from emavos.batch import RayWorkers, find_jobs, on_ray, run_batch
from emavos.cli import batch as commands
from emavos.cli import main
from kills import tree

# The command with workers that are killed in the middle of a video: by clip1 once, by clip3 each time.
COMMAND = """
import os, sys
from pathlib import Path
import emavos.cli.batch
from emavos.cli import batch as commands
from emavos.cli import main

load_predictor = emavos.cli.batch.load_predictor
once = Path("once").resolve()

def load(args, shortcuts, **policy):
    import os
    import emavos.batch.run as run
    write_mask = run.write_mask

    def deadly(path, mask):
        if path.name == "00002.png" and ".clip3." in str(path):
            os.kill(os.getpid(), 9)
        if path.name == "00002.png" and ".clip1." in str(path) and once.exists():
            once.unlink()
            os.kill(os.getpid(), 9)
        write_mask(path, mask)

    run.write_mask = deadly
    return load_predictor(args, shortcuts, **policy)

emavos.cli.batch.load_predictor = load
sys.exit(main(sys.argv[1:]))
"""


def test_without_ray_the_extra_is_named(tmp_path, without_package):
    kills.clips(tmp_path, 1)
    without_package("ray")
    with pytest.raises(ImportError, match=r"\[ray\]"):
        run_batch(find_jobs(tmp_path), lambda: None, tmp_path / "out", workers=RayWorkers(2))


@pytest.mark.parametrize("numbers", [(0,), (True,), (2, 0), (2, 1.5)])
def test_numbers_of_workers_and_threads_below_one_are_refused(numbers):
    with pytest.raises(ValueError, match="is a whole number of at least 1, not "):
        RayWorkers(*numbers)


class Elsewhere:
    """Ray Data of one worker, in this process, that works in another folder."""

    def __init__(self, folder):
        self.folder = folder
        self.context = SimpleNamespace()

    def ActorPoolStrategy(self, **options):
        return None

    def from_items(self, rows, override_num_blocks):
        self.rows = rows
        return self

    def map(self, worker, fn_constructor_args, **options):
        self.worker = worker(*fn_constructor_args)
        return self

    def iter_rows(self):
        os.chdir(self.folder)
        return map(self.worker, self.rows)


def test_workers_find_relative_paths_wherever_they_work(tmp_path, monkeypatch):
    kills.clips(tmp_path / "data", 1)
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path)
    ray = SimpleNamespace(is_initialized=lambda: True, exceptions=SimpleNamespace(RayError=ZeroDivisionError))
    monkeypatch.setattr(on_ray, "_import_ray", lambda: (ray, Elsewhere(tmp_path / "else")))
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)

    def load():
        return Predictor.from_pretrained(device="cpu", size=64)

    (outcome,) = run_batch(iter(find_jobs("data")), load, "out", workers=RayWorkers(1))
    assert (outcome.error, outcome.frames) == ("", 4)
    assert len(list((tmp_path / "out" / "masks" / "clip0").iterdir())) == 4
    assert run_batch([], load, tmp_path / "none", workers=RayWorkers(1)) == []


CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@pytest.mark.parametrize("chosen", [None, "1"])
@pytest.mark.parametrize("address", [None, "", "10.0.0.1:6379"])
def test_ray_listens_on_this_machine_alone_unless_a_cluster_is_named(tmp_path, monkeypatch, address, chosen):
    kills.clips(tmp_path / "data", 1)
    monkeypatch.setenv("RAY_ADDRESS", address or "")
    if address is None:
        monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.delenv(CLUSTERS, raising=False)
    if chosen is not None:
        monkeypatch.setenv(CLUSTERS, chosen)
    started, constants = {}, SimpleNamespace(ENABLE_RAY_CLUSTER=True)

    def init(**options):
        started.update(options, cluster=constants.ENABLE_RAY_CLUSTER, variable=os.environ.get(CLUSTERS))

    ray = SimpleNamespace(
        _private=SimpleNamespace(ray_constants=constants),
        is_initialized=lambda: False,
        init=init,
        shutdown=lambda: None,
        exceptions=SimpleNamespace(RayError=ZeroDivisionError),
    )
    monkeypatch.setattr(on_ray, "_import_ray", lambda: (ray, None))
    monkeypatch.setattr(on_ray, "_rows", lambda *arguments: [])

    def load():
        return Predictor.from_pretrained(device="cpu", size=64)

    with pytest.raises(KeyError):  # no row came
        run_batch(find_jobs(tmp_path / "data"), load, tmp_path / "out", workers=RayWorkers(3, threads=2))
    here = {"address": "local", "_node_ip_address": "127.0.0.1", "num_cpus": 6}
    assert {name: value for name, value in started.items() if name in here} == ({} if address else here)
    assert started["include_dashboard"] is False
    alone = not address and chosen is None  # Ray was imported long before, and reads its variable then
    assert (started["cluster"], started["variable"]) == ((False, "0") if alone else (True, chosen))
    assert (constants.ENABLE_RAY_CLUSTER, os.environ.get(CLUSTERS)) == (True, chosen)


@pytest.mark.parametrize("given", [{}, {"RAY_AUTH_TOKEN": "mine" * 8}, {"RAY_AUTH_TOKEN_PATH": "/mine"}])
@pytest.mark.parametrize("address", ["", "10.0.0.1:6379"])
def test_ray_asks_for_a_token_of_this_run_unless_you_gave_one(monkeypatch, given, address):
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_DEDUP_LOGS_SKIP_REGEX")
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k not in names} | given)
    monkeypatch.setattr("logging.disable", lambda level: None)
    os.environ["RAY_ADDRESS"] = address
    commands._prepare_ray()
    made = {name: os.environ[name] for name in names[:3] if name in os.environ}
    if address:
        assert made == given
    elif given:
        assert made == given | {"RAY_AUTH_MODE": "token"}
    else:
        assert (made["RAY_AUTH_MODE"], len(made["RAY_AUTH_TOKEN"])) == ("token", 64)


@pytest.mark.parametrize("address", ["", "10.0.0.1:6379"])
@pytest.mark.parametrize("given", [None, "1"])
def test_ray_is_of_this_machine_alone_unless_you_said_otherwise(monkeypatch, address, given):
    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if not k.startswith("RAY_")})
    monkeypatch.setattr("logging.disable", lambda level: None)
    os.environ |= {"RAY_ADDRESS": address} | ({} if given is None else {name: given})
    commands._prepare_ray()
    assert os.environ.get(name) == (given or (None if address else "0"))


ADDRESS = {
    "command": """
from emavos.cli import batch
batch._prepare_ray()
import ray
from ray._private import services
from emavos.batch import on_ray
print(services.resolve_ip_for_localhost(on_ray._here(1)["_node_ip_address"]))
""",
    "python": """
import ray
from ray._private import services
from emavos.batch import on_ray
with on_ray._keeping_to_loopback(ray):
    print(services.resolve_ip_for_localhost(on_ray._here(1)["_node_ip_address"]))
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("way", ADDRESS)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray (extra: ray)")
def test_the_address_that_ray_is_given_stays_that_of_this_machine_alone(way):
    """Ray's servers listen at 127.0.0.1 if that is their node's address, and else at every address."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", ADDRESS[way]], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["127.0.0.1"]


def test_workers_get_a_model_by_its_whole_path(tmp_path, monkeypatch):
    kills.clips(tmp_path / "data", 1)
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr("emavos.batch.run_batch", lambda _, load, *a, **k: seen.append(load) or [])
    monkeypatch.setattr("emavos.cli.batch._prepare_ray", lambda: None)
    for model in ("mine", "user/name"):
        assert main(["batch", "data", "--out", "out", "--ray", "1", "--model", model, "--quiet"]) == 0
    assert [load.args[0].model for load in seen] == [str(tmp_path / "mine"), "user/name"]


def starts():
    """Whether Ray does, without this library."""
    code = "import ray; ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray (extra: ray)")
def test_two_workers_one_killed_give_the_bytes_of_one_process(tmp_path):
    pytest.importorskip("av")
    kills.clips(tmp_path / "data", 4)
    (tmp_path / "once").touch()

    def emavos(program, out, *more):
        argv = ["batch", "data", "--out", out, "--overlay", "--rle", "--size", "64", "--threads", "1", *more]
        # warnings are no errors there: Ray warns of its own deprecations
        return subprocess.run(
            [sys.executable, *program, *argv, "--device", "cpu"],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHONWARNINGS"))}
            | {"RAY_worker_niceness": "0", "RAY_worker_register_timeout_seconds": "400"},  # on a busy machine
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )

    assert emavos(["-m", "emavos"], "whole").returncode == 0
    done = emavos(["-c", COMMAND], "out", "--ray", "2")
    if "Ray does not start" in done.stderr and not starts():
        pytest.skip("Ray does not start on this machine, by itself either")
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("out: 3 videos made, 12 frames"), done.stderr
    assert done.stdout.count("\n") == 1  # what Ray itself says of the workers that die is hushed
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[")]  # Ray's core logs so
    assert [line[5:].split(" (")[0] for line in lines[:3]] == [": done"] * 3  # clips in any order
    assert lines[3].startswith("clip3: failed")
    assert len(lines) == 5
    assert lines[4].startswith("emavos: clip3: the process that tracked it was killed, 2 times; if memory")
    assert not (tmp_path / "once").exists()
    whole = tree(tmp_path / "whole")
    made = {name for name in whole if "clip3" not in name}
    assert {name: content for name, content in tree(tmp_path / "out").items() if "clip3" not in name} == {
        name: whole[name] for name in made
    }
    assert emavos(["-m", "emavos"], "out").returncode == 0  # goes on with clip3
    assert tree(tmp_path / "out") == whole
