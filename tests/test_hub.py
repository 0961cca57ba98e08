from __future__ import annotations

import importlib
import json
import logging
import shlex
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from emavos import ModelCard, Predictor
from emavos.cli import main
from emavos.models import PRESETS, STCN
from emavos.weights import push_model, save_model
from emavos.weights.load import KNOWN, KnownModel, load_model
from local_hub import TOKEN, etag

# The Hub's library still passes files to its HTTP client in a way that the client calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

CONFIG = PRESETS["stcn-tiny"]
NAME = "user/tiny"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return STCN(CONFIG)


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """The files of a model, as they lie in a repository."""
    folder = tmp_path_factory.mktemp("model")
    save_model(model, folder, dtype=torch.float16)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def other_weights(files):
    """The files of another model of the same kind."""
    content = bytearray(files["model.safetensors"])
    content[-2:] = b"\0\0"
    return files | {"model.safetensors": bytes(content)}


def same(one, other):
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


# there and back


def test_a_pushed_model_comes_back_into_an_empty_cache_and_then_without_the_network(hub, model, tmp_path):
    card = ModelCard(name="Ours", license="mit", data="Clips of our own.", scores={"J": 0.7})
    url = push_model(model, NAME, card=card, token=TOKEN)
    assert url.startswith(f"{hub.endpoint}/{NAME}/commit/")
    stored = hub.repositories[NAME].commits[hub.repositories[NAME].branches["main"]]
    assert sorted(stored) == ["README.md", "config.json", "model.safetensors"]
    assert f'from_pretrained("{NAME}")' in stored["README.md"].decode()

    loaded = load_model(NAME, cache_dir=tmp_path / "cache")
    assert same(loaded, model)
    hub.failing = {"HEAD", "GET"}
    assert same(load_model(NAME, cache_dir=tmp_path / "cache"), model)
    hub.requests.clear()
    assert same(load_model(NAME, cache_dir=tmp_path / "cache", local_files_only=True), model)
    assert hub.requests == []


def test_a_predictor_is_pushed_and_loaded_in_one_line_each(hub, model):
    Predictor(model).push_to_hub(NAME, token=TOKEN, dtype=torch.bfloat16)
    predictor = Predictor.from_pretrained(NAME, device="cpu", dtype=torch.bfloat16)
    assert {x.dtype for x in predictor.model.parameters()} == {torch.bfloat16}


def test_the_cache_is_not_filled_twice(hub, files):
    hub.create(NAME, files)
    for _ in range(2):
        load_model(NAME)
    assert hub.count("GET", "/objects/") == 1


def test_a_model_in_a_subfolder_is_loaded_and_files_are_fetched_again_if_that_is_asked_for(hub, files):
    hub.create(NAME, {f"small/{name}": content for name, content in files.items()})
    loaded = [load_model(NAME, subfolder="small") for _ in range(2)]
    assert same(*loaded)
    fetched = hub.count("GET", "/objects/")
    load_model(NAME, subfolder="small", force_download=True)
    assert hub.count("GET", "/objects/") > fetched


def test_a_push_over_a_model_replaces_it_and_its_older_revisions_stay(hub, model, files):
    repository = hub.create(NAME, files)
    first = repository.branches["main"]
    old = load_model(NAME)
    changed = STCN(CONFIG)
    push_model(changed, NAME, token=TOKEN)
    assert same(load_model(NAME), changed)
    assert same(load_model(NAME, revision=first), old)


def test_a_branch_is_pushed_to_and_loaded_by_name(hub, model, files):
    hub.create(NAME, files)
    changed = STCN(CONFIG)
    for _ in range(2):  # made, then found
        push_model(changed, NAME, token=TOKEN, revision="longer")
    assert same(load_model(NAME, revision="longer"), changed)
    assert not same(load_model(NAME), changed)


def test_a_private_repository_needs_a_token(hub, model):
    push_model(model, NAME, token=TOKEN, private=True)
    with pytest.raises(ValueError, match=r"has no user/tiny, or it is private.*token"):
        load_model(NAME)
    assert same(load_model(NAME, token=TOKEN), model)


def test_config_and_weights_are_of_one_commit_even_if_a_push_comes_between(hub, files, monkeypatch):
    """The second file is asked for by the commit of the first."""
    repository = hub.create(NAME, files)
    commit = repository.branches["main"]
    load_model(NAME)
    asked = [path for method, path, _ in hub.requests if method == "HEAD" and "model.safetensors" in path]
    assert asked == [f"/{NAME}/resolve/{commit}/model.safetensors"]


