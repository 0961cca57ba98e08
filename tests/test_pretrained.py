from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from emavos import Predictor
from emavos import predictor as module
from emavos.demo import synthetic_clip
from emavos.frames import normalize, pad_to_stride, to_frame
from emavos.memory import full_affinity
from emavos.models import PRESETS, STCN, weights_sha256
from emavos.weights import load, save_model
from emavos.weights.load import KNOWN, choose_device, choose_dtype, load_model

CONFIG = PRESETS["stcn-tiny"]


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_model(STCN(CONFIG), tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder, **changes):
    fields = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(fields))


def edit_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def test_a_saved_model_loads_to_the_bit(folder):
    torch.manual_seed(0)
    saved, loaded = STCN(CONFIG).state_dict(), load_model(folder).state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[key], loaded[key]) for key in saved)


def test_nothing_is_left_beside_a_saved_model(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_no_name_means_the_embedded_model():
    one, other = load_model().state_dict(), load_model("tiny").state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("kind", ["file", "folder", "model"])
def test_a_known_name_is_that_model_whatever_the_working_directory_holds(tmp_path, monkeypatch, kind):
    expected = load_model().state_dict()
    monkeypatch.chdir(tmp_path)
    if kind == "file":
        (tmp_path / "tiny").touch()
    elif kind == "folder":
        (tmp_path / "tiny").mkdir()
    else:
        torch.manual_seed(0)
        save_model(STCN(CONFIG), "tiny")
    for name in (None, "tiny"):
        state = Predictor.from_pretrained(name).model.state_dict()
        assert all(torch.equal(state[key], expected[key]) for key in expected)
    for path in ("./tiny", Path("tiny")):
        if kind == "model":
            mine = load_model(path).state_dict()
            assert not torch.equal(mine["decoder.pred.weight"], expected["decoder.pred.weight"])
        else:
            with pytest.raises(ValueError, match="a model is config" if kind == "folder" else "is a file"):
                load_model(path)


@pytest.mark.parametrize("device", ["mps", "xpu", "hpu", "cuda:99", "nonsense", "mps:7", 3.5])
def test_a_device_that_is_not_there_is_a_value_error(device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("it is there")
    with pytest.raises(ValueError, match=r"^device is "):
        Predictor.from_pretrained(device=device)


@pytest.mark.parametrize(
    ("name", "preset", "most"), [("tiny", "stcn-tiny-scene", 25e6), ("base", "stcn-base-wide", 60e6)]
)
def test_models_in_the_package_are_presets_in_half_precision_and_load_as_single(name, preset, most):
    model = load_model(name)
    assert model.config == PRESETS[preset]
    assert not model.training
    assert {x.dtype for x in model.parameters()} == {torch.float32}
    weights = KNOWN[name].place / "model.safetensors"
    stored = load_file(weights)
    assert {x.dtype for x in stored.values() if x.is_floating_point()} == {torch.float16}
    assert weights.stat().st_size < most


@pytest.mark.parametrize("name", list(KNOWN))
def test_the_keys_of_the_models_read_several_cells_and_not_one(name):
    """If keys were not learned, the softmax is an argmax: see docs/experiments.md."""
    frames, _ = synthetic_clip(frames=7)
    model = load_model(name)
    with torch.no_grad():
        first, last = (
            model.encode_key(pad_to_stride(normalize(to_frame(frames[i]))[None])[0]).key.flatten(2)
            for i in (0, 6)
        )
        weights = full_affinity(last, first.transpose(1, 2))[0]  # (N, P)
    assert weights.amax(dim=0).median() < 0.9
    entropy = -(weights * weights.clamp(min=1e-12).log()).sum(dim=0)
    assert entropy.exp().median() > 1.5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("large", r"known model \(tiny, base\)"),
        ("/no/such/folder", "not a folder"),
        ("./model", "not a folder"),
        ("a/b/c", "not a folder"),
        ("", "not a folder"),
    ],
)
def test_an_unknown_name_is_refused_without_asking_the_hub(name, message):
    with pytest.raises(ValueError, match=message):
        Predictor.from_pretrained(name)


def test_a_file_is_not_a_model(tmp_path):
    (tmp_path / "stcn.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is a file; a model is a folder of config\.json"):
        load_model(tmp_path / "stcn.pth")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"has no {name}"):
        load_model(folder)


