"""Load and save trained models: in the package, in folders, and in repositories of the Hugging Face Hub.

A model is two files, `config.json` and `model.safetensors`. No other files are read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from emavos.io.addresses import check_reachable
from emavos.io.whole import replacing, sweep
from emavos.machine import multiplies_bfloat16
from emavos.models import STCN, STCNConfig
from emavos.weights.card import ModelCard
from emavos.weights.hub import check_sha256, download, upload

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
_CONFIG_BYTES = 1 << 20  # at most; our own have about 400
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # converted on loading


@dataclass(frozen=True)
class KnownModel:
    """A model with a short name: its folder or Hub repository, and its expected digest."""

    place: Path | str
    sha256: str | None = None  # of its model.safetensors, checked at each load; None: not known
    clicks_sha256: str | None = None  # the same of its clicks.safetensors
    clicks_of: str | None = None  # known model that answers clicks, if this one has no click head


KNOWN: Mapping[str, KnownModel] = {
    "tiny": KnownModel(
        Path(__file__).parent / "tiny",
        "2f30dbf292a78553fd27c01d113d59173fdcdc5e4f960589f21d6d422c880df5",
        "fff474a70144e0ed966a2e72fe838dafb690b2c176592c9f690e4760d30a1fcf",
    ),
    "base": KnownModel(
        Path(__file__).parent / "base",
        "2ca5b5176327af27922212ac08b6d6c1ee8cb2fb06de2c3c9c1c3044ee58ccab",
        clicks_of="tiny",
    ),
}


def load_model(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str = torch.float32,
    subfolder: str | None = None,
    force_download: bool = False,
) -> STCN:
    """A trained model in evaluation mode.

    name_or_path: "tiny" (also None) or "base", the models in this package; a folder written by `save_model`;
        or a repository of the Hub, "user/name". If your folder is called tiny, pass "./tiny" or a `Path`.
    revision, cache_dir, token, local_files_only, force_download: for the Hub; see
        `emavos.weights.hub.download`.
    device: "auto" uses an accelerator if torch has one, otherwise the CPU.
    dtype: of the parameters, such as torch.bfloat16 or "bfloat16", whatever the dtype in the file.
    subfolder: of the model, in the folder or repository.

    Raises ValueError if there is no such model, or its config, keys, shapes or sha256 do not match exactly,
    and the errors of `emavos.weights.hub.download` if the Hub or the cache fails.
    """
    dtype = float_of(dtype)
    place = choose_device(device)
    folder, entry = find_files(
        name_or_path,
        (CONFIG_NAME, WEIGHTS_NAME),
        revision=revision,
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
        subfolder=_subfolder(subfolder),
        force_download=force_download,
    )
    return _load_folder(folder, entry.sha256, dtype).to(place)


def find_files(
    name_or_path: str | os.PathLike[str] | None, names: Sequence[str], **hub: Any
) -> tuple[Path, KnownModel]:
    """The folder of a model, in which these files of the Hub are then, and what is known of the model.

    name_or_path: as for `load_model`. hub: keyword arguments of `emavos.weights.hub.download`. Raises as
    `load_model` does; files of a folder need not be there.
    """
    name = "tiny" if name_or_path is None else os.fspath(name_or_path)
    entry = KnownModel(name)
    if name in KNOWN and not isinstance(name_or_path, os.PathLike):  # before a folder of this name
        entry = KNOWN[name]
    elif os.path.isfile(name):
        raise ValueError(f"{name} is a file; a model is a folder of {CONFIG_NAME} and {WEIGHTS_NAME}")
    elif os.path.isdir(name):
        return Path(name, hub.get("subfolder") or ""), KnownModel(Path(name))
    else:
        check_reachable(name)
    if isinstance(entry.place, Path):
        if hub.get("subfolder"):
            raise ValueError(
                f"{name} is a model in this package, which has no subfolder {hub['subfolder']!r:.60}"
            )
        return entry.place, entry
    if entry.place.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith("/"):
        raise ValueError(
            f"{name!r} is not a folder, a Hub repository (user/name) or a known model ({', '.join(KNOWN)})"
        )
    return download(entry.place, names, **{**hub, "subfolder": hub.get("subfolder") or ""}), entry


def choose_device(device: str | torch.device) -> torch.device:
    """The torch device of a name. "auto" is an accelerator if torch has one, otherwise the CPU.

    Raises ValueError if torch knows no such device, or cannot use the device on this machine.
    """
    if device != "auto":
        try:
            place = torch.device(device)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"device is auto, cpu, cuda or another that torch knows, not {device!r}"
            ) from error
        if place.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is cuda, but torch finds no CUDA device here; use cpu or auto")
        try:
            torch.empty(1, device=place)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # RuntimeError, NotImplementedError or AssertionError, by device
            why = str(error).partition("\n")[0].partition(". ")[0]
            raise ValueError(
                f"device is {place}, which torch cannot use here ({why}); use cpu or auto"
            ) from error
        return place
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None or accelerator.type == "mps":  # mps is untested
        return torch.device("cpu")
    return accelerator


def choose_dtype(device: torch.device, config: STCNConfig | None = None) -> torch.dtype:
    """The fastest dtype on this device that costs less than 0.1 points of J&F, as far as measured.

    device: of the network.
    config: architecture of the network; None: `STCNConfig()`, that of `stcn`.

    With the small trunk of `tiny` and `base`, bfloat16 if the processor multiplies it, and float32 on
    everything else: a GPU waits for Python most of the time, and half precision makes it wait longer. With a
    ResNet, bfloat16 on CUDA (float16 if the GPU has no bfloat16), and float32 on a CPU, because the cost in
    J&F was not measured. Figures are in docs/performance.md.
    """
    small = config is not None and config.trunk != "resnet"
    if device.type == "cpu" and small:
        return torch.bfloat16 if multiplies_bfloat16() else torch.float32
    if device.type != "cuda" or small:
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def float_of(dtype: torch.dtype | str) -> torch.dtype:
    """The dtype named "bfloat16" or "torch.bfloat16", say. Raises ValueError as `check_float` does."""
    names = {str(each).removeprefix("torch."): each for each in _FLOATS}
    chosen = names.get(dtype.removeprefix("torch."), dtype) if isinstance(dtype, str) else dtype
    check_float(chosen)
    assert isinstance(chosen, torch.dtype)
    return chosen


def check_float(dtype: object) -> None:
    """Raise ValueError unless a network can run in this dtype."""
    if dtype not in _FLOATS:
        auto = str(dtype) == "auto"
        hint = (
            "; Predictor.from_pretrained takes it, or emavos.weights.choose_dtype(device, model.config)"
            if auto
            else ""
        )
        raise ValueError(f"dtype is a floating-point type such as torch.float32, not {dtype!r}{hint}")


_ELSEWHERE = {  # names in other libraries
    "torch_dtype": "dtype",
    "device_map": "device",
    "precision": "dtype",
    "name": "name_or_path",
    "pretrained_model_name_or_path": "name_or_path",
    "repo_id": "name_or_path",
    "use_auth_token": "token",
    "resume_download": "force_download",
}


def refuse_other_names(arguments: Mapping[str, object]) -> None:
    """Raise TypeError for unknown arguments, with the name used here if other libraries use another."""
    for name in arguments:
        hint = f"; it is called {_ELSEWHERE[name]} here" if name in _ELSEWHERE else ""
        if name == "trust_remote_code":
            hint = "; models are read from config.json and model.safetensors, and no code of theirs is run"
        raise TypeError(f"from_pretrained() got an unexpected keyword argument {name!r}{hint}")


def _subfolder(name: str | None) -> str:
    """A validated subfolder of a model; "" if there is none."""
    parts = [] if not name else str(name).strip("/").split("/")
    if any(part in ("", ".", "..") or "\\" in part for part in parts):
        raise ValueError(f"subfolder is a folder within the model's, not {name!r:.60}")
    return "/".join(parts)


def save_model(
    model: STCN,
    folder: str | os.PathLike[str],
    dtype: torch.dtype | str | None = None,
    card: ModelCard | None = None,
) -> None:
    """Write `config.json` and `model.safetensors` to a folder.

    folder: created if it does not exist.
    dtype: of the stored weights; None keeps the dtype of the model.
    card: facts about the model, written as README.md.

    Raises ValueError if dtype is not a float dtype.
    """
    kept = None if dtype is None else float_of(dtype)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    state = {
        key: x.detach().to("cpu", kept if x.is_floating_point() else None).contiguous()
        for key, x in model.state_dict().items()
    }
    contents = {
        WEIGHTS_NAME: save(state, metadata={"format": "pt"}),
        CONFIG_NAME: (json.dumps(model.config.to_dict(), indent=2) + "\n").encode(),
    }
    if card is not None:
        contents["README.md"] = card.text(model).encode()
    for name, content in contents.items():
        with replacing(folder / name) as partial:
            partial.write_bytes(content)


def push_model(
    model: STCN,
    repository: str,
    *,
    card: ModelCard | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    message: str = "Add weights of emavos",
) -> str:
    """Upload a model and its card to a repository of the Hub; returns the URL of the commit.

    repository: "user/name", created if it does not exist.
    card: facts about the model beyond its architecture.
    dtype: of the stored weights; None keeps the dtype of the model.
    revision: a branch, created if it does not exist.
    private: whether a new repository is private.
    token: None uses the token stored by `hf auth login`.
    message: of the commit.

    Raises the errors of `emavos.weights.hub.download`.
    """
    card = replace(card or ModelCard(name=repository.rpartition("/")[2]), repository=repository)
    with TemporaryDirectory() as folder:
        save_model(model, folder, dtype, card)
        return upload(
            Path(folder), repository, message=message, revision=revision, private=private, token=token
        )


def read_weights(path: Path, sha256: str | None) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ValueError if the file is damaged, or has another sha256."""
    if sha256 is not None:
        check_sha256(path, sha256)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load all of a state dict. Missing and unknown keys are errors.

    what: beginning of the error message.

    Raises ValueError with a list of the differences.
    """
    _check_state(model, state, what)
    model.load_state_dict(dict(state))


def _check_state(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    model_state = model.state_dict()
    wrong = [f"missing {key}" for key in sorted(model_state.keys() - state.keys())]
    wrong += [f"unknown {key}" for key in sorted(state.keys() - model_state.keys())]
    for key in sorted(model_state.keys() & state.keys()):
        have, want = state[key], model_state[key]
        if have.shape != want.shape:
            wrong.append(f"{key} is {tuple(have.shape)}, not {tuple(want.shape)}")
        elif have.dtype not in (_FLOATS if want.is_floating_point() else (want.dtype,)):
            wrong.append(f"{key} is {have.dtype}, not {want.dtype}")
        elif have.layout != torch.strided or have.is_meta:
            wrong.append(f"{key} holds no plain numbers ({have.layout}, {have.device})")
        elif not have.isfinite().all():
            wrong.append(f"{key} holds NaN or infinity")
    if wrong:
        more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise ValueError(f"{what}: {'; '.join(wrong[:8])}{more}")


def _load_folder(folder: Path, sha256: str | None, dtype: torch.dtype) -> STCN:
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}; a model is {CONFIG_NAME} and {WEIGHTS_NAME}")
    if (folder / CONFIG_NAME).stat().st_size > _CONFIG_BYTES:
        raise ValueError(f"{folder / CONFIG_NAME} has more than {_CONFIG_BYTES} bytes; it is not a config")
    try:
        fields = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError("expected an object of fields")
        config = STCNConfig.from_dict(fields)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG_NAME}: {error}") from error
    weights = folder / WEIGHTS_NAME
    state = read_weights(weights, sha256)
    with torch.device("meta"):  # no random weights: drawing them would advance torch's generator
        model = STCN(config)
    _check_state(model, state, f"{weights} does not fit its {CONFIG_NAME}")  # before allocating memory
    model.to(dtype).to_empty(device="cpu")  # torch's default dtype would round the weights
    model.load_state_dict(state)
    return model.eval()
