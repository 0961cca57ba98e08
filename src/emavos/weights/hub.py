"""The Hugging Face Hub: downloads files, uploads folders, and explains errors."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")


def download(
    repository: str,
    names: Sequence[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    subfolder: str = "",
    force_download: bool = False,
) -> Path:
    """The cache folder with these files of a repository, all of one commit.

    Cached files are not downloaded again, and a broken transfer resumes. If the Hub states the sha256 of a
    file (as it does for large ones), the file is checked on every call.

    repository: "user/name".
    names: of the files.
    revision: a branch, a tag or a commit; defaults to the main branch.
    cache_dir: defaults to the Hub's own cache.
    token: None uses the token stored by `hf auth login`.
    local_files_only: never connect to the Hub.
    subfolder: folder of the files in the repository.
    force_download: download cached files again.

    Raises ValueError if the repository, the revision or a file does not exist, or a file is damaged;
    PermissionError if access is refused; ConnectionError if the Hub is needed and does not answer, or the
    transfer breaks off; OSError if the cache cannot be written.
    """
    from huggingface_hub import constants, hf_hub_download

    cache = None if cache_dir is None else Path(cache_dir)
    folder = Path()
    commit = revision
    for name in names:
        with _explained(repository, revision, cache, token):
            path = hf_hub_download(
                repository,
                name,
                revision=commit,
                cache_dir=cache,
                token=token,
                local_files_only=local_files_only,
                subfolder=subfolder or None,
                force_download=force_download,
                library_name="emavos",
            )
        folder = Path(path).parent
        root = folder.parents[subfolder.count("/")] if subfolder else folder
        commit = root.name  # commit of the first file: a push in between cannot mix two commits
        blob = os.path.realpath(path)
        home = os.path.realpath(constants.HF_HUB_CACHE if cache is None else cache)
        if os.path.commonpath([home, blob]) != home:
            raise ValueError(
                f"{name} of {repository} lies outside the cache {home}, at {blob}, where the Hub's answer "
                "led it; delete that file, and trust neither that endpoint nor a proxy before it"
            )
        if re.fullmatch("[0-9a-f]{64}", os.path.basename(blob)):  # named by its sha256
            check_sha256(blob, os.path.basename(blob))
    return folder


def upload(
    folder: Path,
    repository: str,
    *,
    message: str,
    revision: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
) -> str:
    """Commit the files of a folder to a repository; returns the URL of the commit.

    The repository is created if it does not exist.

    folder: its files are uploaded, but no subfolders.
    repository: "user/name".
    message: of the commit.
    revision: a branch, created if it does not exist.
    private: whether a new repository is private.
    token: None uses the token stored by `hf auth login`.

    Raises the errors of `download`.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token, library_name="emavos")
    files = [CommitOperationAdd(path.name, path) for path in sorted(folder.iterdir())]
    with _explained(repository, revision, None, token):
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.create_commit(repository, files, commit_message=message, revision=revision)
    return commit.commit_url


def check_sha256(path: str | os.PathLike[str], sha256: str) -> None:
    """Raise ValueError unless the file has this sha256."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if (actual := digest.hexdigest()) != sha256:
        raise ValueError(
            f"{os.fspath(path)} has sha256 {actual}, not {sha256}: it is damaged or was changed; "
            "delete it and get it again"
        )


@contextmanager
def _explained(
    repository: str, revision: str | None, cache: Path | None, token: str | bool | None
) -> Iterator[None]:
    """Convert errors of the Hub's client into the exceptions documented in `download`."""
    from huggingface_hub import constants, errors

    hub, place = constants.ENDPOINT, cache or Path(constants.HF_HUB_CACHE)
    try:
        yield
    except errors.LocalEntryNotFoundError as error:  # neither in the cache nor on the Hub
        why = error.__cause__
        at = "" if revision is None else f" at revision {revision}"
        where = f"{repository}{at} is not in the cache {place}"
        if _status(why) in (401, 403):
            raise _refused(repository, _status(why)) from error
        if _status(why) is not None:
            raise ConnectionError(f"{where}, and the Hub answered {_status(why)}; try again later") from error
        if why is None or isinstance(why, errors.OfflineModeIsEnabled):
            raise ConnectionError(
                f"{where}, and the Hub must not be asked (local_files_only or HF_HUB_OFFLINE); "
                "load it once with the network"
            ) from error
        raise ConnectionError(
            f"{where}, and {hub} cannot be reached ({why}); check the network, or load a "
            f"folder (here is none named {repository})"
        ) from error
    except errors.EntryNotFoundError as error:
        raise ValueError(_missing_files(repository, revision, token)) from error
    except errors.GatedRepoError as error:
        raise PermissionError(
            f"access to {repository} is granted by its owner: ask for it at {hub}/{repository}, "
            "then give a token (token=..., or `hf auth login`)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"the Hub has no {repository}, or it is private: check the name, or give a token that "
            "may read it (token=..., or `hf auth login`)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{repository} has no revision {revision}: no such branch, tag or commit") from error
    except errors.HfHubHTTPError as error:
        if _status(error) in (401, 403):
            raise _refused(repository, _status(error)) from error
        raise ConnectionError(
            f"the Hub answered {_status(error)} for {repository}; try again later"
        ) from error
    except RuntimeError as error:  # from an upload
        cause = " ".join(str(error.__cause__ or error).split())
        raise ConnectionError(f"the transfer of {repository} broke off ({cause}); try again") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                f"the disk is full: {repository} does not fit into the cache {place}; free some space, "
                "or choose another cache_dir"
            ) from error
        if error.errno is not None and not isinstance(error, ConnectionError):
            raise OSError(
                f"the cache {place} cannot be written ({error.strerror}); "
                "choose another cache_dir, or set HF_HOME"
            ) from error
        raise ConnectionError(f"the transfer of {repository} broke off ({error}); try again") from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # from the Hub's HTTP client
        raise ConnectionError(
            f"{hub} cannot be reached for {repository} ({error}); check the network"
        ) from error


def _status(error: BaseException | None) -> int | None:
    """The HTTP status of a server's answer; None if there was no answer."""
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return status


def _refused(repository: str, status: int | None) -> PermissionError:
    return PermissionError(
        f"the Hub refuses this for {repository} ({status}): "
        "the token is not valid or may not do it; give another (token=..., or `hf auth login`)"
    )


def _missing_files(repository: str, revision: str | None, token: str | bool | None) -> str:
    """Explain why an existing repository is not a model of this library."""
    from huggingface_hub import HfApi

    with _explained(repository, revision, None, token):
        files = HfApi(token=token, library_name="emavos").list_repo_files(repository, revision=revision)
    contents = "a model is config.json and model.safetensors"
    if "model.safetensors" not in files and (pickles := [f for f in files if f.endswith(_PICKLES)]):
        return (
            f"{repository} holds a pickle ({pickles[0]}) and no model.safetensors; a pickle can run "
            f"code and is never loaded. If it is a published STCN checkpoint, get it and convert it with "
            f"`emavos convert {os.path.basename(pickles[0])} OUT/`"
        )
    return f"{repository} has {', '.join(sorted(files)) or 'no files'}; {contents}"