@pytest.mark.skipif(
    int(huggingface_hub.__version__.partition(".")[0]) < 1,
    reason="it goes on at the next call, not in this one",
)
def test_a_broken_download_is_taken_up_where_it_stopped(hub, model, tmp_path, monkeypatch):
    """The Hub's library counts in blocks of 10 MB, so the file is larger than one."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    save_model(model, tmp_path)
    hub.create(NAME, {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()})
    block = constants.DOWNLOAD_CHUNK_SIZE
    hub.breaks = [block + 100_000, 100]
    assert same(load_model(NAME), model)
    ranges = [range for method, path, range in hub.requests if method == "GET" and "/objects/" in path]
    assert ranges == [None, f"bytes={block}-", f"bytes={block}-"]


# what goes wrong


def test_a_repository_that_does_not_exist(hub):
    for token in (None, TOKEN):
        with pytest.raises(ValueError, match=r"the Hub has no user/tiny, or it is private: check the name"):
            load_model(NAME, token=token)


def test_a_revision_that_does_not_exist(hub, files):
    hub.create(NAME, files)
    with pytest.raises(ValueError, match=r"user/tiny has no revision v9: no such branch, tag or commit"):
        load_model(NAME, revision="v9")


def test_a_gated_repository(hub, files):
    hub.create(NAME, files, gated=True)
    with pytest.raises(PermissionError, match=rf"ask for it at {hub.endpoint}/user/tiny, then give a token"):
        load_model(NAME)
    load_model(NAME, token=TOKEN)


def test_a_token_that_is_not_valid(hub, files):
    hub.create(NAME, files)
    with pytest.raises(PermissionError, match=r"refuses this for user/tiny \(401\).*give another"):
        load_model(NAME, token="hf_wrong")


def test_a_push_without_a_token_or_to_another_owner(hub, model):
    with pytest.raises((PermissionError, ValueError), match="token"):
        push_model(model, NAME)
    with pytest.raises(PermissionError, match=r"refuses this for other/tiny \(403\)"):
        push_model(model, "other/tiny", token=TOKEN)
    assert hub.repositories == {}


def test_a_repository_of_a_pickle_says_how_to_convert_it(hub, files):
    hub.create(NAME, {"config.json": files["config.json"], "stcn.pth": b"a pickle"})
    with pytest.raises(ValueError, match=r"holds a pickle \(stcn\.pth\).*`emavos convert stcn\.pth OUT/`"):
        load_model(NAME)
    assert hub.count("GET", "/objects/") == 0


def test_a_repository_of_something_else_is_told_by_its_files(hub):
    hub.create(NAME, {"README.md": b"nothing", "data.csv": b"1"})
    with pytest.raises(ValueError, match=r"user/tiny has README\.md, data\.csv; a model is config\.json and"):
        load_model(NAME)


def test_a_failing_hub(hub, files, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between tries
    hub.create(NAME, files)
    hub.failing = {"HEAD", "GET"}
    with pytest.raises(ConnectionError, match=r"not in the cache .*, and the Hub answered 503; try again"):
        load_model(NAME)


def test_a_transfer_that_never_ends(hub, files, monkeypatch, tmp_path):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.create(NAME, files)
    hub.breaks = [0] * 50
    with pytest.raises(ConnectionError, match=r"user/tiny"):
        load_model(NAME)
    assert list((tmp_path / "cache").rglob("model.safetensors")) == []
    hub.breaks = []
    load_model(NAME)


def test_an_upload_that_breaks_off_leaves_the_repository_as_it_was(hub, model, files, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    repository = hub.create(NAME, files)
    hub.failing = {"PUT"}
    with pytest.raises(ConnectionError, match=r"the transfer of user/tiny broke off \(.*503.*try again"):
        push_model(STCN(CONFIG), NAME, token=TOKEN)
    assert repository.commits[repository.branches["main"]] == files


def test_a_byte_changed_on_the_way_is_found(hub, files):
    hub.create(NAME, files)
    hub.corrupt = True
    with pytest.raises(ValueError, match=r"has sha256 .*, not .*: it is damaged or was changed; delete it"):
        load_model(NAME)


def test_a_file_damaged_in_the_cache_is_found(hub, files, tmp_path):
    hub.create(NAME, files)
    load_model(NAME)
    blob = (
        tmp_path
        / "cache"
        / "models--user--tiny"
        / "blobs"
        / etag("model.safetensors", files["model.safetensors"])
    )
    blob.write_bytes(blob.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=rf"{blob} has sha256"):
        load_model(NAME, local_files_only=True)


def test_a_known_model_is_checked_against_its_sha256(hub, files, monkeypatch):
    known = KnownModel(NAME, etag("model.safetensors", files["model.safetensors"]))
    monkeypatch.setattr("emavos.weights.load.KNOWN", {**KNOWN, "ours": known})
    hub.create(NAME, files)
    load_model("ours")
    hub.create(NAME, other_weights(files))
    with pytest.raises(ValueError, match=rf"not {known.sha256}"):
        load_model("ours")


def test_nothing_in_the_cache_and_the_hub_not_to_be_asked(hub, files, monkeypatch):
    hub.create(NAME, files)
    with pytest.raises(ConnectionError, match=r"not in the cache .* must not be asked \(local_files_only"):
        load_model(NAME, local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="must not be asked"):
        load_model(NAME)
    assert hub.requests == []


def test_half_a_model_in_the_cache_and_the_hub_not_to_be_asked(hub, files, tmp_path):
    hub.create(NAME, files)
    load_model(NAME)
    next((tmp_path / "cache").rglob("model.safetensors")).unlink()
    with pytest.raises(ConnectionError, match="must not be asked"):
        load_model(NAME, local_files_only=True)


@pytest.mark.parametrize("nowhere", ["http://127.0.0.1:9", "http://hub.invalid"])
def test_no_network_is_told_by_the_command_line_and_nothing_is_written(
    hub, tmp_path, monkeypatch, capsys, nowhere
):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    warned = []
    handler = logging.Handler()
    handler.emit = warned.append
    logger = logging.getLogger("huggingface_hub")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template.replace(hub.endpoint, nowhere))
    assert main(["demo", "--model", NAME, "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert warned == []
    assert line.startswith(f"emavos: error: {NAME} is not in the cache")
    assert f"{nowhere} cannot be reached" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a folder that nobody can write to, on Linux")
def test_a_cache_that_cannot_be_written(hub, files):
    hub.create(NAME, files)
    with pytest.raises(OSError, match=r"the cache /proc/cache cannot be written.*choose another cache_dir"):
        load_model(NAME, cache_dir="/proc/cache")


def test_a_full_disk(hub, files, tmp_path):
    """In a file system of 1 MB, which takes the right to mount one."""
    hub.create(NAME, files)
    (tmp_path / "small").mkdir()
    code = f"""