def test_a_pickle_is_never_opened(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("decoder.pred.bias"), r"missing decoder\.pred\.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "unknown extra"),
        (
            lambda state: state.update({"decoder.pred.bias": torch.zeros(2)}),
            r"decoder\.pred\.bias is \(2,\), not \(1,\)",
        ),
        (
            lambda state: state.update({"decoder.pred.bias": torch.zeros(1, dtype=torch.int64)}),
            r"torch\.int64, not torch\.float32",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_listed(folder, change, message):
    edit_weights(folder, change)
    with pytest.raises(ValueError, match=message):
        load_model(folder)


def test_a_long_list_of_differences_is_cut(folder):
    edit_weights(folder, lambda state: [state.pop(key) for key in list(state) if key.startswith("decoder")])
    with pytest.raises(ValueError, match=r"and .* more"):
        load_model(folder)


def test_truncated_weights_are_refused(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_model(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"stcn"', "\x00"])
def test_a_broken_config_is_refused_by_name(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        load_model(folder)


def test_an_unknown_config_field_is_refused(folder):
    edit_config(folder, slot=3)
    with pytest.raises(ValueError, match=r"config\.json: unknown config fields: slot"):
        load_model(folder)


def test_a_model_loads_as_the_type_that_is_asked_for(folder):
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        model = load_model(folder, dtype=dtype)
        assert {p.dtype for p in model.parameters()} == {dtype}
    with pytest.raises(ValueError, match="floating-point type"):
        load_model(folder, dtype=torch.int8)


def test_half_precision_is_refused_on_a_cpu_and_bfloat16_is_not(folder):
    with pytest.raises(ValueError, match="a CPU cannot compute in float16"):
        Predictor.from_pretrained(folder, device="cpu", dtype=torch.float16)
    predictor = Predictor.from_pretrained(folder, device="cpu", dtype=torch.bfloat16, size=64)
    frame = np.zeros((64, 64, 3), np.uint8)
    (result,) = predictor.propagate([frame], np.eye(64, dtype=np.uint8))
    assert result.prob.dtype == torch.float32


def test_a_predictor_says_where_and_in_what_it_computes():
    assert Predictor.from_pretrained(device="cpu").dtype == torch.float32
    predictor = Predictor.from_pretrained(device="cpu", dtype=torch.bfloat16)
    assert (predictor.device, predictor.dtype) == (torch.device("cpu"), torch.bfloat16)


SMALL, RESNET = PRESETS["stcn-tiny-scene"], PRESETS["stcn"]


@pytest.mark.parametrize(
    ("config", "device", "able", "dtype"),
    [
        (SMALL, "cpu", True, torch.bfloat16),
        (SMALL, "cpu", False, torch.float32),
        (SMALL, "cpu", None, torch.float32),  # not known
        (RESNET, "cpu", True, torch.float32),
        (None, "cpu", True, torch.float32),
        (SMALL, "cuda", (9, 0), torch.float32),
        (SMALL, "cuda", (7, 5), torch.float32),
        (RESNET, "cuda", (8, 0), torch.bfloat16),
        (RESNET, "cuda", (7, 5), torch.float16),
        (None, "cuda", (8, 0), torch.bfloat16),
        (SMALL, "xpu", None, torch.float32),
        (RESNET, "xpu", None, torch.float32),
    ],
)
def test_auto_takes_the_fastest_dtype_of_a_model_on_a_device(config, device, able, dtype, monkeypatch):
    monkeypatch.setattr(load, "multiplies_bfloat16", lambda: able)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: able)
    assert choose_dtype(torch.device(device), config) == dtype


@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize("model", ["tiny", "base"])
def test_a_predictor_computes_in_what_auto_takes(model, able, monkeypatch):
    monkeypatch.setattr(load, "multiplies_bfloat16", lambda: able)
    predictor = Predictor.from_pretrained(model, device="cpu", dtype="auto")
    expected = torch.bfloat16 if able else torch.float32
    assert predictor.dtype == choose_dtype(torch.device("cpu"), predictor.model.config) == expected
    assert {x.dtype for x in predictor.model.parameters()} == {expected}
    assert Predictor.from_pretrained(model, device="cpu").dtype == torch.float32  # auto has to be asked for


def test_a_dtype_that_does_not_exist_is_refused_before_the_model_is_loaded(monkeypatch):
    monkeypatch.setattr(module, "load_model", None)
    with pytest.raises(ValueError, match=r"dtype is a floating-point type .*, not 'bf16'"):
        Predictor.from_pretrained(dtype="bf16")
    with pytest.raises(ValueError, match="a CPU cannot compute in float16"):
        Predictor.from_pretrained(device="cpu", dtype="float16")


@pytest.mark.parametrize("dtype", ["bfloat16", "torch.bfloat16", torch.bfloat16])
def test_a_dtype_may_be_named(folder, tmp_path, dtype):
    predictor = Predictor.from_pretrained(folder, device="cpu", dtype=dtype)
    assert predictor.dtype == Predictor(load_model(folder), dtype=dtype).dtype == torch.bfloat16
    assert {x.dtype for x in load_model(folder, dtype=dtype).parameters()} == {torch.bfloat16}
    predictor.save_pretrained(tmp_path / "half", dtype=dtype)
    with safe_open(tmp_path / "half" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_tensor(next(iter(file.keys()))).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("torch_dtype", "'torch_dtype'; it is called dtype here"),
        ("device_map", "'device_map'; it is called device here"),
        ("trust_remote_code", "no code of theirs is run"),
        ("sizes", "unexpected keyword argument 'sizes'$"),
    ],
)
def test_an_argument_of_other_libraries_is_refused_with_its_name_here(argument, words):
    with pytest.raises(TypeError, match=words):
        Predictor.from_pretrained(**{argument: "auto"})


def test_a_predictor_is_moved_as_a_module_is(folder):
    predictor = Predictor.from_pretrained(folder, device="cpu", size=64)
    before = predictor.facts()
    assert predictor.to("cpu") is predictor.to(torch.device("cpu")) is predictor
    assert predictor.facts() == before
    with pytest.raises(
        ValueError, match=r"another dtype needs another network: from_pretrained\(..., dtype='float16'\)"
    ):
        predictor.to(torch.float16)
    with pytest.raises(ValueError, match="not 'gpu'"):
        predictor.to("gpu")
    assert predictor.to("meta").device == torch.device("meta")
    half = Predictor(load_model(folder), dtype=torch.float16)
    with pytest.raises(ValueError, match="a CPU cannot compute in float16"):
        half.to("cpu")


@pytest.mark.parametrize(("kind", "taken"), [("mps", "cpu"), ("xpu", "xpu"), (None, "cpu")])
def test_mps_is_never_taken_unless_it_is_named(monkeypatch, kind, taken):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    assert choose_device("auto").type == taken


def test_a_model_may_lie_in_a_folder_within_another(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "all" / "small" / "first")
    model = load_model(tmp_path / "all", subfolder="small/first/")
    assert weights_sha256(model) == weights_sha256(load_model(folder))
    for wrong in ("../all", "small//first", "/../x", "a\\b"):
        with pytest.raises(ValueError, match="subfolder is a folder within the model's"):
            load_model(tmp_path / "all", subfolder=wrong)
    with pytest.raises(ValueError, match="which has no subfolder 'small'"):
        load_model("tiny", subfolder="small")


def test_bfloat16_gives_nearly_the_same_masks():
    frames, truth = synthetic_clip(frames=6, size=(96, 160))
    single, half = (
        [
            result.mask
            for result in Predictor.from_pretrained(device="cpu", size=96, dtype=dtype).propagate(
                frames, truth[0]
            )
        ]
        for dtype in (torch.float32, torch.bfloat16)
    )
    same = [np.mean(a == b) for a, b in zip(single, half, strict=True)]
    assert min(same) > 0.98


def test_loading_a_model_leaves_the_random_numbers_of_its_user_alone(folder):
    before = torch.get_rng_state()
    for name in (None, folder):
        load_model(name)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_is_put_where_it_is_told(folder):
    for device in ("cpu", "auto", torch.device("meta")):
        model = load_model(folder, device=device)
        assert device == "auto" or next(model.parameters()).device == torch.device(device)
    with pytest.raises(ValueError, match="not 'gpu'"):
        load_model(folder, device="gpu")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.bool])
def test_types_that_are_no_weights_are_refused_and_named(folder, dtype):
    edit_weights(folder, lambda state: state.update({"decoder.pred.bias": torch.zeros(1).to(dtype)}))
    with pytest.raises(ValueError, match=rf"decoder\.pred\.bias is {dtype}, not torch\.float32"):
        load_model(folder)


def test_whole_numbers_of_another_width_are_refused(folder):
    key = "key_encoder.trunk.stem.norm.num_batches_tracked"
    edit_weights(folder, lambda state: state.update({key: torch.zeros((), dtype=torch.int32)}))
    with pytest.raises(ValueError, match=r"num_batches_tracked is torch\.int32, not torch\.int64"):
        load_model(folder)


def test_weights_are_not_stored_as_whole_numbers(tmp_path):
    with pytest.raises(ValueError, match=r"floating-point type such as torch\.float32, not torch\.int8"):
        save_model(load_model(), tmp_path / "model", dtype=torch.int8)
    assert not (tmp_path / "model").exists()
