"""Weights in and out: the model inside the package, folders, and the Hugging Face Hub.

A model is two files, `config.json` and `model.safetensors`, and no others are ever read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from emavos.models import STCN, STCNConfig

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
EMBEDDED = {"tiny": Path(__file__).parent / "weights"}  # models inside this package, by their short names


def load_model(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> STCN:
    """A trained model in evaluation mode, float32, on the CPU.

    name_or_path: nothing or a short name ("tiny"), a model inside this package; a folder that
        `save_model` wrote; or a repository of the Hub, "user/name", of which revision, cache_dir, token and
        local_files_only are then asked.

    Raises ValueError where there is no such model, or its config, keys or shapes are not exactly right.
    """
    name = "tiny" if name_or_path is None else os.fspath(name_or_path)
    if name in EMBEDDED and not os.path.isdir(name):
        return _load_folder(EMBEDDED[name])
    if os.path.isdir(name):
        return _load_folder(Path(name))
    if os.path.isfile(name):
        raise ValueError(f"{name} is a file; a model is a folder of {CONFIG_NAME} and {WEIGHTS_NAME}")
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith("/"):
        known = ", ".join(sorted(EMBEDDED))
        raise ValueError(f"{name} is not a folder, a Hub repository (user/name) or a known model ({known})")
    return _load_folder(_download(name, revision, cache_dir, token, local_files_only))


def save_model(model: STCN, folder: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
    """Write `config.json` and `model.safetensors` into a folder, which is made if need be.

    dtype: of the stored weights; they are loaded as float32 whatever it is.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: x.to(dtype) if x.is_floating_point() else x for key, x in model.state_dict().items()}
    state = {key: x.cpu().contiguous() for key, x in state.items()}
    config = json.dumps(model.config.to_dict(), indent=2) + "\n"
    for name, content in ((WEIGHTS_NAME, save(state)), (CONFIG_NAME, config.encode())):
        partial = folder / f".{name}.partial"
        partial.write_bytes(content)
        os.replace(partial, folder / name)


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load all of a state and nothing else.

    Raises ValueError that begins with `what` and lists what differs.
    """
    wanted = model.state_dict()
    wrong = [f"missing {key}" for key in sorted(wanted.keys() - state.keys())]
    wrong += [f"unknown {key}" for key in sorted(state.keys() - wanted.keys())]
    for key in sorted(wanted.keys() & state.keys()):
        given, want = state[key], wanted[key]
        if given.shape != want.shape:
            wrong.append(f"{key} is {tuple(given.shape)}, not {tuple(want.shape)}")
        elif given.is_floating_point() != want.is_floating_point():
            wrong.append(f"{key} is {given.dtype}, not {want.dtype}")
    if wrong:
        more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise ValueError(f"{what}: {'; '.join(wrong[:8])}{more}")
    model.load_state_dict(dict(state))


def _load_folder(folder: Path) -> STCN:
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}; a model is {CONFIG_NAME} and {WEIGHTS_NAME}")
    try:
        fields = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError("expected an object of fields")
        config = STCNConfig.from_dict(fields)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG_NAME}: {error}") from error
    try:
        state = load_file(folder / WEIGHTS_NAME)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS_NAME} is not a whole safetensors file: {error}") from error
    model = STCN(config)
    load_strictly(model, state, f"{folder / WEIGHTS_NAME} does not fit its {CONFIG_NAME}")
    return model.eval()


def _download(
    repository: str,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    token: str | bool | None,
    local_files_only: bool,
) -> Path:
    """The folder of the cache that holds both files."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        paths = [
            hf_hub_download(
                repository,
                name,
                revision=revision,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                token=token,
                local_files_only=local_files_only,
            )
            for name in (CONFIG_NAME, WEIGHTS_NAME)
        ]
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"{repository} is not in the cache and the Hub cannot be reached (or local_files_only is set)"
        ) from error
    except EntryNotFoundError as error:
        raise ValueError(f"{repository} has no {CONFIG_NAME} and {WEIGHTS_NAME}: {error}") from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"the Hub has no {repository}, or it is private and needs a token") from error
    return Path(paths[0]).parent