import sys
from emavos.weights.load import load_model
from emavos.weights import push_model, save_model
try:
    load_model({NAME!r}, cache_dir={str(tmp_path / "small")!r})
except OSError as error:
    sys.exit(str(error))
"""
    mount = f"mount -t tmpfs -o size=1m none {tmp_path / 'small'}"
    allowed = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    try:
        able = subprocess.run([*allowed, mount], capture_output=True).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("this system does not let a test mount a file system")
    done = subprocess.run(
        [*allowed, f"{mount} && exec {sys.executable} -W ignore -c {shlex.quote(code)}"],
        capture_output=True,
        text=True,
    )
    assert "the disk is full: user/tiny does not fit into the cache" in done.stderr


def test_a_config_of_another_library_is_told_by_its_fields(hub, files):
    hub.create(NAME, files | {"config.json": json.dumps({"model_type": "bert"}).encode()})
    with pytest.raises(ValueError, match=r"config\.json: unknown config fields: model_type"):
        load_model(NAME)


def test_only_two_files_are_ever_asked_for(hub, files):
    hub.create(NAME, files | {"pytorch_model.bin": b"", "modeling.py": b"raise SystemExit"})
    load_model(NAME)
    asked = {Path(path).name for _, path, _ in hub.requests if "/resolve/" in path}
    assert asked == {"config.json", "model.safetensors"}


def test_quiet_hides_the_bar_of_a_download_too(hub, files, tmp_path, monkeypatch, capsys):
    importlib.import_module("huggingface_hub.utils.tqdm")
    monkeypatch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "HF_HUB_DISABLE_PROGRESS_BARS", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    hub.create(NAME, files)
    for number, more in enumerate((["--quiet"], [])):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / f"cache{number}"))
        out = ["--out", str(tmp_path / f"out{number}")]
        assert main(["demo", "--model", NAME, "--frames", "2", "--size", "32", *out, *more]) == 0
        assert ("config.json" in capsys.readouterr().err) == (not more)
